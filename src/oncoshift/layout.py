"""Where things lie on disk. An experiment is a folder with params.yaml and dvc.yaml; the project root is one.

Other experiments (a preset, `--set`) get a folder of their own under `experiments/`, see `oncoshift.experiments`.
"""

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
        project: whose `runs/` it shares with the project's other experiments; None: it has its own. What lies there is
            named by the hash of all that it depends on, so what one experiment has trained, another finds.
    """

    folder: Path
    project: Path | None = None

    @property
    def params(self) -> Path:
        """The experiment's settings."""
        return self.folder / "params.yaml"

    @property
    def code(self) -> Path:
        """Stage `code`: folder of a hash of the code behind each stage."""
        return self.folder / "data" / "code"

    @property
    def tiles(self) -> Path:
        """Stage `ingest`: folder of tiles.parquet, measurements.parquet, quarantine.csv, report.json and report/."""
        return self.folder / "data" / "tiles"

    @property
    def splits(self) -> Path:
        """Stage `split`: folder of one parquet file for each name in `SPLITS`."""
        return self.folder / "data" / "splits"

    @property
    def packs(self) -> Path:
        """Stage `normalize`: one folder for each stain variant."""
        return self.folder / "data" / "packs"

    @property
    def shared(self) -> Path:
        """The folder that holds the shared `runs/`; a relative path in `tune.storage` begins there."""
        return self.project or self.folder

    @property
    def features(self) -> Path:
        """Cached outputs of frozen trunk parts, by content hash."""
        return self.shared / "runs" / "features"

    @property
    def jobs(self) -> Path:
        """One folder for each training job, named by the hash of all that it depends on."""
        return self.shared / "runs" / "jobs"

    @property
    def outputs(self) -> Path:
        """What the DVC stages train, evaluate and explain write for the experiment in params.yaml."""
        return self.folder / "outputs"
