"""The paper's grid as a user runs it: all rows, a page made of them, and nothing done twice."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from oncoshift.registry.tracking import KEY_TAG

if TYPE_CHECKING:
    from e2e.conftest import Project
    from mlflow.entities import Run

PAPER = {
    "pools": [["kidney", "lung", "colon"]],
    "methods": ["dann"],
    "variants": ["none"],
    "protocols": ["honest"],
    "workers": 2,
}
NAMES = {"erm", "ensemble", "lung alone", "colon alone", "dann"}


@pytest.fixture(scope="module")
def grid(project: Project) -> Project:
    project.change(paper=PAPER, retrain={"seeds": 2, "methods": []})
    return project


def run_grid(project: Project, *options: str) -> str:
    """Run the grid to its end; return its page."""
    process = project.start("--out", str(project.root / "results.md"), *options, module="flows.paper")
    assert process.wait(400) == 0, project.log.read_text()[-4000:]
    return (project.root / "results.md").read_text(encoding="utf-8")


def list_rows(project: Project) -> list[Run]:
    client = project.client
    found = client.get_experiment_by_name("oncoshift-paper")
    if found is None:
        return []
    return list(client.search_runs([found.experiment_id], "tags.`oncoshift.step` = 'paper-row'"))


def read_trained(project: Project) -> dict[str, int]:
    """When each training ended, by its id."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (project.root / "runs/jobs").glob("*/done.json")}


def test_a_grid_ends_in_a_page_with_every_row(grid: Project) -> None:
    page = run_grid(grid)
    runs = list_rows(grid)
    assert {run.data.params["method"] for run in runs} == NAMES
    assert len(runs) == len(NAMES)
    for run in runs:
        assert run.info.status == "FINISHED"
        assert f"{run.info.run_id[:8]} |" in page
        assert f"{run.data.metrics['target/balanced_accuracy']:.3f}" in page
    assert (grid.root / "img" / "results-slopes.png").is_file()


def test_a_grid_with_nothing_to_do_measures_nothing_and_makes_the_same_page(grid: Project) -> None:
    page = (grid.root / "results.md").read_text(encoding="utf-8")
    ended = {run.info.run_id: run.info.end_time for run in list_rows(grid)}
    assert run_grid(grid) == page
    assert f"{len(NAMES)} rows, of which {len(NAMES)} are measured already" in grid.log.read_text()
    assert {run.info.run_id: run.info.end_time for run in list_rows(grid)} == ended


def test_the_chosen_model_is_explained_beside_source_only_if_asked_for(grid: Project) -> None:
    page = run_grid(grid, "--explain")
    assert "grid: 2 models to explain, of which 0 are explained already" in grid.log.read_text()
    assert "oncoshift paper --explain --out docs/results.md" in page
    assert (grid.root / "runs/galleries/kidney.lung.colon/least-certain.png").is_file()
    assert run_grid(grid) == page, "what was explained is shown without being asked for"


@pytest.mark.slow  # a minute or two; the recipe's parts are killed in quick tests
def test_a_grid_that_was_killed_goes_on_where_it_was(project: Project) -> None:
    more = {**PAPER, "methods": ["dann", "anchored"], "protocols": ["honest", "tile_split"]}
    project.change(paper=more, retrain={"seeds": 3, "methods": []})
    had = len(read_trained(project))
    process = project.start(module="flows.paper")
    project.wait_until(process, lambda: len(read_trained(project)) >= had + 2, "two jobs")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = read_trained(project)
    page = run_grid(project)
    after = read_trained(project)
    assert {name: after[name] for name in before} == before, "what was trained is not trained again"
    of_three = [run for run in list_rows(project) if run.data.params["seeds"] == "3"]
    assert len(of_three) == len({run.data.tags[KEY_TAG] for run in of_three}) == len(NAMES) + 1 + 4
    for run in of_three:
        assert run.info.status == "FINISHED"
        assert f"{run.info.run_id[:8]} |" in page
