"""Garbage in a project's folders: trainings, features, packs, and objects of DVC's cache."""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from oncoshift.files import DamagedFileError, hold_lock, read_json
from oncoshift.maintenance.contents import list_experiments, locate_object
from oncoshift.maintenance.garbage import Garbage, count_days, measure
from oncoshift.versioning import find_cache, list_unused, read_stage_outs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oncoshift.maintenance.uses import Uses

_PACKS = "data/packs"


def find_jobs(project: Path, uses: Uses) -> Iterator[Garbage]:
    """Find trainings' folders that no needed retraining used."""
    used = {job for each in uses.needed for job in each.jobs}
    for folder in _list_jobs(project):
        if folder.name not in used and (age := count_days(folder)) >= uses.days:
            reason = "only old retrainings used it, or none; it would be trained again"
            yield Garbage("job", folder.name, reason, age, measure(folder), paths=(folder,))


def find_trunks(project: Path, days: float) -> Iterator[Garbage]:
    """Find frozen parts that no training has any more."""
    used = set()
    for folder in _list_jobs(project):
        with suppress(DamagedFileError, FileNotFoundError):  # it is in training
            used.add(read_json(folder / "done.json").get("frozen"))
    for file in sorted((project / "runs" / "trunks").glob("*.safetensors")):
        if file.stem not in used and (age := count_days(file)) >= days:
            yield Garbage("trunk", file.name, "no training has it", age, measure(file), paths=(file,))


def _list_jobs(project: Path) -> Iterator[Path]:
    """List the folders of all trainings, those of forced retrainings too."""
    for parent in [project / "runs" / "jobs", *project.glob("**/runs/forced/*")]:
        yield from sorted(parent.glob("*-s*-*"))


def find_features(project: Path, days: float) -> Iterator[Garbage]:
    """Find cached features and anchors that were not read lately."""
    runs = project / "runs"
    for file in sorted([*(runs / "features").glob("*.npy"), *(runs / "anchors").glob("*.npy")]):
        if (age := count_days(file)) >= days:
            yield Garbage("features", file.name, "not read lately; computed again", age, measure(file), paths=(file,))


def find_packs(project: Path, days: float) -> Iterator[Garbage]:
    """Find packs of experiments that were not used lately and that DVC's cache has."""
    experiments = [folder for folder in list_experiments(project)[1:] if (folder / _PACKS).is_dir()]
    if not experiments:
        return
    cache = find_cache(project)
    for folder in experiments:
        packs = folder / _PACKS
        kept = read_stage_outs(folder).get(_PACKS)
        if kept is None or not (cache / locate_object(kept)).is_file():
            continue
        if (age := count_days(folder / "runs")) >= days:
            yield Garbage(
                "packs", folder.name, "not used lately; DVC's cache has them", age, measure(packs), paths=(packs,)
            )


def find_data(project: Path, uses: Uses) -> Iterator[Garbage]:
    """Find objects of DVC's cache that no experiment and no needed retraining names; one row."""
    needed = {digest for each in uses.needed for digest in each.data}
    live = {version.retraining for version in uses.versions if version.need}
    needed |= {digest for each in uses.retrainings if each.id in live for digest in each.data}
    paths = [path for path in list_unused(list_experiments(project), needed) if count_days(path) >= uses.days]
    if paths:
        age = min(map(count_days, paths))
        size = sum(map(measure, paths))
        reason = "no experiment's and no needed retraining's data"
        yield Garbage("data", f"{len(paths)} objects of DVC's cache", reason, age, size, paths=tuple(paths))


def remove_paths(garbage: Garbage) -> None:
    """Remove files and folders; a training that is in progress stays."""
    for path in garbage.paths:
        if path.is_dir():
            with suppress(BlockingIOError), hold_lock(path, BlockingIOError):
                shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
