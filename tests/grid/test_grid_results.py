"""Tables of the grid are computed from what rows recorded: gains, choice, regret, verdicts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from support.made_up_grid import POOL, SETTINGS, make_results, measured

from oncoshift.errors import DataError, SettingsError
from oncoshift.grid.page import compute_bound, draw_figures, find_single, prepare_page, render_page, write_page
from oncoshift.grid.results import MeasuredRow
from oncoshift.grid.rows import Pool, Row
from oncoshift.selection.verdict import Kind
from oncoshift.settings import replace_values

if TYPE_CHECKING:
    from pathlib import Path


def test_the_pages_folder_is_made_and_checked_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_page(tmp_path / "new" / "deeper" / "results.md")
    assert (tmp_path / "new" / "deeper" / "img").is_dir()
    with pytest.raises(SettingsError, match="name a file"):
        prepare_page(tmp_path / "new")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="no folder that you may write to"):
        prepare_page(tmp_path / "file" / "results.md")
    monkeypatch.setattr("os.access", lambda *_: False)  # as in a read-only folder
    with pytest.raises(DataError, match="no folder that you may write to"):
        prepare_page(tmp_path / "other" / "results.md")


def test_a_gain_is_paired_with_source_only_of_the_same_pool() -> None:
    results = make_results()
    gain = results.compute_gain(results.find(POOL, "dann"))
    assert gain is not None
    assert gain.point == pytest.approx(0.25), "and not that of another pool, variant or protocol"
    assert gain.low <= gain.point <= gain.high
    assert results.compute_gain(results.find(POOL, "dann", "reinhard")) is None, "there is no such row"


def test_the_choice_keeps_to_the_verdict_and_its_regret_is_read_from_labels() -> None:
    [chosen] = make_results().chosen
    assert chosen.choice.method == "dann", "mcc is better and has the better score, and is refused"
    assert chosen.best.row.method == "mcc"
    assert chosen.regret == pytest.approx(0.25)


def test_the_variant_is_chosen_first_and_the_page_says_what_that_brings() -> None:
    both = {"normalize.variants": ["none", "reinhard"], "retrain.methods": ["dann", "mcc"]}
    settings = replace_values(SETTINGS, both | {"retrain.variants": ["none", "reinhard"]})
    rows = [
        measured(Row(POOL, "dann", "reinhard"), 1.0, Kind.DOUBT, 0.5, nuclei=0.2),
        measured(Row(POOL, "mcc", "reinhard"), 0.75, Kind.DOUBT, 0.4, nuclei=0.1),
    ]
    results = make_results(*rows, settings=settings)
    [chosen] = results.chosen
    assert (chosen.choice.method, chosen.choice.variant) == ("dann", "reinhard"), "its score is below that of none"
    assert chosen.row.row.variant == "reinhard"
    [alone] = results.choose_among(("dann", "mcc"), ("none",))
    assert (alone.choice.method, alone.choice.variant) == ("dann", "none")
    page = render_page(results, ())
    row = "dann on reinhard: 0.875, 0.000 | dann on reinhard: 0.875, 0.000 | dann: 0.625, 0.250 |"
    assert f"| lung ← colon, breast | {row}" in page
    assert "| mean regret | 0.000 | 0.000 | 0.250 | 0.000 |" in page, (
        "against the best of all, whatever the choice is of"
    )
    gain = results.compute_gain(results.find(POOL, "dann", "reinhard"))
    assert f"| dann on reinhard | {chosen.row.of_target} | {gain.format_signed() if gain else ''} | doubt |" in page


def test_the_page_says_who_has_a_say_in_the_variant() -> None:
    both = {"normalize.variants": ["none", "reinhard"], "paper.methods": ["dann", "mcc", "anchored"]}
    both |= {"retrain.methods": ["dann", "anchored"], "retrain.variants": ["none", "reinhard"]}
    rows = [
        measured(Row(POOL, "dann", "reinhard"), 0.75, Kind.DOUBT, 0.5, nuclei=0.2),
        measured(Row(POOL, "anchored", "none"), 0.75, Kind.DOUBT, 0.5, nuclei=0.9),
    ]
    results = make_results(*rows, settings=replace_values(SETTINGS, both))
    [chosen] = results.chosen
    assert (chosen.choice.method, chosen.choice.variant) == ("dann", "reinhard")
    page = render_page(results, ())
    assert "| anchored | 0.450 | (0.900) |" in page
    assert "| dann on reinhard (chosen) | 0.450 | 0.200 |" in page
    words = " ".join(page.split())
    assert "in parentheses: of a method that learns from an anchor, which has no say in that" in words
    assert (
        "those that the verdict trusts come first; without any, those on the variant that follows the anchor `nuclei` "
        "best (mean over the methods that learn from no anchor), doubted before refused. Of equals, those that no "
        "anchor taught come first, then the score decides"
    ) in words


def test_a_candidate_counts_without_the_sources_that_it_left_out_and_the_page_shows_what_that_changes() -> None:
    left_out = measured(Row(POOL, "dann", "none", leaves_out=True), 1.0, Kind.DOUBT, 0.9, without=("breast",))
    repeated = measured(Row(POOL, "mcc", "none", leaves_out=True), 1.0, Kind.REFUSE, 0.95)
    results = make_results(left_out, repeated)
    (chosen,) = results.choose_among(["dann", "mcc"], ["none"])
    assert (chosen.row, chosen.choice.chosen.without) == (left_out, {"breast": -0.5})
    assert results.name_chosen(chosen.choice) == "dann without breast"
    assert results.find_candidate(POOL, "mcc", "none") == results.find(POOL, "mcc")
    assert len(results.judged) == len(make_results().judged) + 1, "what left nothing out is the same models again"
    page = render_page(results, ())
    assert "| lung ← colon, breast | dann | breast (-0.50) | 0.625 [" in page
    assert "dann without breast (chosen)" in page
    assert page.count("mcc without contradicting sources") == 0


@pytest.mark.parametrize(("accuracy", "claimed"), [(0.75, False), (1.25, True)])
def test_the_page_does_not_claim_to_beat_the_paper_where_it_does_not(accuracy: float, claimed: bool) -> None:
    chosen = measured(Row(POOL, "dann", "none"), accuracy, Kind.TRUST, 0.9)
    results = make_results(settings=replace_values(SETTINGS, {"paper.methods": ["dann"]}))
    results = replace(results, rows=[each for each in results.rows if each.row != chosen.row] + [chosen])
    (row,) = results.chosen
    assert (row.row.accuracy > 0.956) is claimed
    assert ("paper is beaten on lung without labels: its DANN has 0.956" in render_page(results, ())) is not claimed


def test_verdicts_are_counted_on_the_picked_seed() -> None:
    judged = make_results().judged.set_index("method")
    assert judged.loc["dann", "verdict"] == "doubt"
    assert judged.loc["mcc", "balanced_accuracy"] == pytest.approx(1.0), "and not the mean of both seeds"


def test_a_failed_model_that_the_verdict_trusts_is_named() -> None:
    assert "Trusted although they failed: none." in render_page(make_results(), ())
    wrong = measured(Row(Pool("lung", ("colon",)), "mcc", "none"), 0.5, Kind.TRUST, 0.9)
    assert "Trusted although they failed: mcc, lung ← colon (0.50)." in render_page(make_results(wrong), ())


def test_agreement_across_stains_is_held_against_the_truth() -> None:
    assert "One witness of the verdict" not in render_page(make_results(), ()), "no row has it"
    rows = [
        measured(Row(POOL, "cdan", "none"), 0.875, Kind.TRUST, 0.9, stain=0.9),
        measured(Row(POOL, "mcc", "reinhard"), 0.5, Kind.DOUBT, 0.9, stain=0.8),
        measured(Row(POOL, "cdan", "reinhard"), 0.25, Kind.REFUSE, 0.9, stain=0.1),
    ]
    page = " ".join(render_page(make_results(*rows), ("results-witness.png",)).split())
    assert (
        "Of 3 picks, 2 agree with a kappa of at least 0.75 (`select.trust_stain`), and 1 of these have failed" in page
    )
    assert "of the 1 others, 1 have." in page
    assert "(img/results-witness.png)" in page


def test_a_row_that_cannot_be_trained_is_listed_with_its_reason_and_never_chosen() -> None:
    row = Row(POOL, "mcc", "reinhard")
    failed = MeasuredRow(row, "f" * 32, {"failure": "too few tiles", "candidate": None}, pd.DataFrame(
        columns=["organ", "tile_id", "group"]
    ))  # fmt: skip
    results = make_results(failed)
    assert results.find(POOL, "mcc", "reinhard") is None
    assert "cannot be trained: too few tiles" in render_page(results, ())


def test_a_model_is_measured_on_test_tiles_elsewhere_and_on_validation_tiles_at_home() -> None:
    results = make_results()
    elsewhere = find_single(results, "colon", "lung")
    assert elsewhere is not None
    assert elsewhere.compute_mean("lung") == pytest.approx(0.5)
    assert compute_bound(results, "colon") == pytest.approx(0.875)
    assert compute_bound(results, "lung") is None, "no pool learns from it"


def test_validators_are_ranked_over_single_models() -> None:
    ranks = make_results().rank_validators().set_index("validator")
    # mcc's seed 0 has the best entropy, and is the best model.
    assert ranks.loc["entropy", "regret"] == pytest.approx(0.0)
    assert "source_accuracy" not in ranks.index, "it is the same for all, so it orders nothing"


def test_the_page_has_every_figure_and_its_pictures(tmp_path: Path) -> None:
    results = make_results()
    write_page(results, tmp_path / "results.md")
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    dann = results.find(POOL, "dann")
    assert dann is not None
    assert str(dann.of_target) in page
    assert "0.956" in page, "the paper's"
    for name in draw_figures(results):
        assert f"(img/{name})" in page
        assert (tmp_path / "img" / name).stat().st_size > 5_000
    shown = [line.split("(img/")[1].split(")")[0] for line in page.splitlines() if "(img/" in line]
    assert {*shown} == {path.name for path in (tmp_path / "img").iterdir()}, "no picture is missing, and none is extra"
