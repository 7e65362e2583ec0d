"""Garbage: what nothing needs any more, found by looking at everything that may need it.

    version     of a registered model that has no alias, was never champion and awaits no approval
    run         a retraining that failed or was stopped, with the runs nested in it
    trash       runs and models that somebody deleted in MLflow
    artifacts   folders in an embedded store that no run and no model names
    job         a training's folder that only old retrainings used
    trunk       frozen parts of networks that no training has any more
    features    cached outputs of frozen parts that were not read lately
    packs       of an experiment that was not used lately; DVC's cache has them
    data        objects of DVC's cache that no experiment and no live version names

Nothing younger than a given number of days is garbage. The retrainings of live versions, those in
progress, and the newest of each name keep their runs, jobs and data. The audit log is never
touched, and the versions that it shows as champions stay.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["version", "run", "trash", "artifacts", "job", "trunk", "features", "packs", "data"]

_DAY = 86_400.0


@dataclass(frozen=True)
class Garbage:
    """One thing that nothing needs.

    Attributes:
        kind: see above.
        name: what it is, for people.
        reason: why nothing needs it.
        days: age, or time since its last use.
        size: bytes on this machine; 0 where they are elsewhere or unknown.
        ids: by which MLflow knows it: model and version, or runs.
        paths: files and folders that go.
    """

    kind: Kind
    name: str
    reason: str
    days: float
    size: int
    ids: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()


def measure(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; 0 if there is neither."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())


def count_days(path: Path) -> float:
    """Return the days since a file, or any file in a folder, was written or read."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    last = max((max(file.stat().st_mtime, file.stat().st_atime) for file in (*files, path)), default=0.0)
    return count_days_since(1000 * last)


def count_days_since(at_ms: float | None) -> float:
    """Return the days since a time in milliseconds since 1970."""
    return (time.time() - (at_ms or 0) / 1000) / _DAY
