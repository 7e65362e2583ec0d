"""Recorders of a step's result: a folder for DVC stages, an MLflow run for a retraining.

A result names what to save; each recorder chooses the format and ignores what it cannot store.
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from oncoshift.data.names import as_path_cell, as_text_cell
from oncoshift.errors import TrainingInterrupted
from oncoshift.logs import working_on
from oncoshift.secrets import remove_credentials
from oncoshift.training.interruption import find_interruption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from oncoshift.registry.tracking import Tracker
    from oncoshift.training.epoch import Epoch


EPOCH_METRICS = "train/"
"""Prefix of a training's metrics by epoch; sorted by name, they follow the results `target/…`."""


class Recorder:
    """Base recorder, which saves nothing; subclasses override what they can store.

    Names are paths relative to the recorder's folder or run.
    """

    @property
    def outer(self) -> Recorder:
        """The recorder of the retraining's run, which gets the step's main results."""
        return Recorder()

    def find_step(self, step: str) -> Recorder:  # noqa: ARG002 - for subclasses
        """Find the recorder of another step of the same retraining, by the name of its run."""
        return Recorder()

    def save_figure(self, name: str, figure: Figure) -> None:
        """Save a figure, for example roc.png."""

    def save_text(self, name: str, text: str) -> None:
        """Save a text, for example report.md."""

    def save_table(self, name: str, table: pd.DataFrame) -> None:
        """Save a table; its name has no suffix."""

    def save_json(self, name: str, values: Any) -> None:
        """Save a JSON value, for example report.json."""

    def log_metrics(self, values: Mapping[str, float | None], at_ms: int, step: int = 0) -> None:
        """Log metrics by name.

        Args:
            values: None for a missing value.
            at_ms: the time of the values, in milliseconds since 1970.
            step: position on the metric's curve, for example the number of trials so far.
        """

    def log_epochs(self, epochs: Sequence[Epoch]) -> None:
        """Save the metrics of a finished training's epochs."""

    def fill_folder(self, write: Callable[[Path], None]) -> None:
        """Save the files that a function writes into a folder."""

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags, by which runs are searched and filtered."""


class FolderRecorder(Recorder):
    """Saves files in a folder that DVC tracks, and ignores tags.

    Args:
        folder: emptied first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    def save_figure(self, name: str, figure: Figure) -> None:
        """Save the figure as an image."""
        figure.savefig(self.folder / name)

    def save_text(self, name: str, text: str) -> None:
        """Write the text to a file."""
        (self.folder / name).write_text(text)

    def save_table(self, name: str, table: pd.DataFrame) -> None:
        """Write CSV in which no name of a tile or a group is a formula to a spreadsheet."""
        safe = {"tile_id": as_path_cell, "group": as_text_cell}
        columns = {column: table[column].map(cell) for column, cell in safe.items() if column in table}
        table.assign(**columns).to_csv(self.folder / f"{name}.csv", index=False)

    def log_metrics(self, values: Mapping[str, float | None], at_ms: int, step: int = 0) -> None:  # noqa: ARG002
        """Write summary.json."""
        self.save_json("summary.json", values)

    def save_json(self, name: str, values: Any) -> None:
        """Write a JSON file."""
        (self.folder / name).write_text(json.dumps(values, indent=1))

    def log_epochs(self, epochs: Sequence[Epoch]) -> None:
        """Write history.csv, one row per epoch."""
        self.save_table("history", pd.DataFrame([dict(epoch) for epoch in epochs]))

    def fill_folder(self, write: Callable[[Path], None]) -> None:
        """Have the files written into the folder."""
        write(self.folder)


