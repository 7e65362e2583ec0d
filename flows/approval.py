"""Approval of a version in Prefect's UI: a scheduled run is suspended until a person has answered.

A suspended run has no process. Whoever answers in the UI resumes it; `flows.serve` resumes those
whose request was answered by `oncoshift approve`, or is too old.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment as own_deployment
from prefect.runtime import flow_run
from pydantic import Field

from flows import PROJECT
from oncoshift.experiments import resolve_tracking_uri
from oncoshift.registry.answers import Answer
from oncoshift.registry.approval import Approval
from oncoshift.registry.history import get_version
from oncoshift.registry.store import open_client

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect.client.schemas.objects import FlowRun

    from oncoshift.retraining.summary import Summary
    from oncoshift.settings import Settings


_PAGE = 200


class ApprovalInput(RunInput):
    """The form that Prefect's UI shows."""

    approve: bool = Field(description="on: the version becomes champion; off: it is refused")
    by: str = Field(min_length=1, description="your name, for the history")
    reason: str = Field(min_length=1, description="why, for the history")


def ask_for_approval(summary: Summary) -> Answer | None:
    """Suspend the current run until somebody has answered; in the resumed run, return the answer.

    Args:
        summary: of a retraining whose version awaits approval.

    Returns:
        The answer; None where nothing could resume the run, as no schedule started it, or where
        another run of the schedule asks already.
    """
    if own_deployment.id is None or summary.approval is None:
        return None
    if not is_resumed() and _list_suspended(own_deployment.id):
        return None
    form = ApprovalInput.with_initial_data(description=summary.to_markdown())
    given = suspend_flow_run(wait_for_input=form, key=_build_key(summary.version, summary.approval))
    return Answer(given.approve, given.by, given.reason)


def is_resumed() -> bool:
    """Return whether the current run was suspended before."""
    with get_client(sync_client=True) as client:
        return any(state.is_paused() for state in client.read_flow_run_states(UUID(flow_run.id)))


def resume_answered_runs(deployment: str, load: Callable[[], Settings]) -> list[str]:
    """Resume the suspended runs whose request is answered in the registry, or too old.

    Args:
        deployment: id of the deployment whose runs to resume.
        load: loads the settings of the experiment, which name model and registry.

    Returns:
        Names of the runs.

    Raises:
        RegistryError: see `open_client`.
        SettingsError: the settings have become invalid.
    """
    suspended = _list_suspended(deployment)
    if not suspended:
        return []
    settings = load()
    registry = open_client(resolve_tracking_uri(PROJECT, settings.tracking, os.environ))
    resumed = []
    with get_client(sync_client=True) as client:
        for run in suspended:
            version = _read_version(run)
            approval = Approval.read(get_version(registry, settings.registered_model, version).tags)
            if approval is None or approval.is_due():
                # Prefect wants the form filled; the answer in the registry is the one that counts.
                client.resume_flow_run(run.id, run_input={"approve": False, "by": "-", "reason": "see the registry"})
                resumed.append(run.name)
    return resumed


def _list_suspended(deployment: str) -> list[FlowRun]:
    paused = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED]))
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=paused),
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
            sort=FlowRunSort.ID_DESC,
            limit=_PAGE,
        )


def _build_key(version: str, approval: Approval) -> str:
    """Build the key of a request, in which Prefect allows letters, digits and dashes."""
    return f"{version}-{''.join(filter(str.isdigit, approval.until))}"


def _read_version(run: FlowRun) -> str:
    key = run.state.state_details.pause_key if run.state else None
    return (key or "").partition("-")[0]
