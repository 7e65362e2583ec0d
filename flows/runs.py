"""Detection of flow runs whose process is gone, and their end in Prefect's records.

A killed process reports nothing to Prefect: its run stays "Running" and keeps its slots in the
concurrency limits, so a schedule would start no other. Each run's process therefore holds a file
lock, which the operating system releases however the process ends.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterNextScheduledStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort, TaskRunSort
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound
from prefect.runtime import deployment as own_deployment
from prefect.settings import get_current_settings
from prefect.states import Cancelled, Crashed

from oncoshift.files import hold_lock, is_locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

GPU = "gpu"
"""Name of the concurrency limit that every training holds; its default size is 1."""

RUNNER = "ONCOSHIFT_RUNNER"
"""Environment variable with the process id of the `flows.serve` that starts scheduled runs."""

OWN_SERVER = "ONCOSHIFT_OWN_SERVER"
"""Environment variable, set if the Prefect server is the project's own."""

_GONE = "its process is gone: it was killed, or the machine went down; the next run goes on from where it was"
_MISSED = "it was due while nothing served the schedule; the last such run stands for all"
_PR_SET_PDEATHSIG = 1
_PAGE = 200
_TELL_SECONDS, _LOOK_AGAIN_SECONDS = 5, 60
_WAITS = (
    f"waiting for Prefect's concurrency limit {GPU!r}, which another run's training holds; this run goes on when that "
    "ends (docs/scaling.md says how to let several train at once)"
)
_SLOTS_LOGGER = logging.getLogger("prefect._internal.concurrency")


@contextmanager
def holding_run_lock(run: UUID | str) -> Iterator[None]:
    """Hold the lock that marks a run's process as alive; end a scheduled run with its runner."""
    path = _build_lock_path(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(path):
        try:
            _end_with_runner()
            yield
        finally:
            path.unlink(missing_ok=True)


def is_alive(run: UUID | str) -> bool:
    """Return whether a process on this machine holds the run's lock."""
    path = _build_lock_path(run)
    return path.is_file() and is_locked(path)


def end_dead_runs(*, own: bool, pending: bool = False, waiting: UUID | str | None = None) -> list[str]:
    """End runs in Prefect's records whose process is gone, and free the slots that they hold.

    Args:
        own: the server is the project's own, so every run that is not alive is gone. On another
            server this can be told only of runs of this machine; their slots are freed when the
            lease expires.
        pending: also end pending runs; only for the process that starts them.
        waiting: a live run that holds no GPU because it is waiting for one.

    Returns:
        Names of the ended runs.
    """
    with get_client(sync_client=True) as client:
        unfinished = _list_unfinished(client, pending=pending)
        gone = [run for run in unfinished if not is_alive(run.id) and (own or _build_lock_path(run.id).is_file())]
        for run in gone:
            _end_tasks(client, run)
            state = Cancelled if run.state_type == StateType.CANCELLING else Crashed
            client.set_flow_run_state(run.id, state(message=_GONE))  # which gives its deployment's place back
            _build_lock_path(run.id).unlink(missing_ok=True)
        others = {str(run.id) for run in unfinished} - {str(run.id) for run in gone} - {str(waiting)}
        if own and not others:
            _free_gpu(client)
    return [run.name for run in gone]


def skip_missed_runs(deployment: UUID) -> int:
    """Skip runs that were due while nothing served a deployment, but the last of equal parameters.

    Returns:
        The number of skipped runs.
    """
    due = FlowRunFilterNextScheduledStartTime(before_=datetime.now(UTC))
    waiting = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    with get_client(sync_client=True) as client:
        missed = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=waiting, next_scheduled_start_time=due),
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
            sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC,
            limit=_PAGE,
        )
        missed = [run for run in missed if run.state_name != "Resuming"]  # a person has answered it
        last = {json.dumps(run.parameters, sort_keys=True): run.id for run in missed}
        skipped = [run.id for run in missed if run.id not in last.values()]
        for run_id in skipped:
            client.set_flow_run_state(run_id, Cancelled(name="Skipped", message=_MISSED))
    return len(skipped)