@dataclass(frozen=True)
class RunRecorder(Recorder):
    """Saves in an MLflow run, which is found by its key, so recording again changes nothing.

    Attributes:
        tracker: the store.
        run: id of the run.
        key: hash of all that the retraining depends on; prefix of the keys of its steps' runs.
        parent: the recorder of the parent run; None for the retraining's own run.
    """

    tracker: Tracker
    run: str
    key: str
    parent: RunRecorder | None = None

    @property
    def outer(self) -> Recorder:
        """The recorder of the parent run, or one that saves nothing."""
        return self.parent or Recorder()

    def find_step(self, step: str) -> Recorder:
        """Find the recorder of another step's run; one that saves nothing if there is none."""
        found = self.tracker.find_run(f"{self.key}/{step}")
        return Recorder() if found is None else self.open_nested(found.info.run_id)

    def open_nested(self, run: str) -> RunRecorder:
        """Open the recorder of a run nested under this one, by its id."""
        return RunRecorder(self.tracker, run, self.key, self)

    @contextmanager
    def step(self, name: str, title: str = "", *, system_metrics: bool = False) -> Iterator[RunRecorder]:
        """Open a nested run for a step; it ends FINISHED, or as in `end`.

        Args:
            name: part of the run's key; what precedes its first dash is the tag `oncoshift.step`.
            title: name of the run in the UI; default: `name`.
            system_metrics: whether to sample the machine's load.
        """
        run = self.tracker.find_or_start_run(
            f"{self.key}/{name}", title or name, parent=self.run, tags={"oncoshift.step": name.split("-")[0]}
        )
        nested = self.open_nested(run)
        sampling = self.tracker.sampling_system_metrics(run) if system_metrics else nullcontext()
        with nested.ending(), working_on(name), sampling:
            yield nested

    @contextmanager
    def ending(self) -> Iterator[None]:
        """End the run with the block: FINISHED, or as in `end`.

        An interruption that a library has wrapped in an error of its own is raised instead of it.
        """
        try:
            yield
        except BaseException as error:
            stop = find_interruption(error)
            self.end(stop or error)
            if stop is not None and stop is not error:
                raise stop from error
            raise
        self.tracker.finish(self.run)

    def end(self, error: BaseException) -> None:
        """End the run after an error: KILLED if stopped, else FAILED with the error as a tag."""
        if isinstance(error, TrainingInterrupted) or not isinstance(error, Exception):
            self.tracker.abandon(self.run, "KILLED", {})
        else:
            text = remove_credentials(f"{type(error).__name__}: {error}")
            self.tracker.abandon(self.run, "FAILED", {"oncoshift.error": text[:4000]})

    def save_figure(self, name: str, figure: Figure) -> None:
        """Save the figure as an artifact."""
        self.tracker.log_figure(self.run, figure, name)

    def save_text(self, name: str, text: str) -> None:
        """Save the text as an artifact."""
        self.tracker.log_text(self.run, text, name)

    def save_table(self, name: str, table: pd.DataFrame) -> None:
        """Save the table as a .json artifact, which the UI shows as a table."""
        self.tracker.log_table(self.run, table, f"{name}.json")

    def save_json(self, name: str, values: Any) -> None:
        """Save a JSON value as an artifact."""
        self.tracker.log_json(self.run, values, name)

    def save_sealed(self, name: str, values: dict[str, Any]) -> None:
        """Save JSON with its digest as an artifact, for `Tracker.read_sealed`."""
        self.tracker.log_sealed(self.run, values, name)

    def log_metrics(self, values: Mapping[str, float | None], at_ms: int, step: int = 0) -> None:
        """Log metrics, without those that have no value."""
        known = {name: float(value) for name, value in values.items() if value is not None}
        self.tracker.log_metrics(self.run, [(step, at_ms, known)])

    def log_epoch(self, epoch: Epoch) -> None:
        """Log an epoch's metrics with its time as soon as it ends.

        `log_epochs` and `fill_folder` therefore do nothing here. A training's files stay with its
        job until step `register` uploads the picked model's weights.
        """
        # The UI's comparison of runs opens on the first metric that they share.
        ordered = {"source_accuracy": epoch.source_accuracy, **epoch.metrics}
        values = {f"{EPOCH_METRICS}{name}": value for name, value in ordered.items()}
        self.tracker.log_metrics(self.run, [(epoch.number, epoch.ended_ms, values)])

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags, replacing the values of existing ones."""
        self.tracker.set_tags(self.run, tags)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters, which are immutable."""
        self.tracker.log_params(self.run, params)
