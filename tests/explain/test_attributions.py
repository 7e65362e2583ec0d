"""Attribution of many tiles: part by part, with named or given baselines, and checked shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from oncoshift.errors import DataError
from oncoshift.explain.attributions import attribute_tiles, compute_mean_image
from oncoshift.serving.attributions import Attribution, Convergence, explain_tile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.serving.classifier import TileClassifier

QUICK = Convergence(2, 4)


def attribute(
    model: TileClassifier, tiles: NDArray[np.uint8], baseline: NDArray[np.floating] | None = None
) -> Attribution:
    start = np.full((32, 32, 3), 200.5) if baseline is None else baseline
    return attribute_tiles(model, tiles, start, QUICK, batch_size=4)


def test_parts_are_joined_in_order(classifier: TileClassifier, tiles: NDArray[np.uint8]) -> None:
    whole = attribute(classifier, tiles)
    assert whole.values.shape == (5, 32, 32)
    alone = [attribute(classifier, tiles[number : number + 1]) for number in range(5)]
    joined = np.concatenate([each.values for each in alone])
    assert np.corrcoef(whole.values.ravel(), joined.ravel())[0, 1] > 0.99
    np.testing.assert_allclose(whole.margins, np.concatenate([each.margins for each in alone]), rtol=1e-4)


def test_a_named_baseline_is_made_of_each_tile(classifier: TileClassifier, tiles: NDArray[np.uint8]) -> None:
    blurred = attribute_tiles(classifier, tiles, "blurred", QUICK, batch_size=4)
    alone = explain_tile(classifier, tiles[3], baseline="blurred", convergence=QUICK)
    assert np.corrcoef(blurred.values[3].ravel(), alone.values[0].ravel())[0, 1] > 0.99
    assert len(np.unique(blurred.baseline_margins)) == 5


def test_the_classifier_is_left_as_it_was(classifier: TileClassifier, tiles: NDArray[np.uint8]) -> None:
    classifier.trunk.layer1.eval()  # a part set apart, as frozen parts are
    modes = [part.training for part in classifier.modules()]
    state = {name: value.clone() for name, value in classifier.state_dict().items()}
    attribute(classifier, tiles[:1])
    assert [part.training for part in classifier.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in classifier.state_dict().items())
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_shapes_are_checked(classifier: TileClassifier, tiles: NDArray[np.uint8]) -> None:
    with pytest.raises(DataError, match=r"uint8 \[N, S, S, 3\]"):
        attribute(classifier, tiles.astype(np.float32))
    with pytest.raises(DataError, match="N ≥ 1"):
        attribute(classifier, tiles[:0])
    with pytest.raises(DataError, match=r"baseline must be \[32, 32, 3\]"):
        attribute(classifier, tiles, baseline=np.zeros((32, 32)))


def test_the_mean_image_is_that_of_the_rows(monkeypatch: pytest.MonkeyPatch, tiles: NDArray[np.uint8]) -> None:
    monkeypatch.setattr("oncoshift.explain.attributions._MEAN_CHUNK", 2)
    rows = np.array([4, 0, 3])
    np.testing.assert_allclose(compute_mean_image(tiles, rows), tiles[rows].mean(axis=0), rtol=1e-6)
    with pytest.raises(DataError, match="no tiles"):
        compute_mean_image(tiles, rows[:0])
