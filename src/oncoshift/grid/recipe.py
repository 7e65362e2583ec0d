"""The recipe of the grid: data of every pool, all rows, explanations if asked for, and the results.

What is finished is found: data by DVC, trainings by their jobs, rows by their runs in MLflow. A
grid that was killed is started again. `flows/paper.py` passes the steps as Prefect tasks; nothing
here imports Prefect.
"""

from __future__ import annotations

import re
import shlex
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from oncoshift.errors import SettingsError, TrainingInterrupted
from oncoshift.experiments import hold_experiment, locate_experiment, resolve_tracking_uri, resolve_weights
from oncoshift.grid import explain
from oncoshift.grid.explain import identify_model
from oncoshift.grid.explained import find_explained, list_pairs, name_pool, tabulate_pairs, write_galleries
from oncoshift.grid.measure import identify_row
from oncoshift.grid.page import record_page
from oncoshift.grid.registry import HONEST
from oncoshift.grid.results import Results, collect_results, find_finished, find_finished_rows, read_results
from oncoshift.grid.rows import Pool, list_rows, make_pool_settings
from oncoshift.grid.workers import Crew, RowError, RowTask
from oncoshift.parallel import count_usable_cores
from oncoshift.registry.source import read_git_tags
from oncoshift.registry.store import open_client
from oncoshift.registry.tracking import Tracker
from oncoshift.registry.waiting import waiting_for
from oncoshift.retraining.inputs import check_inputs
from oncoshift.retraining.session import RetrainingPlan
from oncoshift.selection.rule import ORACLE
from oncoshift.settings import load_settings, replace_values
from oncoshift.steps.jobs import ExperimentJobs
from oncoshift.training.interruption import interruptible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping, Sequence
    from pathlib import Path

    from oncoshift.settings import Settings

    Say = Callable[[str], None]

_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class GridPlan:
    """The plan of a grid.

    Attributes:
        project: the project's root.
        settings: of the grid.
        uri: MLflow's tracking URI.
        command: the command that makes these results, without paths of this machine.
        say: receives lines of progress.
        explains: whether to explain the models of each pool that are not explained yet.
    """

    project: Path
    settings: Settings
    uri: str
    command: str
    say: Say
    explains: bool = False

    @property
    def experiment(self) -> str:
        """Name of the grid's experiment in MLflow."""
        return f"{self.settings.tracking.experiment}-paper"

    @property
    def galleries(self) -> Path:
        """The folder for galleries of tiles, which git ignores."""
        return self.project / "runs" / "galleries"

    def open_tracker(self) -> Tracker:
        """Open the grid's experiment."""
        return Tracker(self.uri, self.experiment, tags=read_git_tags(self.project))


@dataclass(frozen=True)
class Steps:
    """The functions of the steps, or wrappers around them.

    Attributes:
        data: brings a pool's data up to date.
        row: has a worker measure a row, or explain a model.
        results: reads all rows, and records tables and pictures.
    """

    data: Callable[[RetrainingPlan], ExperimentJobs]
    row: Callable[[Crew, RowTask], None]
    results: Callable[[GridPlan, Sequence[RowTask]], Results]


def make_plan(
    project: Path,
    *,
    preset: str | None,
    overrides: tuple[str, ...],
    environ: MutableMapping[str, str],
    say: Say,
    explains: bool = False,
    trusted: bool = True,
) -> GridPlan:
    """Read the settings, and check the inputs that they name.

    Args:
        project: the project's root.
        preset: a name under `presets/`, or the path of a YAML file.
        overrides: `section.key=value` strings.
        environ: the process's environment.
        say: receives lines of progress.
        explains: whether models are to be explained.
        trusted: whether the preset may be any file; otherwise only one in the project.

    Raises:
        DataError: the data set is missing, or has no tile of an organ of a pool.
        SettingsError: a setting is not allowed.
        WeightsError: pretrained weights are missing or do not fit the network.
    """
    settings = load_settings(project / "params.yaml", preset=preset, overrides=overrides, trusted=trusted)
    check_settings(settings)
    rows = list_rows(settings)
    for row in {(row.method, row.protocol): row for row in rows}.values():
        row.make_settings(settings)  # conditions between sections
    for pool in {row.pool: None for row in rows}:
        check_inputs(project, make_pool_settings(settings, pool))
    command = _describe_command(preset, overrides, environ)
    settings = resolve_weights(settings, project)
    uri = resolve_tracking_uri(project, settings.tracking, environ)
    return GridPlan(project, settings, uri, command, say, explains)


