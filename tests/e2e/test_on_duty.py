"""A day on duty: `make up`, approval by a click, a retraining that drift has started, a rollback.

With ONCOSHIFT_SCREENSHOTS set to a folder, pictures of the pages are saved there; docs/on_duty.md
shows them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml
from e2e.conftest import REPOSITORY, Project
from mlflow import MlflowClient
from PIL import Image
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateName
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, temporary_settings
from support.browser import opening_page
from support.ports import find_free_port

from oncoshift.registry.audit import read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

pytestmark = pytest.mark.slow

MODEL = "oncoshift-kidney"
PATIENCE_SECONDS = 420
SETTLE_MS = 2500


class Duty:
    """Services on one machine, as `make up` starts them, and a browser's page.

    Args:
        project: whose services they are.
        page: of the browser.
    """

    def __init__(self, project: Project, page: Page) -> None:
        self.project, self.page = project, page
        self.mlflow, self.prefect = find_free_port(), find_free_port()

    def call(self, *arguments: str) -> str:
        """Run `python -m flows.up`; return its output."""
        return self.run("flows.up", "--mlflow-port", str(self.mlflow), "--prefect-port", str(self.prefect), *arguments)

    def oncoshift(self, *arguments: str) -> str:
        """Run a command of oncoshift against the servers; return its output."""
        return self.run("oncoshift.cli", *arguments, "--params", str(self.project.root / "params.yaml"))

    def run(self, module: str, *arguments: str) -> str:
        """Run a module to its end; return its output."""
        environment = os.environ | {"ONCOSHIFT_PROJECT": str(self.project.root), "PREFECT_RUNNER_POLL_FREQUENCY": "2"}
        environment.pop("PREFECT_API_URL", None)
        if module != "flows.up":
            environment["MLFLOW_TRACKING_URI"] = self.mlflow_address
            environment["PREFECT_API_URL"] = f"{self.prefect_address}/api"
            environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), environment.get("PYTHONPATH", "")])
        run = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=self.project.root if module == "oncoshift.cli" else REPOSITORY,
            env=environment, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert run.returncode == 0, (run.stdout + run.stderr)[-4000:]
        return run.stdout

    @property
    def mlflow_address(self) -> str:
        """Address of MLflow's server."""
        return f"http://127.0.0.1:{self.mlflow}"

    @property
    def prefect_address(self) -> str:
        """Address of Prefect's server."""
        return f"http://127.0.0.1:{self.prefect}"

    @property
    def registry(self) -> MlflowClient:
        """A client of MLflow's server."""
        return MlflowClient(self.mlflow_address, self.mlflow_address)

    @property
    def champion(self) -> str:
        """The version that is champion."""
        return str(self.registry.get_model_version_by_alias(MODEL, "champion").version)

    @contextmanager
    def open_client(self) -> Iterator[SyncPrefectClient]:
        """Open a client of Prefect's server."""
        with (
            temporary_settings({PREFECT_API_URL: f"{self.prefect_address}/api"}),
            get_client(sync_client=True) as client,
        ):
            yield client

    def wait_for_run(self, state: str, count: int = 1) -> FlowRun:
        """Wait until there are as many runs in a state; return the last of them."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        named = FlowRunFilter(state=FlowRunFilterState(name=FlowRunFilterStateName(any_=[state])))
        while time.monotonic() < deadline:
            with self.open_client() as client:
                found = client.read_flow_runs(flow_run_filter=named, sort=FlowRunSort.START_TIME_ASC, limit=100)
            if len(found) >= count:
                return found[-1]
            time.sleep(1)
        logs = self.project.root / ".prefect" / "up" / "schedules.log"
        pytest.fail(f"no run became {state}: {logs.read_text()[-4000:]}")

    def look(self, name: str, address: str, text: str) -> None:
        """Open a page, wait for a text, and keep a picture where somebody asked for it."""
        from playwright.sync_api import TimeoutError as PageTimeoutError

        self.page.goto("about:blank")
        self.page.goto(address)
        self.page.get_by_text(text).first.wait_for()
        with suppress(PageTimeoutError):  # MLflow's assistant, which opens on a first visit
            self.page.get_by_role("button", name="Close", exact=True).first.click(timeout=SETTLE_MS)
        self.page.get_by_text(text).first.scroll_into_view_if_needed()
        self.keep(name)

    def keep(self, name: str) -> None:
        """Save a picture of the page."""
        if folder := os.environ.get("ONCOSHIFT_SCREENSHOTS"):
            self.page.wait_for_timeout(SETTLE_MS)
            self.page.screenshot(path=Path(folder) / f"{name}.png")

    def start_by_form(self, deployment: str, name: str) -> None:
        """Start a run by hand in Prefect's page, whose form lists what a parameter may be."""
        with self.open_client() as client:
            made = client.read_deployment_by_name(deployment).id
        self.page.goto(f"{self.prefect_address}/deployments/deployment/{made}/run")
        self.page.get_by_role("button", name="str", exact=True).nth(1).click()  # of target, method and preset
        self.page.locator(".p-select-button__control").first.press("ArrowDown")
        self.page.get_by_text("dann_multi").wait_for()
        self.keep(name)
        self.page.keyboard.press("Escape")
        self.page.get_by_role("button", name="None", exact=True).nth(2).click()
        self.page.get_by_role("button", name="Submit").click()

    def approve(self, run: FlowRun, reason: str, name: str) -> None:
        """Answer a suspended run by hand in Prefect's page."""
        self.look(f"{name}-asks", f"{self.prefect_address}/runs/flow-run/{run.id}", "awaits approval")
        self.page.get_by_role("button", name="Resume").first.click()
        form = self.page.get_by_role("dialog")
        form.get_by_role("switch").click()
        by, why = form.locator("textarea").all()
        by.fill("Anna")
        why.fill(reason)
        self.keep(f"{name}-form")
        form.get_by_role("button", name="Submit").click()


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a browser."""
    with opening_page(1600, 1000, patience_ms=60_000) as opened:
        yield opened


@pytest.fixture
def duty(project: Project, page: Page) -> Iterator[Duty]:
    """A project with all its services, for which nothing is due by the clock."""
    project.change(
        train={"epochs": 8, "steps_per_epoch": 12},  # after which a person would approve
        tune={"trials": 0},
        retrain={"seeds": 1},
        select={"verdict": False},
        gate={"approval": "human", "non_inferiority_margin": 1.0},
    )
    listed = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    (retrain,) = (each for each in listed["deployments"] if each["name"] == "retrain")
    retrain["schedules"] = [{"slug": "yearly", "cron": "0 0 1 1 *"}]
    (project.root / "prefect.yaml").write_text(yaml.safe_dump({"deployments": [retrain]}))
    made = Duty(project, page)
    try:
        made.call()
        yield made
    finally:
        made.call("--down")


def darken(project: Project, batch: Path) -> None:
    """Make a batch of new tiles, as of a scanner that is set too dark, and add them to the data."""
    batch.mkdir(parents=True)
    unlabelled = project.root / "data" / "raw" / "kidney" / "unlabelled"
    unlabelled.mkdir()
    for tile in sorted((project.root / "data" / "raw" / "kidney").glob("*/*.png")):
        dark = Image.fromarray((np.asarray(Image.open(tile)) * 0.5).astype(np.uint8))
        for folder in (batch, unlabelled):
            dark.save(folder / f"new-{tile.parent.name}-{tile.stem}.png")


def test_a_day_on_duty(duty: Duty) -> None:
    assert duty.call().splitlines()[0].split() == ["MLflow:", duty.mlflow_address], "a second call changes nothing"
    duty.start_by_form("retrain/retrain", "duty-0-run")
    first = duty.wait_for_run("Suspended")
    duty.approve(first, "two readers agree", "duty-1")
    duty.wait_for_run("Promoted")
    assert duty.champion == "1"

    batch = duty.project.root / "incoming" / "dark"
    darken(duty.project, batch)
    duty.run("flows.watch", str(batch))
    page = duty.project.root / "runs" / "watch" / f"{MODEL}.html"
    duty.look("duty-2-drift", page.as_uri(), "batches over time")
    duty.look("duty-2-automations", f"{duty.prefect_address}/automations", "retrain at drift")
    second = duty.wait_for_run("Suspended")
    assert second.id != first.id
    assert second.created_by is not None
    assert second.created_by.type == "AUTOMATION"
    duty.approve(second, "the new scanner", "duty-2")
    duty.wait_for_run("Promoted", 2)
    assert duty.champion == "2"
    duty.look("duty-3-runs", f"{duty.prefect_address}/runs", "promoted, version 2 is champion")

    duty.oncoshift("rollback", "--reason", "the new scanner is set right")
    assert duty.champion == "1"
    assert "rollback" in list(read_lines(duty.registry, MODEL))[-1]
    duty.look("duty-4-registry", f"{duty.mlflow_address}/#/models/{MODEL}", "@ champion")
