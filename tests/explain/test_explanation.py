"""An explanation has a table, captions, a gallery and headline figures that agree."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from oncoshift.errors import DataError
from oncoshift.explain.explanation import Explanation, explain
from oncoshift.settings import ExplainSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from oncoshift.serving.classifier import TileClassifier

SETTINGS = ExplainSettings(steps=1, max_steps=2, internal_batch_size=12, checked_tiles=0)
CHECKED = SETTINGS.model_copy(update={"checked_tiles": 2})


def run(
    classifier: TileClassifier,
    tiles: NDArray[np.uint8],
    masks: NDArray[np.bool_] | None = None,
    labels: NDArray[np.int64] | None = None,
    settings: ExplainSettings = SETTINGS,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    faithfulness: bool = True,
) -> Explanation:
    return explain(
        classifier,
        tiles,
        masks,
        tile_ids=np.array([f"tile-{number}" for number in range(len(tiles))]),
        groups=np.array([f"group-{number % 3}" for number in range(len(tiles))]),
        mean_image=tiles.mean(axis=0),
        device="cpu",
        settings=settings,
        labels=labels,
        on_progress=on_progress,
        faithfulness=faithfulness,
    )


def captions(explanation: Explanation) -> list[str]:
    titles = [axes.get_title(loc="left") for axes in explanation.draw().axes]
    return [title for title in titles if title]


def test_the_table_has_a_row_a_tile_that_agrees_with_the_arrays(
    classifier: TileClassifier, tiles: NDArray[np.uint8]
) -> None:
    result = run(classifier, tiles)
    table = result.table
    assert table["tile_id"].tolist() == [f"tile-{number}" for number in range(5)]
    assert set(table["mask"]) == {"haematoxylin"}
    assert "label" not in table
    assert (table["called"] == (table["probability"] >= 0.5)).all()
    np.testing.assert_allclose(table["nuclei_area"], result.masks.mean(axis=(1, 2)))
    magnitude = np.abs(result.attributions.values)
    shares = (magnitude * result.masks).sum(axis=(1, 2)) / magnitude.sum(axis=(1, 2))
    np.testing.assert_allclose(table["nuclei_share"], shares, rtol=1e-5)
    assert result.summary.interval is not None
    assert result.summary.interval.low <= result.summary.enrichment <= result.summary.interval.high


def test_given_masks_are_used_and_said_to_be_true(classifier: TileClassifier, tiles: NDArray[np.uint8]) -> None:
    masks = np.zeros(tiles.shape[:3], dtype=bool)
    masks[:, :16] = True
    result = run(classifier, tiles, masks)
    assert set(result.table["mask"]) == {"true"}
    assert (result.table["nuclei_area"] == 0.5).all()


def test_captions_say_what_is_known(classifier: TileClassifier, tiles: NDArray[np.uint8]) -> None:
    masks = np.ones(tiles.shape[:3], dtype=bool)
    masks[1] = False
    shown = captions(run(classifier, tiles, masks, labels=np.array([0, 1, -1, 0, 1])))
    assert len(shown) == 5
    assert "label benign" in shown[0]
    assert "nuclei 100% of attribution, 100% of area" in shown[0]
    assert "label malignant" in shown[1]
    assert "no nuclei found" in shown[1]
    assert "label" not in shown[2]
    assert all("p(malignant) 0." in caption for caption in shown)
    assert "label" not in "".join(captions(run(classifier, tiles)))


def test_the_gallery_can_be_drawn_without_warnings_or_global_state(
    classifier: TileClassifier, tiles: NDArray[np.uint8]
) -> None:
    masks = np.zeros(tiles.shape[:3], dtype=bool)
    masks[0, 4:9, 4:9] = True
    figure = run(classifier, tiles, masks).draw()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FigureCanvasAgg(figure).draw()
    assert len(figure.axes) == 3 * 5 + 1, "three panels a tile and the colour bar"
    assert plt.get_fignums() == []


def test_heat_maps_are_symmetric_about_zero(classifier: TileClassifier, tiles: NDArray[np.uint8]) -> None:
    figure = run(classifier, tiles).draw()
    low, high = figure.axes[1].images[0].get_clim()
    assert low == -high < 0


def test_a_tile_without_attribution_is_drawn_and_reported(classifier: TileClassifier, tiles: NDArray[np.uint8]) -> None:
    same = np.repeat(tiles[:1], 2, axis=0)
    result = run(classifier, same)
    assert "no attribution" in captions(result)[0]
    FigureCanvasAgg(result.draw()).draw()
    numbers = result.as_dict()
    assert numbers["tiles_with_nuclei"] == 0
    assert numbers["nuclei_enrichment"] is None


def test_headline_numbers_are_json(classifier: TileClassifier, tiles: NDArray[np.uint8]) -> None:
    numbers = run(classifier, tiles).as_dict()
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert numbers["tiles"] == 5
    assert numbers["nuclei_enrichment_low"] <= numbers["nuclei_enrichment"] <= numbers["nuclei_enrichment_high"]


def test_parameters_are_randomised_and_baselines_compared(classifier: TileClassifier, tiles: NDArray[np.uint8]) -> None:
    result = run(classifier, tiles, settings=CHECKED)
    assert result.checks is not None
    assert 0 <= result.as_dict()["randomisation_similarity"] < 0.9
    table = result.checks.baselines.set_index("baseline")
    assert table.index.tolist() == ["mean", "blurred", "white", "black"]
    assert table.loc["mean", "agreement"] == pytest.approx(1)
    assert (table["agreement"].drop("mean") < 0.999).all()


def test_a_map_that_ignores_the_classifier_survives_randomisation(
    monkeypatch: pytest.MonkeyPatch, classifier: TileClassifier, tiles: NDArray[np.uint8]
) -> None:
    monkeypatch.setattr("oncoshift.explain.checks.randomise_parameters", lambda model, _seed: model)
    assert run(classifier, tiles, settings=CHECKED).as_dict()["randomisation_similarity"] > 0.9


def test_no_checks_are_made_where_none_are_asked_for(classifier: TileClassifier, tiles: NDArray[np.uint8]) -> None:
    result = run(classifier, tiles)
    assert result.checks is None
    assert "randomisation_similarity" not in result.as_dict()
    assert result.as_dict()["deletion_random_order"] is not None


def test_some_tiles_can_be_taken_and_faithfulness_left_out(
    classifier: TileClassifier, tiles: NDArray[np.uint8]
) -> None:
    whole = run(classifier, tiles, faithfulness=False)
    assert "deletion" not in whole.table
    part = whole.take(np.array([3, 1]))
    assert part.table["tile_id"].tolist() == ["tile-3", "tile-1"]
    np.testing.assert_array_equal(part.attributions.values, whole.attributions.values[[3, 1]])
    assert part.as_dict()["nuclei_share"] == pytest.approx(whole.table["nuclei_share"][[1, 3]].mean())
    assert captions(part)[0].split("  ")[1:] == captions(whole)[3].split("  ")[1:]


def test_progress_counts_checks_too(classifier: TileClassifier, tiles: NDArray[np.uint8]) -> None:
    told: list[tuple[int, int]] = []
    run(classifier, tiles, settings=CHECKED, on_progress=lambda done, of: told.append((done, of)))
    assert told == [(4, 13), (5, 13), (7, 13), (9, 13), (11, 13), (13, 13)]


def test_counts_must_agree(classifier: TileClassifier, tiles: NDArray[np.uint8]) -> None:
    with pytest.raises(DataError, match="5 tiles"):
        run(classifier, tiles, labels=np.zeros(4, dtype=np.int64))
    with pytest.raises(DataError, match="bool masks"):
        run(classifier, tiles, np.zeros((4, 32, 32), dtype=bool))