def check_settings(settings: Settings) -> None:
    """Check what the page needs, and that no label of a target decides anything.

    Raises:
        SettingsError: a setting is not allowed for a grid.
    """
    paper = settings.paper
    if settings.select.validator == ORACLE:
        raise SettingsError(
            "select.validator: oracle reads target labels, and the grid's choices are without; change it"
        )
    if absent := [name for name in settings.retrain.methods if name not in paper.methods]:
        raise SettingsError(
            f"retrain.methods names {', '.join(absent)}, which paper.methods does not, so the page could not show the "
            "choice; add it there, or take it away here"
        )
    if absent := [name for name in settings.candidate_variants if name not in paper.variants]:
        raise SettingsError(
            f"the choice is on {', '.join(absent)} (retrain.variants, or train.variant), which paper.variants does not "
            "name; add it there, or take it away here"
        )
    if HONEST not in paper.protocols:
        raise SettingsError(f"paper.protocols lacks {HONEST}, beside which the others stand; add it")
    if len(paper.protocols) > 1 and "dann" not in paper.methods:
        raise SettingsError("paper.methods lacks dann, which the other protocols are about; add it, or leave them out")


def _describe_command(preset: str | None, overrides: tuple[str, ...], environ: Mapping[str, str]) -> str:
    """Describe the command, without paths of this machine."""
    words = ["oncoshift paper", *(["--preset", PurePath(preset).name] if preset else [])]
    shared = environ.get("ONCOSHIFT_SHARED")
    for each in overrides:
        text = each.replace(shared, "$ONCOSHIFT_SHARED") if shared else each
        plain = re.fullmatch(r"[\w.=/$:,@+-]+", text)
        words += ["--set", text if plain else shlex.quote(text)]
    return " ".join(words)


def run_grid(plan: GridPlan, steps: Steps) -> Results:
    """Prepare the data, measure and explain what is missing, and collect the results.

    Raises:
        ExperimentError: another process is using the data of a pool.
        RowError: a row cannot be measured, or a model not explained; the others in progress are
            finished first.
        TrainingInterrupted: SIGTERM came; all workers were stopped.
    """
    open_client(plan.uri)
    with waiting_for(60 * plan.settings.tracking.wait_minutes), ExitStack() as held:
        tasks = _plan_tasks(plan, steps, held)
        missing = _find_missing(plan, tasks)
        plan.say(f"grid: {len(tasks)} rows, of which {len(tasks) - len(missing)} are measured already")
        if missing:
            _do_all(plan, steps, missing, "rows")
        if plan.explains:
            _explain_all(plan, steps, tasks)
        return steps.results(plan, tasks)


