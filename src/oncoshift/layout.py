"""The folders and files of an experiment (see `oncoshift.experiments`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SPLITS = ("source_train", "source_val", "target_train", "audit", "test")


@dataclass(frozen=True)
class Layout:
    """Paths of one experiment.

    Attributes:
        folder: the experiment's folder.
        project: the project whose `runs/` the experiment shares; None: it has its own. Results
            there are named by the hash of all that they depend on, so one experiment finds what
            another has trained.
    """

    folder: Path
    project: Path | None = None

    @property
    def params(self) -> Path:
        """The experiment's settings."""
        return self.folder / "params.yaml"

    @property
    def code(self) -> Path:
        """Stage `code`: one hash of the code behind each stage."""
        return self.folder / "data" / "code"

    @property
    def tiles(self) -> Path:
        """Stage `ingest`: tiles and measurements (Parquet), quarantine.csv, report."""
        return self.folder / "data" / "tiles"

    @property
    def splits(self) -> Path:
        """Stage `split`: one parquet file for each name in `SPLITS`."""
        return self.folder / "data" / "splits"

    @property
    def packs(self) -> Path:
        """Stage `normalize`: one folder for each stain variant."""
        return self.folder / "data" / "packs"

    @property
    def shared(self) -> Path:
        """The folder that holds the shared `runs/`; paths in `tune.storage` are relative to it."""
        return self.project or self.folder

    @property
    def labels(self) -> Path:
        """Labels that a person gave tiles of a target, one CSV each, which DVC versions."""
        return self.shared / "data" / "labels"

    @property
    def features(self) -> Path:
        """Cached features of frozen trunk parts, by content hash."""
        return self.shared / "runs" / "features"

    @property
    def jobs(self) -> Path:
        """Training jobs: one folder each, named by the hash of all that the job depends on."""
        return self.shared / "runs" / "jobs"

    @property
    def outputs(self) -> Path:
        """Outputs of the DVC stages train, evaluate and explain."""
        return self.folder / "outputs"
