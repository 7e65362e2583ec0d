"""Worker processes that measure rows and explain models, and the program that each of them runs.

    python -m oncoshift.grid.workers

A worker gets a task as a line of JSON, does it, records it in MLflow, and answers lines of JSON:
`say` with a line of progress, and last `end` with an error, or empty. See `retraining.children`.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import traceback
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import torch

from oncoshift.errors import CRASHED, ChildError, OncoshiftError, TrainingInterrupted
from oncoshift.grid import explain
from oncoshift.grid.explain import ModelToExplain, explain_model, identify_model
from oncoshift.grid.measure import STEP, identify_row, measure
from oncoshift.grid.rows import Pool, Row
from oncoshift.layout import Layout
from oncoshift.logs import log_as_json
from oncoshift.program import show_any_text
from oncoshift.registry.source import read_git_tags
from oncoshift.registry.tracking import Tracker
from oncoshift.registry.waiting import waiting_for
from oncoshift.retraining.children import Child, stop_children
from oncoshift.settings import parse_settings
from oncoshift.steps.jobs import ExperimentJobs
from oncoshift.steps.recorder import RunRecorder
from oncoshift.training.interruption import stop_on_sigterm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from oncoshift.settings import Settings


_STOPPED = "the grid was asked to stop; start it again and it goes on from there"


class RowError(ChildError):
    """A row could not be measured, or its model not explained; the message says why."""


@dataclass(frozen=True)
class RowTask:
    """A row to measure, or a model of it to explain, with the places of its data and its result.

    Attributes:
        row: the row.
        key: its identity, by which its run in MLflow is found.
        project: the project's root.
        folder: folder of the experiment with the pool's data.
        settings: of the grid.
        uri: MLflow's tracking URI.
        experiment: name of the experiment in MLflow.
        threads: CPU threads for torch if `train.threads` is not set.
        model: which of the row's models is to be explained; None: the row is to be measured.
    """

    row: Row
    key: str
    project: Path
    folder: Path
    settings: Settings
    uri: str
    experiment: str
    threads: int
    model: ModelToExplain | None = None

    @property
    def title(self) -> str:
        """The row, or the model, in words."""
        return self.row.title if self.model is None else self.model.title

    def to_json(self) -> dict[str, Any]:
        """Return the task as JSON values."""
        return {
            "row": asdict(self.row),
            "key": self.key,
            "project": str(self.project),
            "folder": str(self.folder),
            "settings": self.settings.model_dump(mode="json"),
            "uri": self.uri,
            "experiment": self.experiment,
            "threads": self.threads,
            "model": None if self.model is None else {**asdict(self.model), "row": None},
        }


def read_task(values: dict[str, Any]) -> RowTask:
    """Read what `RowTask.to_json` returned."""
    given, model = values["row"], values["model"]
    row = Row(**{**given, "pool": Pool(given["pool"]["target"], tuple(given["pool"]["sources"]))})
    if model is not None:
        galleries = {name: tuple(tiles) for name, tiles in model["galleries"].items()}
        listed = {name: tuple(model[name]) for name in ("tiles", "without")}
        model = ModelToExplain(**{**model, **listed, "row": row, "galleries": galleries})
    paths = {name: Path(values[name]) for name in ("project", "folder")}
    return RowTask(**{**values, **paths, "row": row, "model": model, "settings": parse_settings(values["settings"])})


class Crew:
    """Worker processes, of which each does one task at a time; safe to share between threads.

    Args:
        count: number of processes.
        gpus: number of GPUs of one training.
        say: receives lines of progress.
    """

    def __init__(self, count: int, gpus: int, say: Callable[[str], None]) -> None:
        self._gpus, self._say = gpus, say
        self._free: queue.Queue[tuple[int, Child | None]] = queue.Queue()
        self._children: list[Child] = []
        self._lock, self._stopping = threading.Lock(), False
        for number in range(1, count + 1):
            self._free.put((number, None))

    @contextmanager
    def working(self) -> Iterator[Crew]:
        """Stop all processes at the end of the block."""
        try:
            yield self
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop all processes, and start no other; rows in progress end as interrupted."""
        with self._lock:
            self._stopping = True
        stop_children(self._children)

    def do(self, task: RowTask) -> None:
        """Have a process measure a row or explain a model; one that has ended is replaced.

        Raises:
            RowError: it cannot be done, or its process was killed.
            TrainingInterrupted: the process was asked to stop.
        """
        number, child = self._free.get()
        try:
            child = self._start(number) if child is None or child.process.poll() is not None else child
            try:
                self._ask(child, task)
            except RowError:
                raise
            except BaseException:
                child.process.kill()  # what it still says would be taken for the answer to another row
                child.process.wait()
                raise
        finally:
            self._free.put((number, child))

    def _start(self, number: int) -> Child:
        with self._lock:
            if self._stopping:
                raise TrainingInterrupted(_STOPPED)
            child = Child(__name__, number, self._gpus)
            self._children.append(child)
            return child

    def _ask(self, child: Child, task: RowTask) -> None:
        child.send(task.to_json())
        for line in child.read_lines():
            answer = json.loads(line)
            if "say" in answer:
                self._say(answer["say"])
            elif answer["end"]:
                raise RowError(f"{task.title}: {answer['end']}", answer["code"])
            else:
                return
        child.process.wait()
        if self._stopping or child.process.returncode == TrainingInterrupted.exit_code:
            raise TrainingInterrupted(_STOPPED)
        raise RowError(
            f"{task.title}: worker {child.ending}, perhaps for want of memory (paper.workers); start it again and it "
            "goes on from there",
            TrainingInterrupted.exit_code,
        )