def _plan_tasks(plan: GridPlan, steps: Steps, held: ExitStack) -> list[RowTask]:
    """Bring the data of all pools up to date, in the order of rows, and identify the rows."""
    opened: dict[tuple[Pool, str], tuple[RetrainingPlan, ExperimentJobs]] = {}
    # Heads on a frozen trunk take one thread; its features, computed once, take all cores.
    share = 1 if plan.settings.model.freeze == "all" else plan.settings.paper.workers
    threads = max(1, count_usable_cores() // share)
    tasks = []
    for row in list_rows(plan.settings):
        by = row.make_settings(plan.settings).split.by
        place = row.pool, by
        if place not in opened:
            own = _plan_pool(plan, row.pool, by)
            held.enter_context(hold_experiment(own.layout))
            steps.data(own)
            opened[place] = own, ExperimentJobs.open(own.layout, row.variant, row.pool.sources)
        own, jobs = opened[place]
        key = identify_row(jobs.on_variant(row.variant), row, plan.settings)
        tasks.append(
            RowTask(row, key, plan.project, own.layout.folder, plan.settings, plan.uri, plan.experiment, threads)
        )
    return tasks


def _plan_pool(plan: GridPlan, pool: Pool, by: str) -> RetrainingPlan:
    """Plan the data of a pool, which are those of a retraining from the same organs."""
    name = f"paper-{name_pool(pool)}{'' if by == 'group' else f'.by-{by}'}"
    settings = replace_values(make_pool_settings(plan.settings, pool), {"split.by": by})
    return RetrainingPlan(plan.project, locate_experiment(plan.project, name), settings, plan.uri, "", plan.say)


def _find_missing(plan: GridPlan, tasks: Sequence[RowTask]) -> list[RowTask]:
    finished = find_finished_rows(plan.open_tracker())
    return [task for task in tasks if task.key not in finished]


def _explain_all(plan: GridPlan, steps: Steps, tasks: Sequence[RowTask]) -> None:
    """Explain the models of each pool that are not explained yet; all rows are measured."""
    tracker = plan.open_tracker()
    own = {task.row: task for task in tasks if task.row.protocol == HONEST}
    results = read_results(tracker, plan.settings, [(task.key, row) for row, task in own.items()])
    models = [model for pair in list_pairs(results) for model in (pair.control, pair.chosen)]
    threads = max(1, count_usable_cores() // plan.settings.paper.workers)
    wanted = [
        replace(own[model.row], key=identify_model(model, plan.settings), threads=threads, model=model)
        for model in models
    ]
    finished = find_finished(tracker, explain.STEP)
    missing = [task for task in wanted if task.key not in finished]
    tiles = sum(len(task.model.all_tiles) for task in missing if task.model is not None)
    plan.say(
        f"grid: {len(wanted)} models to explain, of which {len(wanted) - len(missing)} are explained already; "
        f"{tiles} maps are to be made"
    )
    if missing:
        _do_all(plan, steps, missing, "models")


def _do_all(plan: GridPlan, steps: Steps, tasks: Sequence[RowTask], what: str) -> None:
    """Measure rows or explain models by `paper.workers` processes; a thread waits for each.

    After an error no other task begins, and those in progress are finished.

    Args:
        plan: of the grid.
        steps: of the grid.
        tasks: what is to be done.
        what: what a task is about, in the plural.
    """
    workers, began = plan.settings.paper.workers, time.monotonic()
    with (
        interruptible() as stop_requested,
        ThreadPoolExecutor(workers) as threads,
        Crew(workers, plan.settings.train.processes, plan.say).working() as crew,
    ):
        waiting = {threads.submit(copy_context().run, steps.row, crew, task) for task in tasks}
        failed: RowError | None = None
        finished = 0
        try:
            while waiting and not stop_requested():
                done, waiting = wait(waiting, _LOOK_SECONDS, FIRST_COMPLETED)
                for error in [future.exception() for future in done if not future.cancelled()]:
                    if error is None:
                        finished += 1
                        plan.say(_describe_progress(finished, len(tasks), what, time.monotonic() - began))
                    elif not isinstance(error, RowError):
                        raise error
                    elif failed is None:
                        failed = error
                        plan.say(f"grid: {error}; {what} in progress are finished first")
                        waiting = {future for future in waiting if not future.cancel()}
        finally:
            for future in waiting:
                future.cancel()
        if stop_requested():
            raise TrainingInterrupted("the grid was asked to stop; start it again and it goes on from there")
        if failed is not None:
            raise failed


def _describe_progress(done: int, total: int, what: str, seconds: float) -> str:
    left = seconds / done * (total - done) / 60
    return f"grid: {done} of {total} {what}, {seconds / 60:.0f} min so far, about {left:.0f} min to go"


def collect(plan: GridPlan, tasks: Sequence[RowTask]) -> Results:
    """Read all rows and explanations; record tables and pictures in a run of their own.

    Galleries go into the project's folder for them as well, and those of other models go from it.
    """
    tracker = plan.open_tracker()
    results = collect_results(tracker, plan.settings, plan.command, [(task.key, task.row) for task in tasks])
    if explained := find_explained(tracker, results):
        results = replace(results, explained=explained)
        tracker.log_table(results.run, tabulate_pairs(explained), "nuclei.json")
    write_galleries(tracker, results, plan.galleries)
    record_page(tracker, results)
    tracker.finish(results.run)
    return results
