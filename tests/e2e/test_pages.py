"""MLflow's pages of a retraining, read in a real browser as a person reads them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from e2e.conftest import Project
from mlflow.artifacts import download_artifacts
from support.browser import find_chromium, opening_page
from support.ports import find_free_port

from oncoshift.registry.views import RETRAININGS, TRAININGS, build_artifact_path, build_run_path, build_view_path
from oncoshift.retraining import prepare, recipe, recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow.entities import Run
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

MODEL = "oncoshift-kidney"
STEPS = recipe.Steps(
    prepare.prepare_data, recorded.choose, recorded.tune, recorded.train, recorded.evaluate, recorded.select,
    recorded.explain, recorded.register, recorded.gate,
)  # fmt: skip
PATIENCE_MS = 120_000


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, with_data: Path) -> Project:
    """A project after a retraining in this process and without a study, the quickest there is."""
    find_chromium()
    root = Path(shutil.copytree(with_data, tmp_path_factory.mktemp("pages") / "copy", symlinks=True))
    project = Project(root)
    project.change(tune={"trials": 0})
    plan = prepare.make_plan(root, preset=None, overrides=(), force=False, environ={}, say=print)
    recipe.retrain(plan, STEPS)
    return project


@pytest.fixture(scope="module")
def address(project: Project) -> Iterator[str]:
    """Address of MLflow's server on the project's store."""
    port = find_free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{project.root}/mlruns/mlflow.db"]
    with subprocess.Popen(command, env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}) as server:
        try:
            wait_until_it_answers(f"http://127.0.0.1:{port}/health")
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.terminate()


def wait_until_it_answers(url: str) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(url):  # noqa: S310 - our own server
            return
        time.sleep(0.2)
    pytest.fail(f"{url} does not answer")


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Page]:
    """A browser's page; its relative addresses are those of the server."""
    # Columns out of sight are not on the page, so it is wide.
    with opening_page(2600, 1200, PATIENCE_MS, address) as opened:
        yield opened


def find_runs(project: Project, step: str) -> list[Run]:
    experiment = project.client.get_experiment_by_name("oncoshift").experiment_id
    return list(project.client.search_runs([experiment], f"tags.`oncoshift.step` = '{step}'"))


def open_page(page: Page, path: str) -> None:
    """Open a page by its path; it loads anew even where the fragment alone differs."""
    page.goto("about:blank")
    page.goto(f"/{path}")


def test_the_runs_table_opens_on_target_control_and_gain(page: Page, project: Project) -> None:
    (run,) = find_runs(project, "retrain")
    open_page(page, build_view_path(run.info.experiment_id, RETRAININGS))
    page.get_by_role("link", name=run.info.run_name).first.wait_for()
    for name in ("target/balanced_accuracy", "control/balanced_accuracy", "gain/balanced_accuracy"):
        shown = page.locator(f'.ag-row [col-id="metrics.`{name}`"]').first.inner_text()
        assert float(shown) == pytest.approx(run.data.metrics[name], abs=1e-3)
    assert page.locator('.ag-row [col-id="tags.`oncoshift.gate`"]').first.inner_text() == "promote"


def test_the_trainings_have_a_chart_by_epoch_that_names_method_and_seed(page: Page, project: Project) -> None:
    names = {run.info.run_name for run in find_runs(project, "train")}
    assert names == {"dann · seed 0", "dann · seed 1", "erm · seed 0", "erm · seed 1"}
    experiment = find_runs(project, "train")[0].info.experiment_id
    open_page(page, build_view_path(experiment, TRAININGS, charts=True))
    for name in names:
        page.get_by_text(f"{name} (train/source_accuracy)").first.wait_for()


def test_comparing_trainings_opens_on_what_differs_and_has_their_accuracy(page: Page, project: Project) -> None:
    trained = find_runs(project, "train")[:3]
    ids = quote(json.dumps([run.info.run_id for run in trained]))
    open_page(page, f"#/compare-runs?runs={ids}&experiments={quote(json.dumps([trained[0].info.experiment_id]))}")
    page.get_by_text("Comparing 3 Runs").wait_for()
    for name in ("method", "seed"):  # the axes of the plot; of the parameters, those that differ
        page.locator(".js-plotly-plot").get_by_text(name, exact=True).first.wait_for()
    for name in ("target/balanced_accuracy", *(run.info.run_name for run in trained)):
        page.get_by_text(name, exact=True).first.wait_for()


def test_a_retrainings_page_says_verdict_and_gate_first_and_links_its_model(page: Page, project: Project) -> None:
    (run,) = find_runs(project, "retrain")
    open_page(page, build_run_path(run.info.experiment_id, run.info.run_id))
    page.get_by_role("link", name=MODEL).first.wait_for()
    note = page.get_by_test_id("note-view-outer-container").first.inner_text()
    assert note.startswith("Gate: promote version 1 · verdict: ")
    rows = [line.split("\t") for line in note.splitlines() if "(dann)" in line]
    assert re.fullmatch(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", rows[0][1].strip())
    assert page.get_by_text("Show more", exact=True).count() == 0, "the whole description is seen"
    assert len(run.data.params) <= 14


def test_the_report_opens_in_the_ui_and_has_the_gain(page: Page, project: Project) -> None:
    (run,) = find_runs(project, "retrain")
    open_page(page, build_artifact_path(run.info.experiment_id, run.info.run_id, "report.html"))
    report = page.frame_locator("iframe")
    report.get_by_role("heading", name="Verdict and gate").wait_for()
    gain = run.data.metrics["gain/balanced_accuracy"]
    assert f"{gain:.3f} [" in report.locator("body").inner_text()
    headings = report.locator("h2").all_inner_texts()
    assert headings[:3] == ["What was asked", "Data, and what changed since the champion", "Quality of the data"]
    widths = report.locator("img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert len(widths) >= 5
    assert all(widths), "each picture is in the file"


def test_the_gallery_opens_in_the_ui(page: Page, project: Project) -> None:
    (run,) = find_runs(project, "retrain")
    open_page(page, build_artifact_path(run.info.experiment_id, run.info.run_id, "plots/gallery.html"))
    pictures = page.frame_locator("iframe").locator("img")
    pictures.first.wait_for()
    assert all(pictures.evaluate_all("images => images.map(image => image.complete && image.naturalWidth)"))


def test_the_registry_names_run_figures_and_alias_of_the_version(page: Page, project: Project) -> None:
    (run,) = find_runs(project, "retrain")
    open_page(page, f"#/models/{MODEL}/versions/1")
    page.get_by_role("link", name=run.info.run_name).first.wait_for()
    page.get_by_text("champion").first.wait_for()
    tags = project.client.get_model_version(MODEL, "1").tags
    assert tags["method"] == "dann"
    page.get_by_text(tags["balanced_accuracy"].split(" on ")[0]).first.wait_for()


def test_the_report_needs_no_other_file(project: Project) -> None:
    (run,) = find_runs(project, "retrain")
    uri = f"sqlite:///{project.root}/mlruns/mlflow.db"
    path = download_artifacts(run_id=run.info.run_id, artifact_path="report.html", tracking_uri=uri)
    text = Path(path).read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', text)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
