"""Worker processes of a study, and the program that each of them runs.

    python -m oncoshift.retraining.workers

A worker reads its task from standard input as a line of JSON and writes lines of progress to
standard output. The end of its input means that its parent is gone, and it stops. It is in a
process group of its own, so that Ctrl-C reaches only the parent, which stops its workers: each ends
its training step, writes a checkpoint and exits.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import torch

from oncoshift.errors import OncoshiftError, TrainingInterrupted, UnavailableError
from oncoshift.layout import Layout
from oncoshift.logs import log_as_json
from oncoshift.parallel import count_usable_cores
from oncoshift.program import show_any_text
from oncoshift.registry.waiting import waiting_for
from oncoshift.retraining.prepare import open_jobs
from oncoshift.retraining.session import RetrainingPlan, open_session
from oncoshift.settings import TuneSettings, parse_settings, replace_values
from oncoshift.steps.trial import Search
from oncoshift.training.interruption import interruptible, stop_on_sigterm
from oncoshift.tuning.worker import Budget

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from oncoshift.retraining.session import Say, Session

_STOP_SECONDS = 60
"""Seconds for a worker to end its step and write its checkpoint before it is killed."""

_POLL_SECONDS = 0.2


class TuningError(OncoshiftError):
    """A study ended before its trials were done, or without a completed one.

    Args:
        message: see `OncoshiftError`.
        exit_code: exit code of the program.
    """

    def __init__(self, message: str, exit_code: int = OncoshiftError.exit_code) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class WorkerTask:
    """The task that a worker receives as JSON.

    Attributes:
        project: the project's root.
        folder: the experiment's folder.
        settings: all settings of the experiment, as JSON values.
        method: whose settings are searched.
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
        search.tune.model_dump(mode="json"),
        plan.uri,
        plan.forced,
        session.key,
        run,
        budget.deadline,
        max(1, count_usable_cores() // count),
    )
    with interruptible() as stop_requested:
        workers: list[_Worker] = []
        listeners: list[threading.Thread] = []
        lines: queue.Queue[str] = queue.Queue()
        try:
            for number in range(1, count + 1):
                workers.append(_Worker(number, plan.settings.train.processes))
                listeners.append(threading.Thread(target=workers[-1].communicate, args=(task, lines), daemon=True))
                listeners[-1].start()
            while any(worker.process.poll() is None for worker in workers) and not stop_requested():
                _relay(lines, plan.say)
        finally:
            _stop(workers)
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


class _Worker:
    """A worker process, as seen by its parent."""

    def __init__(self, number: int, gpus: int) -> None:
        self.number = number
        self.process = subprocess.Popen(
            [sys.executable, "-m", "oncoshift.retraining.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **assign_gpus(number - 1, gpus)},
            process_group=0,
        )

    def communicate(self, task: WorkerTask, lines: queue.Queue[str]) -> None:
        """Send the task, and forward the worker's lines until its output ends."""
        to, of = cast("IO[str]", self.process.stdin), cast("IO[str]", self.process.stdout)
        with suppress(BrokenPipeError):  # it has ended already; its exit code says why
            to.write(f"{json.dumps(asdict(task))}\n")
            to.flush()
        for line in of:
            lines.put(f"{line.rstrip()} [worker {self.number}]")

    @property
    def ending(self) -> str:
        """Exit of the process, in words."""
        code = self.process.returncode
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _relay(lines: queue.Queue[str], say: Say) -> None:
    """Forward the lines of workers, after a short wait for the first."""
    try:
        say(lines.get(timeout=_POLL_SECONDS))
        while True:
            say(lines.get_nowait())
    except queue.Empty:
        return


def _stop(workers: Sequence[_Worker]) -> None:
    """Stop the workers that still run, and kill those that do not stop in time."""
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.terminate()
    for worker in workers:
        try:
            worker.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


def assign_gpus(worker: int, each: int) -> dict[str, str]:
    """Choose the environment that assigns GPUs to a worker, in turn; empty if there is only one.

    Args:
        worker: from 0.
        each: number of GPUs of one training (`train.processes`).
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [str(number) for number in range(torch.cuda.device_count())] if named is None else named.split(",")
    if len(gpus) <= each:
        return {}
    mine = [gpus[(worker * each + offset) % len(gpus)] for offset in range(each)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(mine)}


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
        chosen = replace_values(settings, {"train.method": task.method})
        search = Search(chosen, tune, session.jobs, plan.forced, plan.say)
        search.work(session.recorder.open_nested(task.run), Budget(tune.trials, task.deadline))


def _say(line: str) -> None:
    print(line, flush=True)


def _end_with_parent() -> None:
    """Stop this process when the parent closes its input."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Run the task of the input; return 0 when no trial is left, or an error's exit code."""
    show_any_text()
    log_as_json(("stderr",))  # the parent reads stdout, and says what is in it
    stop_on_sigterm()  # once: when the input ends, this process sends itself a second one
    try:
        task = WorkerTask(**json.loads(sys.stdin.readline()))
        threading.Thread(target=_end_with_parent, daemon=True).start()
        run_task(task)
    except TrainingInterrupted as stopped:
        return stopped.exit_code
    except OncoshiftError as error:
        _say(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
