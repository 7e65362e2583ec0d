"""Approval of a version in Prefect's UI: a scheduled run is suspended until a person has answered.

A suspended run has no process. Whoever answers in the UI resumes it; `flows.serve` resumes those
whose request was answered by `oncoshift approve`, or is too old.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast
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
from prefect.client.schemas.responses import SetStateStatus
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.input.run_input import keyset_from_paused_state
from prefect.runtime import deployment as own_deployment
from prefect.runtime import flow_run
from pydantic import Field

from flows import PROJECT
from flows.parameters import load_chosen_settings
from oncoshift.errors import RegistryError
from oncoshift.experiments import resolve_tracking_uri
from oncoshift.registry.answers import Answer
from oncoshift.registry.approval import Approval
from oncoshift.registry.history import get_version
from oncoshift.registry.store import open_client

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from prefect.client.schemas.objects import FlowRun, State

    from oncoshift.retraining.summary import Summary
    from oncoshift.settings import Settings


_PAGE = 200


class ApprovalInput(RunInput):
    """The form that Prefect's UI shows."""

    approve: bool = Field(description="on: the version becomes champion; off: it is refused")
    by: str = Field(min_length=1, description="your name, for the history")
    reason: str = Field(min_length=1, description="why, for the history")


def ask_for_approval(summary: Summary) -> None:
    """Suspend the current run until somebody has answered.

    It does nothing where nothing could resume the run, as it is of no deployment, or where another
    run of the deployment asks for the same model already.

    Args:
        summary: of a retraining whose version awaits approval.
    """
    approval = summary.approval
    if own_deployment.id is None or approval is None:
        return
    if summary.model in {_load(run).registered_model for run in _list_suspended(own_deployment.id)}:
        return
    form = ApprovalInput.with_initial_data(description=summary.to_markdown())
    # Resumed, the run starts anew, and `read_own_answer` finds the answer.
    suspend_flow_run(wait_for_input=form, key=f"{summary.version}-{''.join(filter(str.isdigit, approval.until))}")


def read_own_answer() -> tuple[str, Answer] | None:
    """Read the version that the current run asked for, and the answer; None unless it did."""
    with get_client(sync_client=True) as client:
        states = client.read_flow_run_states(UUID(flow_run.id))
    asked = [state for state in states if state.is_paused()]
    if not asked:
        return None
    last = max(asked, key=lambda state: state.timestamp)
    given = cast("ApprovalInput", ApprovalInput.load(keyset_from_paused_state(last), UUID(flow_run.id)))
    return _read_version(last), Answer(given.approve, f"{given.by} (as entered in Prefect)", given.reason)


def resume_answered_runs(deployment: str) -> list[str]:
    """Resume the suspended runs whose request is answered in the registry, or too old.

    Args:
        deployment: id of the deployment whose runs to resume.

    Returns:
        Names of the runs.

    Raises:
        RegistryError: see `open_client`.
        SettingsError: the settings have become invalid.
    """
    resumed = []
    with get_client(sync_client=True) as client:
        for run in _list_suspended(deployment):
            settings = _load(run)
            registry = open_client(resolve_tracking_uri(PROJECT, settings.tracking, os.environ))
            if run.state is None or not _is_due(registry, settings.registered_model, _read_version(run.state)):
                continue
            # Prefect wants the form filled; the answer in the registry is the one that counts.
            given = {"approve": False, "by": "-", "reason": "see the registry"}
            with suppress(ObjectNotFound):  # somebody has deleted the run
                if client.resume_flow_run(run.id, run_input=given).status == SetStateStatus.ACCEPT:
                    resumed.append(run.name)
    return resumed


def _load(run: FlowRun) -> Settings:
    return load_chosen_settings(run.parameters, trusted=False)


def _is_due(registry: MlflowClient, model: str, version: str) -> bool:
    """Return whether a request is settled, or too old, or gone with its version."""
    try:
        approval = Approval.read(get_version(registry, model, version).tags)
    except RegistryError:
        return True
    return approval is None or approval.is_due()


def _list_suspended(deployment: str) -> list[FlowRun]:
    paused = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED]))
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=paused),
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
            sort=FlowRunSort.ID_DESC,
            limit=_PAGE,
        )


def _read_version(state: State[Any]) -> str:
    return (state.state_details.pause_key or "").partition("-")[0]
