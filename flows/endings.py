"""How flows and tasks end in Prefect: a user's mistake is one line, and SIGTERM is no failure."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled, Failed
from prefect.tasks import Task

from flows.logs import log_errors_in_one_line
from flows.runs import holding_run_lock
from oncoshift.errors import OncoshiftError, TrainingInterrupted
from oncoshift.logs import working_on
from oncoshift.training.interruption import find_interruption, stop_on_sigterm

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


def ending_in_a_state(flow: Callable[P, R]) -> Callable[P, R | State[Any]]:
    """Wrap a flow's function: its run is marked as alive, and ends in a state that says why.

    Prefect's runner pickles this function by value, and so what it names: a context variable among
    that would let no scheduled run start.

    Returns:
        A function that returns what the flow returns; or the state Stopped after SIGTERM; or the
        state Failed with the message of an `OncoshiftError`. Either state's data is the exception.
    """

    @wraps(flow)
    def run(*args: P.args, **kwargs: P.kwargs) -> R | State[Any]:
        log_errors_in_one_line()
        with working_on(str(flow_run.flow_name)):
            try:
                # Replaces Prefect's handler, which would end a training without a checkpoint.
                # Whoever sees the run's lock may send the signal, so it comes first.
                stop_on_sigterm()
                with holding_run_lock(str(flow_run.id)):
                    return flow(*args, **kwargs)
            except Exception as error:
                if (stopped := find_interruption(error)) is not None:
                    return build_stopped_state(stopped)
                if isinstance(error, OncoshiftError):
                    return Failed(message=f"{error}", data=error)
                raise

    return run


class StoppableTask(Task[P, R]):
    """A task that is Stopped after SIGTERM, and not Failed; its caller gets the exception.

    Args:
        step: the task's function.
        options: of `prefect.task`.
    """

    def __init__(self, step: Callable[P, R], **options: Any) -> None:
        @wraps(step)
        def run(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                return step(*args, **kwargs)
            except Exception as error:
                if (stopped := find_interruption(error)) is None:
                    raise
                return build_stopped_state(stopped)

        super().__init__(fn=run, **options)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:  # type: ignore[override]
        """Run the task; without this, its caller would get the state in place of a result."""
        result: Any = super().__call__(*args, **kwargs)
        return cast("R", result.result() if isinstance(result, State) else result)


def build_stopped_state(stopped: TrainingInterrupted) -> State[Any]:
    """Build the state of what SIGTERM ended."""
    return Cancelled(name="Stopped", message=str(stopped), data=stopped)
