"""Command `retrain`: it starts the retraining flow, unless there is nothing to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from oncoshift.errors import CRASHED, INTERRUPTED, ChildError, OncoshiftError, TrainingInterrupted, UnavailableError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from oncoshift.commands.context import Context
    from oncoshift.retraining.summary import Outcome

_STOP_SECONDS = 90
"""Time that the flow may take to end its step and write its checkpoint before it is killed."""


class FlowError(ChildError):
    """A flow failed; its own output says why, and the message what to do now."""


def add_retrain(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retrain`."""
    parser.add_argument("--force", action="store_true", help="train even if nothing has changed")
    add_name(parser)


def add_name(parser: argparse.ArgumentParser) -> None:
    """Add the option `--name` of commands that make experiments."""
    parser.add_argument("--name", help="of the experiment's folder below experiments/; default: made of the settings")


def retrain(context: Context) -> None:
    """Run the Prefect flow in a process of its own; nothing in this package imports Prefect.

    Where there is nothing to do, it is reported at once, unless a Prefect server is to record the
    run.
    """
    from oncoshift.training.interruption import stop_on_sigterm

    given = context.arguments
    context.need_project_params()
    stop_on_sigterm()
    # Either way, mistakes of the user are reported before Prefect starts.
    if given.force or "PREFECT_API_URL" in os.environ:
        _check(context)
    elif (outcome := _find_unchanged(context)) is not None:
        return show(outcome)
    options = [*(["--force"] if given.force else []), *([] if given.name is None else ["--name", given.name])]
    return run_flow("flows.retrain", context, options, "the retraining")


def run_flow(module: str, context: Context, options: Sequence[str], what: str) -> None:
    """Run a Prefect flow in a process of its own, with the settings of the command line.

    Args:
        module: the flow's program.
        context: of the command.
        options: of the program, beside those that choose settings.
        what: what the flow is, in messages.

    Raises:
        FlowError: the flow failed; its own output says why.
        TrainingInterrupted: SIGTERM came, and the flow has stopped.
    """
    words = [*(["--preset", context.preset] if context.preset else []), *options]
    for override in context.arguments.overrides:
        words += ["--set", override]
    code = _run([sys.executable, "-m", module, *words], context.project)
    if code:
        raise _interpret_exit_code(code, what)


def _check(context: Context) -> None:
    """Check that a retraining can begin in the named experiment."""
    from oncoshift.experiments import locate_experiment
    from oncoshift.retraining.inputs import check_inputs

    check_inputs(context.project, context.settings)
    if context.arguments.name is not None:
        locate_experiment(context.project, context.arguments.name)


def _find_unchanged(context: Context) -> Outcome | None:
    """Find the outcome of an equal earlier retraining; planning also does what `_check` does."""
    from oncoshift.experiments import hold_experiment
    from oncoshift.retraining.prepare import make_plan
    from oncoshift.retraining.recipe import find_unchanged

    given = context.arguments
    plan = make_plan(
        context.project,
        preset=context.preset,
        overrides=tuple(given.overrides),
        force=False,
        environ=os.environ,
        say=print,
        name=given.name,
    )
    with hold_experiment(plan.layout):
        return find_unchanged(plan)


def show(outcome: Outcome) -> None:
    """Print how a retraining ended: table, gate, and what to do next."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    if not outcome.trained:
        console.print("Nothing has changed (data, settings, code): nothing was trained. --force trains all the same.\n")
    console.print(outcome.summary.to_table())
    for line in outcome.to_lines():
        console.print(line, markup=False)


def _interpret_exit_code(code: int, what: str) -> OncoshiftError | KeyboardInterrupt:
    """Turn the flow's exit code into an error with advice; the flow has printed why it failed."""
    if code in (TrainingInterrupted.exit_code, -signal.SIGTERM):
        return TrainingInterrupted(f"{what} was stopped; start it again and it goes on from there")
    if code in (INTERRUPTED, -signal.SIGINT):
        return KeyboardInterrupt()
    if code < 0:
        name = signal.Signals(-code).name
        return FlowError(f"{what} was killed by {name}; start it again and it goes on from there", 128 - code)
    if code == OncoshiftError.exit_code:
        return FlowError("nothing was lost: fix that, and start it again", code)
    if code == UnavailableError.exit_code:
        return FlowError("nothing was lost: start it again when it is back", code)
    return FlowError(f"{what} crashed, see above; what it had done is kept", CRASHED)


def _run(command: Sequence[str], folder: Path) -> int:
    """Run a command and return its exit code; SIGTERM and Ctrl-C reach it as SIGTERM."""
    process: subprocess.Popen[bytes] | None = None
    asked = False

    def pass_on(*_: object) -> None:
        nonlocal asked
        asked = True
        if process is not None:
            process.terminate()

    before, interrupt = signal.signal(signal.SIGTERM, pass_on), signal.getsignal(signal.SIGINT)
    try:
        # A terminal sends Ctrl-C to both. The child inherits that it is ignored, and gets SIGTERM
        # alone.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        process = subprocess.Popen(command, cwd=folder)
        signal.signal(signal.SIGINT, interrupt)
        if asked:
            process.terminate()
        return process.wait()
    except KeyboardInterrupt:
        if process is not None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
        raise
    finally:
        if process is not None:
            process.kill()  # a second Ctrl-C or another error may have left it running
            process.wait()
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, interrupt)