def run_task(task: RowTask, say: Callable[[str], None]) -> None:
    """Measure a row or explain a model in a worker process, and record it.

    Raises:
        RowError: code or data have changed since the parent planned the task.
    """
    torch.set_num_threads(task.settings.train.threads or task.threads)
    jobs = _open_jobs(task.folder, task.project, task.row.variant, task.row.pool.sources)
    model = task.model
    key = identify_row(jobs, task.row, task.settings) if model is None else identify_model(model, task.settings)
    if key != task.key:
        raise RowError("code or data have changed since the grid was planned; start it again")
    tracker = _open_tracker(task.uri, task.experiment, task.project)
    tags = {"oncoshift.step": STEP if model is None else explain.STEP}
    recorder = RunRecorder(tracker, tracker.find_or_start_run(task.key, task.title, tags=tags), task.key)
    with recorder.ending():
        if model is None:
            measure(jobs, task.row, task.settings, say).record(recorder)
        else:
            explain_model(jobs, model, task.settings, say).record(recorder)


@lru_cache(maxsize=4)
def _open_jobs(folder: Path, project: Path, variant: str, sources: tuple[str, ...]) -> ExperimentJobs:
    """Open the jobs of a pool once: to hash its data takes longer than to train a row's heads."""
    return ExperimentJobs.open(Layout(folder, project), variant, sources)


@lru_cache(maxsize=1)
def _open_tracker(uri: str, experiment: str, project: Path) -> Tracker:
    return Tracker(uri, experiment, tags=read_git_tags(project))


def _read_tasks(tasks: queue.Queue[str]) -> None:
    """Pass tasks on, and stop this process when the parent closes its input."""
    for line in sys.stdin:
        tasks.put(line)
    os.kill(os.getpid(), signal.SIGTERM)


def _take_stdout() -> TextIO:
    """Return standard output for answers alone; what libraries print goes to standard error.

    MLflow prints a line with each run that it ends on a server.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def main() -> int:
    """Do tasks until SIGTERM comes or the input ends; return an exit code."""
    show_any_text()
    log_as_json(("stderr",))
    answers = _take_stdout()
    stop_on_sigterm()

    def answer(**values: str | int) -> None:
        print(json.dumps(values), file=answers, flush=True)

    tasks: queue.Queue[str] = queue.Queue()
    try:
        threading.Thread(target=_read_tasks, args=(tasks,), daemon=True).start()
        while True:
            task = read_task(json.loads(tasks.get()))
            try:
                with waiting_for(60 * task.settings.tracking.wait_minutes):
                    run_task(task, lambda line: answer(say=line))
            except TrainingInterrupted:
                raise
            except OncoshiftError as error:
                answer(end=str(error), code=error.exit_code)
            except Exception as error:
                traceback.print_exc()
                answer(end=f"{type(error).__name__}: {error}", code=CRASHED)
                return CRASHED  # such as a GPU without memory: the next row has a new process
            else:
                answer(end="")
    except TrainingInterrupted as stopped:
        return stopped.exit_code


if __name__ == "__main__":
    sys.exit(main())
