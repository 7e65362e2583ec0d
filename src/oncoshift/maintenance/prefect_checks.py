"""Checks of Prefect's server, over HTTP: dead runs, slots without a run, idle schedules."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from oncoshift.files import is_locked
from oncoshift.maintenance.findings import Finding
from oncoshift.secrets import remove_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oncoshift.maintenance.findings import Scene

_SECONDS = 5
_PAGE = 200
_LONG = timedelta(days=1)
_UNFINISHED = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
_STARTED = {"state": {"type": {"any_": ["RUNNING", "CANCELLING"]}}}
"""A pending run has no process of its own yet."""

_OURS = {"name": {"any_": ["retrain", "score", "watch", "paper"]}}
"""Flows of this project, as Prefect filters them: a server may have others."""

Json = dict[str, Any]


def check_prefect(scene: Scene) -> Iterator[Finding]:
    """Check the Prefect server that PREFECT_API_URL names, and what it says of runs and slots."""
    if not (url := os.environ.get("PREFECT_API_URL")):
        return
    shown = remove_credentials(url)
    try:
        answer = requests.get(f"{url.rstrip('/')}/health", timeout=_SECONDS)
        if answer.status_code == HTTPStatus.NOT_FOUND or "html" in answer.headers.get("content-type", ""):
            yield Finding(
                "prefect", "error", f"{shown}: what answers there is not Prefect's API",
                "set PREFECT_API_URL to the API's address, which ends in /api",
            )  # fmt: skip
            return
        answer.raise_for_status()
        yield Finding("prefect", "ok", shown)
        server = _Server(url)
        yield from _check_runs(server, scene.project)
        yield from _check_slots(server)
        yield from _check_schedules(server)
    except requests.RequestException as error:
        status = "" if error.response is None else f" {error.response.status_code}"
        yield Finding(
            "prefect", "error", f"{shown} does not answer ({type(error).__name__}{status})",
            "start it, or correct or unset PREFECT_API_URL (where it wants a log-in, PREFECT_API_AUTH_STRING)",
        )  # fmt: skip


class _Server:
    """Prefect's API at an address, with the credentials that Prefect's own client would use."""

    def __init__(self, url: str) -> None:
        self._url, self._session = url.rstrip("/"), requests.Session()
        if login := os.environ.get("PREFECT_API_AUTH_STRING"):
            user, _, password = login.partition(":")
            self._session.auth = (user, password)

    def find(self, what: str, **filters: Json) -> list[Json]:
        """List what passes the filters."""
        found: list[Json] = self._post(f"{what}/filter", {"limit": _PAGE, **filters}).json()
        return found

    def end(self, run: Json) -> None:
        """End a run in Prefect's records, which gives its deployment's place back."""
        name = "Cancelled" if run["state_type"] == "CANCELLING" else "Crashed"
        state = {"type": name.upper(), "name": name, "message": "its process is gone: `oncoshift doctor --fix`"}
        self._post(f"flow_runs/{run['id']}/set_state", {"state": state})

    def _post(self, path: str, body: Json) -> requests.Response:
        answer = self._session.post(f"{self._url}/{path}", json=body, timeout=_SECONDS)
        answer.raise_for_status()
        return answer


def _check_runs(server: _Server, project: Path) -> Iterator[Finding]:
    """Check that a process works on each run, by the lock that it holds: see `flows.runs`."""
    living = Path(os.environ.get("PREFECT_HOME", project / ".prefect")) / "living"
    for run in server.find("flow_runs", flows=_OURS, flow_runs=_STARTED):
        title, lock = f"Prefect's run {run['name']!r} is {run['state_name']}", living / run["id"]
        if lock.is_file():
            if not is_locked(lock):
                yield Finding(
                    "flow runs", "warning", f"{title}, but its process is gone",
                    "the next run on this machine ends it, and --fix does so now",
                    partial(server.end, run),
                )  # fmt: skip
        elif run["start_time"] and datetime.now(UTC) - datetime.fromisoformat(run["start_time"]) > _LONG:
            yield Finding(
                "flow runs", "warning", f"{title} for more than a day, and not on this machine",
                "look for it where it began; if it is gone, cancel it in Prefect's UI",
            )  # fmt: skip


def _check_slots(server: _Server) -> Iterator[Finding]:
    """Check that no limit has more slots taken than there are runs that may hold one."""
    for limit in server.find("v2/concurrency_limits"):
        name, taken = limit["name"], limit["active_slots"]
        kind, _, deployment = name.partition(":")
        chosen = {"deployments": {"id": {"any_": [deployment]}}} if kind == "deployment" else {}
        runs = len(server.find("flow_runs", flow_runs=_UNFINISHED, **chosen)) if taken else 0
        if taken > runs:
            yield Finding(
                "slots", "warning", f"Prefect's limit {name!r}: {taken} slots are taken, but {runs} runs are there",
                "Prefect frees the slots of a dead run within five minutes; if they stay taken, "
                f"`prefect global-concurrency-limit update {name} --active-slots {runs}`",
            )  # fmt: skip


def _check_schedules(server: _Server) -> Iterator[Finding]:
    """Check that each deployment with a schedule is served: Prefect sees who asks it for runs."""
    for deployment in server.find("deployments", flows=_OURS, deployments={"paused": {"eq_": False}}):
        scheduled = any(schedule["active"] for schedule in deployment["schedules"])
        if scheduled and deployment["status"] == "NOT_READY":
            pool = deployment["work_pool_name"]
            yield Finding(
                "schedules", "warning", f"nobody serves the schedule of Prefect's deployment {deployment['name']!r}",
                f"`prefect worker start --pool {pool}`" if pool else "`make up`, or `python -m flows.serve`",
            )  # fmt: skip