@contextmanager
def holding_gpu(run: UUID | str, say: Callable[[str], object]) -> Iterator[None]:
    """Wait for a slot in the limit `GPU` and hold it; a slot that only a dead run holds is freed.

    Args:
        run: the run that will hold it.
        say: receives a line if the run has to wait.
    """
    with ExitStack() as stack:
        with _leaving_timeouts_to_the_caller():
            told = False
            while True:
                seconds = _LOOK_AGAIN_SECONDS if told else _TELL_SECONDS
                try:
                    stack.enter_context(concurrency(GPU, occupy=1, timeout_seconds=seconds))
                    break
                except TimeoutError:
                    if not told:
                        say(_WAITS)
                    told = True
                    end_dead_runs(own=OWN_SERVER in os.environ, waiting=run)
        yield


def ensure_gpu_limit() -> None:
    """Create the limit `GPU` if it is absent."""
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(GPU)
        except ObjectNotFound:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU, limit=1))


def is_scheduled() -> bool:
    """Return whether the current run is of a deployment, so its parameters come from the server."""
    return own_deployment.id is not None


@contextmanager
def _leaving_timeouts_to_the_caller() -> Iterator[None]:
    """Drop Prefect's log of each failure to get a slot as an error: it is raised as well."""
    _SLOTS_LOGGER.addFilter(_is_of_other_service)
    try:
        yield
    finally:
        _SLOTS_LOGGER.removeFilter(_is_of_other_service)


def _is_of_other_service(record: logging.LogRecord) -> bool:
    return "ConcurrencySlotAcquisition" not in record.getMessage()


def _build_lock_path(run: UUID | str) -> Path:
    return Path(get_current_settings().home) / "living" / str(run)


def _end_with_runner() -> None:
    """Have the system kill this process if the runner that started it is killed.

    Otherwise it would continue without a server, and the restarted runner would start another run
    beside it. The work since the last checkpoint is lost.
    """
    runner = os.environ.get(RUNNER)
    if runner is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner handles Ctrl-C and sends SIGTERM
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(runner):  # it was killed before the call above
        os.kill(os.getpid(), signal.SIGKILL)


def _list_unfinished(client: SyncPrefectClient, *, pending: bool) -> list[FlowRun]:
    kinds = [StateType.RUNNING, StateType.CANCELLING, *([StateType.PENDING] if pending else [])]
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=kinds))
    return client.read_flow_runs(flow_run_filter=FlowRunFilter(state=state), sort=FlowRunSort.ID_DESC, limit=_PAGE)


def _end_tasks(client: SyncPrefectClient, run: FlowRun) -> None:
    kinds = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    tasks = client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
        task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=kinds))),
        sort=TaskRunSort.ID_DESC,
        limit=_PAGE,
    )
    for task in tasks:
        client.set_task_run_state(task.id, Crashed(message=_GONE), force=True)


def _free_gpu(client: SyncPrefectClient) -> None:
    """Free all slots of the limit `GPU`, which killed runs have left taken.

    Their leases end first: one that expired later would free the slot of whoever has it then.
    """
    try:
        limit = client.read_global_concurrency_limit_by_name(GPU)
    except ObjectNotFound:
        return
    for lease in (Path(get_current_settings().home) / "concurrency_leases").glob("*-*.json"):
        with suppress(FileNotFoundError):  # the server ends leases, too
            if str(limit.id) in json.loads(lease.read_text(encoding="utf-8"))["resource_ids"]:
                client.release_concurrency_slots_with_lease(UUID(lease.stem))
    if client.read_global_concurrency_limit_by_name(GPU).active_slots:
        client.update_global_concurrency_limit(GPU, GlobalConcurrencyLimitUpdate(active_slots=0))
