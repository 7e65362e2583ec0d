"""Each pool's source-only and chosen model are explained on the same tiles, once, for the page."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from support.made_up_grid import POOL, make_results, measured
from support.tiny_settings import TINY

from oncoshift.data.ingest import ingest
from oncoshift.data.normalize import run_normalize
from oncoshift.data.split import run_split
from oncoshift.errors import DataError
from oncoshift.explain import attributions
from oncoshift.grid import explain, recipe
from oncoshift.grid.explain import STEP, ModelToExplain, explain_model, identify_model
from oncoshift.grid.explained import (
    RIGHT,
    RUN_FILE,
    UNCERTAIN,
    WRONG,
    ExplainedPair,
    _compute_certainty,
    list_pairs,
    name_pool,
    write_galleries,
)
from oncoshift.grid.measure import identify_row
from oncoshift.grid.page import draw_figures, render_page
from oncoshift.grid.recipe import GridPlan, Steps, collect
from oncoshift.grid.results import find_finished, read_results
from oncoshift.grid.rows import Pool, Row, list_rows, make_pool_settings
from oncoshift.grid.workers import RowTask, run_task
from oncoshift.layout import Layout
from oncoshift.phantom.write import write_phantom
from oncoshift.selection.verdict import Kind
from oncoshift.settings import parse_settings, replace_values
from oncoshift.steps.jobs import ExperimentJobs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oncoshift.grid.results import Results

TARGET = Pool("kidney", ("lung", "colon"))
GRID = parse_settings(
    TINY
    | {
        "phantom": {"organs": ["lung", "colon", "kidney"], "groups_per_class": 6, "tiles_per_group": 2},
        "model": {**TINY["model"], "freeze": "all"},
        "train": {"epochs": 1, "steps_per_epoch": 2, "batch_size": 8, "threads": 1, "augment": False},
        "retrain": {"seeds": 1},
        "paper": {
            "pools": [["kidney", "lung", "colon"]],
            "methods": ["dann"],
            "variants": ["none"],
            "protocols": ["honest"],
            "workers": 1,
        },
    }
)

SHARES = pd.DataFrame(
    {
        "tile_id": ["a", "b"], "group": "g", "nuclei_share": [0.4, 0.2], "nuclei_area": [0.2, 0.2],
        "enrichment": [2.0, 1.0], "converged": [True, False], "mask": "haematoxylin",
    }
)  # fmt: skip
"""What two explained tiles of one group have in their table."""


class HereCrew:
    """A crew whose tasks are done in this process."""

    def __init__(self, *_: Any) -> None:
        pass

    @contextmanager
    def working(self) -> Iterator[HereCrew]:
        yield self


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[GridPlan, list[RowTask], list[str]]:
    """A grid whose rows are measured: source-only and DANN on made-up tiles; and what it says."""
    project = tmp_path_factory.mktemp("project")
    layout = Layout(project, project)
    settings = replace_values(make_pool_settings(GRID, TARGET), {"ingest.root": str(project / "raw")})
    write_phantom(settings.phantom, project / "raw")
    ingest(settings.ingest, project / "raw", layout.tiles, base=project)
    run_split(settings.split, settings.target, settings.sources, layout)
    run_normalize(settings.normalize, layout)
    said: list[str] = []
    plan = GridPlan(project, GRID, f"sqlite:///{project}/mlflow.db", "oncoshift paper", said.append, explains=True)
    jobs = ExperimentJobs.open(layout, "none", TARGET.sources)
    tasks = [
        RowTask(row, identify_row(jobs, row, GRID), project, project, GRID, plan.uri, plan.experiment, 1)
        for row in list_rows(GRID)
        if row.method in ("erm", "dann")
    ]
    for task in tasks:
        run_task(task, said.append)
    return plan, tasks, said


def explain_all(plan: GridPlan, tasks: list[RowTask], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "Crew", HereCrew)
    work = Steps(data=None, row=lambda _crew, task: run_task(task, plan.say), results=None)  # type: ignore[arg-type]
    recipe._explain_all(plan, work, tasks)


def test_a_page_says_what_would_explain_the_models(grid: tuple[GridPlan, list[RowTask], list[str]]) -> None:
    plan, tasks, _ = grid
    former = plan.galleries / name_pool(TARGET)
    former.mkdir(parents=True)
    results = collect(plan, tasks)
    assert "No model has been explained yet; `oncoshift paper --explain` does it." in render_page(results, ())
    assert not former.exists(), "the galleries of a model that was chosen before"


def test_models_are_explained_once_and_the_page_is_made_of_their_runs(
    grid: tuple[GridPlan, list[RowTask], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, tasks, said = grid
    said.clear()
    explain_all(plan, tasks, monkeypatch)
    assert said[0].startswith("grid: 2 models to explain, of which 0 are explained already; ")
    assert any("4 of" in line and line.endswith(" tiles") for line in said), "no pace is known yet"
    assert said[-1].startswith("grid: 2 of 2 models")
    explain_all(plan, tasks, monkeypatch)
    assert said[-1] == "grid: 2 models to explain, of which 2 are explained already; 0 maps are to be made"

    results = collect(plan, tasks)
    [pair] = results.explained
    assert pair.control["tile_id"].tolist() == pair.chosen["tile_id"].tolist()
    assert len(pair.control) == GRID.explain.tiles
    assert {*pair.chosen["mask"]} == {"true"}
    runs = find_finished(plan.open_tracker(), STEP)
    metrics = {run.data.params["method"]: run.data.metrics for run in runs.values()}
    assert metrics["erm"]["nuclei_share"] == pytest.approx(pair.comparison.first.share)
    assert metrics["dann"]["nuclei_enrichment"] == pytest.approx(pair.comparison.second.enrichment)

    page = render_page(results, draw_figures(results))
    assert "oncoshift paper --explain --out docs/results.md" in page
    assert f"{pair.comparison.second.share:.1%}" in page
    assert f"{pair.run[:8]} |" in page
    assert "(img/results-nuclei.png)" in page
    shown = plan.galleries / "kidney.lung.colon"
    kept = {file.path for file in plan.open_tracker().client.list_artifacts(pair.run, "galleries")}
    assert kept == {f"galleries/{name}.png" for name in pair.pair.chosen.galleries}
    assert {path.name for path in shown.iterdir()} == {Path(path).name for path in kept} | {RUN_FILE}
    assert (shown / RUN_FILE).read_text() == f"{pair.run}\n"
    for name in pair.pair.chosen.galleries:
        assert name not in page, "no tile is on the page"


def test_galleries_of_a_pool_that_is_not_explained_now_are_removed(
    grid: tuple[GridPlan, list[RowTask], list[str]], tmp_path: Path
) -> None:
    plan, tasks, _ = grid
    results = read_results(plan.open_tracker(), GRID, [(task.key, task.row) for task in tasks])
    of_pool, other = tmp_path / name_pool(TARGET), tmp_path / "a user's own"
    for place in (of_pool, other):
        place.mkdir()
        (place / "confident-right.png").touch()
    write_galleries(plan.open_tracker(), results, tmp_path)
    assert not of_pool.exists(), "it shows a model of other settings"
    assert (other / "confident-right.png").exists()


def test_a_killed_explanation_goes_on(
    grid: tuple[GridPlan, list[RowTask], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, tasks, _ = grid
    results = read_results(plan.open_tracker(), GRID, [(task.key, task.row) for task in tasks])
    [pair] = list_pairs(results)
    model = replace(pair.control, tiles=pair.chosen.all_tiles)
    jobs = ExperimentJobs.open(Layout(plan.project, plan.project), "none", TARGET.sources)
    monkeypatch.setattr(attributions, "_PART", 1)
    said: list[str] = []

    def pull(line: str) -> None:
        said.append(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explain_model(jobs, model, GRID, pull)
    [kept] = (jobs.folder / model.job).glob("explain-*/0.attributions")
    made = kept.stat().st_mtime_ns
    explain_model(jobs, model, GRID, lambda _line: said.append(str(kept.stat().st_mtime_ns)))
    assert said[1] == str(made), "it was not made again"
    assert not kept.parent.exists()


def test_time_to_go_is_that_of_the_tiles_that_are_made_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process was killed at 28 of 42 tiles; each part of 4 takes two minutes."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(explain, "time", SimpleNamespace(monotonic=lambda: clock.now))
    said: list[str] = []
    report = explain._report_tiles("explain", said.append)
    for done in range(4, 29, 4):
        clock.now += 0.01
        report(done, 42)
    for done in (32, 36):
        clock.now += 120
        report(done, 42)
    assert said == [
        "explain: 4 of 42 tiles",
        "explain: 32 of 42 tiles, about 5 min to go",
        "explain: 36 of 42 tiles, about 3 min to go",
    ]


def test_a_model_of_other_data_is_not_explained(grid: tuple[GridPlan, list[RowTask], list[str]]) -> None:
    plan, tasks, _ = grid
    jobs = ExperimentJobs.open(Layout(plan.project, plan.project), "none", TARGET.sources)
    with pytest.raises(DataError, match="start the grid again"):
        explain_model(jobs, ModelToExplain(tasks[0].row, 0, "erm-s0-other", ("a",)), GRID, print)


def test_the_chosen_seed_and_its_stain_variant_are_explained_beside_source_only() -> None:
    settings = replace_values(
        make_results().settings, {"normalize.variants": ["none", "reinhard"], "retrain.variants": ["none", "reinhard"],
                                  "retrain.methods": ["dann", "mcc"], "explain.tiles": 8},
    )  # fmt: skip
    chosen = measured(Row(POOL, "mcc", "reinhard"), 0.75, Kind.TRUST, 0.5)
    [pair] = list_pairs(make_results(chosen, settings=settings))
    assert (pair.chosen.row.method, pair.chosen.row.variant, pair.chosen.seed) == ("mcc", "reinhard", 0)
    assert (pair.control.row.method, pair.control.row.variant, pair.control.seed) == ("erm", "reinhard", 0)
    assert pair.control.tiles == pair.chosen.tiles
    assert len(pair.chosen.tiles) == 8
    assert not pair.control.galleries


def test_galleries_show_what_they_are_named_after() -> None:
    row = measured(Row(POOL, "dann", "none"), 0.75, Kind.TRUST, 0.99)
    sure = row.predictions["tile_id"].isin([f"lung/{number}" for number in (1, 30)])
    near = row.predictions["tile_id"].isin([f"lung/{number}" for number in (2, 31)])
    side = np.where(row.predictions["probability"] > 0.5, 1, -1)
    probability = 0.5 + side * np.select([sure, near], [0.49, 0.01], 0.4)
    table = row.predictions.assign(probability=probability)
    results = make_results(replace(row, predictions=table))
    results = replace(results, rows=[each for each in results.rows if each.row.method != "dann"] + [results.rows[-1]])
    [pair] = list_pairs(results)
    galleries = pair.chosen.galleries
    right = table[(table["organ"] == "lung") & (table["seed"] == 0)].set_index("tile_id")
    is_right = (right["probability"] >= 0.5) == (right["label"] == 1)
    assert is_right[list(galleries[RIGHT])].all()
    assert not is_right[list(galleries[WRONG])].any()
    assert {*galleries[RIGHT][:2]} == {"lung/1", "lung/30"}
    assert {*galleries[UNCERTAIN][:2]} == {"lung/2", "lung/31"}
    groups = right["group"][list(galleries[RIGHT])]
    assert groups.is_unique, "of as many groups as there are"


def test_galleries_go_by_the_calibrated_call_and_the_page_says_so() -> None:
    """At a threshold of 0.3 a tile at 0.4 is called malignant, and 0.05 is surer than 0.85."""
    row = measured(Row(POOL, "dann", "none"), 1.0, Kind.TRUST, 0.99)
    given = {"lung/0": 0.05, "lung/24": 0.4, "lung/25": 0.85}
    usual = row.predictions["probability"].where(row.predictions["label"] == 1, 0.06).where(lambda p: p < 0.5, 0.8)
    usual = row.predictions["tile_id"].map(given).fillna(usual)
    table = row.predictions.assign(probability=usual, threshold=0.3)
    results = make_results(replace(row, predictions=table))
    results = replace(results, rows=[each for each in results.rows if each.row.method != "dann"] + [results.rows[-1]])
    [pair] = list_pairs(results)
    galleries = pair.chosen.galleries
    assert WRONG not in galleries, "the tile at 0.4 is malignant, and called so"
    assert "lung/24" in galleries[UNCERTAIN]
    assert {*galleries[RIGHT][:2]} == {"lung/0", "lung/25"}, "the surest of each class"
    explained = ExplainedPair(pair, SHARES, SHARES, "f" * 32, results.settings.evaluate)
    page = " ".join(render_page(replace(results, explained=[explained]), ()).split())
    assert "captions show the network's own probability, before calibration and called at 0.5" in page


def test_certainty_is_on_one_scale_on_both_sides_of_the_threshold() -> None:
    probabilities = np.array([0.0, 0.15, 0.3, 0.65, 1.0])
    found = _compute_certainty(probabilities, np.full(5, 0.3))
    np.testing.assert_allclose(found, [1.0, 0.5, 0.0, 0.5, 1.0])
    np.testing.assert_array_equal(_compute_certainty(np.ones(1), np.ones(1)), [0.0])


@pytest.mark.parametrize(("key", "same"), [("explain.tiles", True), ("explain.steps", False), ("train.epochs", True)])
def test_an_explanation_is_found_by_what_it_depends_on(key: str, same: bool) -> None:
    model = ModelToExplain(Row(POOL, "erm", "none"), 0, "erm-s0-1", ("a", "b"))
    changed = replace_values(GRID, {key: 3})
    assert (identify_model(model, changed) == identify_model(model, GRID)) == same
    assert identify_model(replace(model, tiles=("a",)), GRID) != identify_model(model, GRID)


def test_one_group_gives_no_interval_and_says_so() -> None:
    results: Results = make_results()
    [pair] = list_pairs(results)
    explained = ExplainedPair(pair, SHARES, SHARES, "f" * 32, results.settings.evaluate)
    page = render_page(replace(results, explained=[explained]), ())
    row = "20.0% | 30.0% | 30.0% | (few groups) | 1.50 | 1.50 | (few groups) | 2 of 4 | ffffffff |"
    assert f"| lung ← colon, breast | dann | 2, 1 | {row}" in page
    assert "found by their haematoxylin" in page
