"""Worker processes of a study, and the program that each of them runs.

    python -m oncoshift.retraining.workers

Each gets one task, and writes lines of progress; see `children`.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from oncoshift.errors import ChildError, OncoshiftError, TrainingInterrupted, UnavailableError
from oncoshift.layout import Layout
from oncoshift.logs import log_as_json
from oncoshift.parallel import count_usable_cores
from oncoshift.program import show_any_text
from oncoshift.registry.waiting import waiting_for
from oncoshift.retraining.children import Child, end_with_parent, stop_children
from oncoshift.retraining.prepare import open_jobs
from oncoshift.retraining.session import RetrainingPlan, open_session
from oncoshift.settings import TuneSettings, parse_settings, replace_values
from oncoshift.steps.trial import Search
from oncoshift.training.interruption import interruptible, stop_on_sigterm
from oncoshift.tuning.worker import Budget

if TYPE_CHECKING:
    from collections.abc import Iterable

    from oncoshift.retraining.session import Say, Session

_POLL_SECONDS = 0.2


class TuningError(ChildError):
    """A study ended before its trials were done, or without a completed one."""


@dataclass(frozen=True)
class WorkerTask:
    """The task that a worker receives as JSON.

    Attributes:
        project: the project's root.
        folder: the experiment's folder.
        settings: all settings of the experiment, as JSON values.
        method: whose settings are searched.
        variant: stain variant of the tiles.
        left_out: source organs that it does not learn from.
        tune: section `tune` as used by the parent.
        uri: MLflow's tracking URI.
        forced: see `RetrainingPlan`.
        key: of the retraining; the worker must compute the same.
        run: id of the run `tune`.
        deadline: time after which no trial begins, seconds since 1970, or None.
        threads: CPU threads for torch if `train.threads` is not set.
    """

    project: str
    folder: str
    settings: dict[str, Any]
    method: str
    variant: str
    left_out: list[str]
    tune: dict[str, Any]
    uri: str
    forced: str
    key: str
    run: str
    deadline: float | None
    threads: int


def run_workers(session: Session, search: Search, run: str, budget: Budget, count: int) -> None:
    """Run trials in `count` processes until none is left to begin.

    Args:
        session: the retraining, whose MLflow store exists.
        search: the study, whose database exists.
        run: id of the MLflow run `tune`.
        budget: limits after which no trial begins.
        count: number of processes.

    Raises:
        TuningError: all workers ended before all trials were done.
        TrainingInterrupted: this process received SIGTERM and stopped its workers.
    """
    plan = session.plan
    task = WorkerTask(
        str(plan.project),
        str(plan.layout.folder),
        plan.settings.model_dump(mode="json"),
        search.settings.train.method,
        search.settings.train.variant,
        list(search.settings.retrain.left_out),
        search.tune.model_dump(mode="json"),
        plan.uri,
        plan.forced,
        session.key,
        run,
        budget.deadline,
        max(1, count_usable_cores() // count),
    )
    with interruptible() as stop_requested:
        workers: list[Child] = []
        listeners: list[threading.Thread] = []
        lines: queue.Queue[str] = queue.Queue()
        try:
            for number in range(1, count + 1):
                workers.append(Child(__name__, number, plan.settings.train.processes))
                listeners.append(threading.Thread(target=_communicate, args=(workers[-1], task, lines), daemon=True))
                listeners[-1].start()
            while any(worker.process.poll() is None for worker in workers) and not stop_requested():
                _relay(lines, plan.say)
        finally:
            stop_children(workers)
            for listener in listeners:
                listener.join(_POLL_SECONDS)
            _relay(lines, plan.say)
        if stop_requested():
            raise TrainingInterrupted("tuning was asked to stop; start it again to resume")
    ended = [f"worker {worker.number} {worker.ending}" for worker in workers if worker.process.returncode]
    for line in ended:
        plan.say(f"tune: {line}")
    if ended and not budget.is_over and search.study.finished < budget.trials:
        raise TuningError(
            f"{', '.join(ended)}, and of {budget.trials} trials {search.study.finished} are done; "
            "fix the errors above, if any, and start it again to resume",
            _choose_exit_code(worker.process.returncode for worker in workers),
        )


def _choose_exit_code(codes: Iterable[int]) -> int:
    """Choose a study's exit code from those of its workers; ignore those killed by a signal."""
    own = {code for code in codes if code > 0}
    if own <= {TrainingInterrupted.exit_code}:
        return TrainingInterrupted.exit_code
    return UnavailableError.exit_code if UnavailableError.exit_code in own else OncoshiftError.exit_code


def _communicate(worker: Child, task: WorkerTask, lines: queue.Queue[str]) -> None:
    """Send the task, and forward the worker's lines until its output ends."""
    worker.send(asdict(task))
    for line in worker.read_lines():
        lines.put(f"{line} [worker {worker.number}]")


def _relay(lines: queue.Queue[str], say: Say) -> None:
    """Forward the lines of workers, after a short wait for the first."""
    try:
        say(lines.get(timeout=_POLL_SECONDS))
        while True:
            say(lines.get_nowait())
    except queue.Empty:
        return


def run_task(task: WorkerTask) -> None:
    """Run trials in a worker process.

    Raises:
        TuningError: code or data have changed since the parent started.
    """
    settings = parse_settings(task.settings)
    if settings.train.threads is None:
        torch.set_num_threads(task.threads)
    project = Path(task.project)
    plan = RetrainingPlan(project, Layout(Path(task.folder), project), settings, task.uri, task.forced, _say)
    tune = TuneSettings.model_validate(task.tune)
    with waiting_for(60 * settings.tracking.wait_minutes):
        session = open_session(plan, open_jobs(plan))
        if session.key != task.key:
            raise TuningError("code or data have changed since tuning began; start it again")
        chosen = {
            "train.method": task.method,
            "train.variant": task.variant,
            "retrain.left_out": task.left_out,
            "retrain.methods": [],
            "retrain.variants": [],
        }
        search = Search(
            replace_values(settings, chosen), tune, session.jobs.on_variant(task.variant), plan.forced, plan.say
        )
        search.work(session.recorder.open_nested(task.run), Budget(tune.trials, task.deadline))


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """Run the task of the input; return 0 when no trial is left, or an error's exit code."""
    show_any_text()
    log_as_json(("stderr",))  # the parent reads stdout, and says what is in it
    stop_on_sigterm()  # once: when the input ends, this process sends itself a second one
    try:
        task = WorkerTask(**json.loads(sys.stdin.readline()))
        threading.Thread(target=end_with_parent, daemon=True).start()
        run_task(task)
    except TrainingInterrupted as stopped:
        return stopped.exit_code
    except OncoshiftError as error:
        _say(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
