"""Where a step's result is recorded: in a folder, as the DVC stages do, or in a run of MLflow, as a retraining does.

A result lists what to keep; each recorder chooses the format and ignores what it cannot store.
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from oncoshift.data.names import as_path_cell, as_text_cell
from oncoshift.errors import TrainingInterrupted
from oncoshift.secrets import remove_credentials
from oncoshift.training.interruption import find_interruption

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from oncoshift.registry.tracking import Tracker
    from oncoshift.training.epoch import Epoch


class Recorder:
    """Base recorder, which keeps nothing; subclasses override what they can store.

    Names are paths below the recorder's place.
    """

    @property
    def outer(self) -> Recorder:
        """The recorder of the run that the step belongs to, where its main figures go."""
        return Recorder()

    def find_step(self, step: str) -> Recorder:  # noqa: ARG002 - for those who override it
        """The recorder of another step of the same retraining, by the name of its run."""
        return Recorder()

    def save_figure(self, name: str, figure: Figure) -> None:
        """Keep a picture, for example roc.png."""

    def save_text(self, name: str, text: str) -> None:
        """Keep a text, for example report.md."""

    def save_table(self, name: str, table: pd.DataFrame) -> None:
        """Keep a table; its name has no ending."""

    def save_json(self, name: str, values: Any) -> None:
        """Keep a JSON value, for example report.json."""

    def log_metrics(self, values: Mapping[str, float | None], at_ms: int, step: int = 0) -> None:
        """Keep figures by name.

        Args:
            values: None where there is no value.
            at_ms: the time that they belong to, in milliseconds since 1970.
            step: where a curve of them stands, for example the number of trials behind them.
        """

    def log_epochs(self, epochs: Sequence[Epoch]) -> None:
        """Keep the figures of a training that has ended."""

    def save_files(self, folder: Path, names: Sequence[str]) -> None:
        """Keep copies of files that lie in a folder."""

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Keep words to search and filter by."""


class FolderRecorder(Recorder):
    """Files in a folder that DVC keeps; tags have no place in it.

    Args:
        folder: made empty first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    def save_figure(self, name: str, figure: Figure) -> None:
        """Save it."""
        figure.savefig(self.folder / name)

    def save_text(self, name: str, text: str) -> None:
        """Write it."""
        (self.folder / name).write_text(text)

    def save_table(self, name: str, table: pd.DataFrame) -> None:
        """Write it as CSV; no name of a tile or a group is a formula to a spreadsheet."""
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
        """Write history.csv, one row an epoch."""
        self.save_table("history", pd.DataFrame([dict(epoch) for epoch in epochs]))

    def save_files(self, folder: Path, names: Sequence[str]) -> None:
        """Copy them."""
        for name in names:
            shutil.copyfile(folder / name, self.folder / name)


@dataclass(frozen=True)
class RunRecorder(Recorder):
    """A run of MLflow, which is found by its key, so that recording twice is recording once.

    Attributes:
        tracker: the store.
        run: its id.
        key: of the retraining, hash of all that it depends on; the runs of its steps have theirs below it.
        parent: the recorder of the run under which this one is shown; None for the retraining's own.
    """

    tracker: Tracker
    run: str
    key: str
    parent: RunRecorder | None = None

    @property
    def outer(self) -> Recorder:
        """The recorder of the parent run; one that keeps nothing where there is none."""
        return self.parent or Recorder()

    def find_step(self, step: str) -> Recorder:
        """Find the recorder of another step's run; one that keeps nothing where there is no such run."""
        found = self.tracker.find_run(f"{self.key}/{step}")
        return Recorder() if found is None else self.open_nested(found.info.run_id)

    def open_nested(self, run: str) -> RunRecorder:
        """Open the recorder of a run nested under this one, by its id."""
        return RunRecorder(self.tracker, run, self.key, self)

    @contextmanager
    def step(self, name: str, *, system_metrics: bool = False) -> Iterator[RunRecorder]:
        """A nested run for a step; it ends FINISHED, or as `end` says."""
        run = self.tracker.find_or_start_run(
            f"{self.key}/{name}", name, parent=self.run, tags={"oncoshift.step": name.split("-")[0]}
        )
        nested = self.open_nested(run)
        try:
            if system_metrics:
                with self.tracker.sampling_system_metrics(run):
                    yield nested
            else:
                yield nested
        except BaseException as error:
            stop = find_interruption(error)
            nested.end(stop or error)
            if stop is not None and stop is not error:
                raise stop from error
            raise
        self.tracker.finish(run)

    def end(self, error: BaseException) -> None:
        """End the run after an error: KILLED where somebody stopped it, else FAILED with the error as a tag."""
        if isinstance(error, TrainingInterrupted) or not isinstance(error, Exception):
            self.tracker.abandon(self.run, "KILLED", {})
        else:
            text = remove_credentials(f"{type(error).__name__}: {error}")
            self.tracker.abandon(self.run, "FAILED", {"oncoshift.error": text[:4000]})

    def save_figure(self, name: str, figure: Figure) -> None:
        """Save it as an artifact."""
        self.tracker.log_figure(self.run, figure, name)

    def save_text(self, name: str, text: str) -> None:
        """Save it as an artifact."""
        self.tracker.log_text(self.run, text, name)

    def save_table(self, name: str, table: pd.DataFrame) -> None:
        """Save it as a .json artifact that the UI shows as a table."""
        self.tracker.log_table(self.run, table, f"{name}.json")

    def save_json(self, name: str, values: Any) -> None:
        """Save a JSON value as an artifact."""
        self.tracker.log_json(self.run, values, name)

    def save_sealed(self, name: str, values: dict[str, Any]) -> None:
        """Save JSON with its digest as an artifact, for `Tracker.read_sealed`."""
        self.tracker.log_sealed(self.run, values, name)

    def log_metrics(self, values: Mapping[str, float | None], at_ms: int, step: int = 0) -> None:
        """Log them as metrics; one that has no value is left out."""
        known = {name: float(value) for name, value in values.items() if value is not None}
        self.tracker.log_metrics(self.run, [(step, at_ms, known)])

    def log_epoch(self, epoch: Epoch) -> None:
        """Log an epoch's figures, with the time at which they were made, when it is done.

        So `log_epochs` and `save_files` do nothing here: the files of a training stay with its job
        until step `register` uploads the picked model's weights.
        """
        self.tracker.log_metrics(self.run, [(epoch.number, epoch.ended_ms, epoch.metrics)])

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags; a tag that is there gets the new value."""
        self.tracker.set_tags(self.run, tags)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters, which never change."""
        self.tracker.log_params(self.run, params)
