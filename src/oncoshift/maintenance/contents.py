"""What a project consists of besides its databases: settings, and objects of DVC's cache."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncoshift.experiments import EXPERIMENTS, is_experiment
from oncoshift.layout import Layout
from oncoshift.settings import load_settings
from oncoshift.versioning import find_cache, read_raw_hash, read_stage_outs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_SETTINGS = ("params.yaml", "dvc.yaml", "dvc.lock", ".dvc/config", ".dvcignore", "runs/best.yaml", "runs/forced.txt")
"""Files of an experiment; `.dvc/config.local` may hold a remote's password and is left out."""

_DIRECTORY = ".dir"


@dataclass(frozen=True)
class Objects:
    """Objects of DVC's cache.

    Attributes:
        cache: the cache's folder.
        files: those that are there, relative to it.
        missing: hashes that are named but not there.
    """

    cache: Path
    files: tuple[Path, ...]
    missing: tuple[str, ...]


def list_experiments(project: Path) -> list[Path]:
    """List the folders of a project's experiments; the project itself is the first."""
    return [project, *(folder for folder in sorted((project / EXPERIMENTS).glob("*")) if is_experiment(folder))]


def list_settings(project: Path) -> list[Path]:
    """List the files that make the project what it is, relative to it; code is git's."""
    own = [folder / name for folder in list_experiments(project) for name in _SETTINGS]
    files = [*own, *sorted((project / "presets").glob("*.yaml")), *_list_pointers(project)]
    return [file.relative_to(project) for file in files if file.is_file()]


def list_objects(project: Path, recorded: Iterable[str]) -> Objects:
    """List the objects of DVC's cache that experiments or runs name.

    Args:
        project: the project's root.
        recorded: DVC hashes that runs of MLflow name as their inputs.
    """
    cache = find_cache(project)
    hashes = {*recorded, *list_named_hashes(project)}
    found: set[str] = set()
    missing: set[str] = set()
    for name in hashes:
        for each in (name, *_list_inner(cache, name)):
            (found if (cache / locate_object(each)).is_file() else missing).add(each)
    runs = (file.relative_to(cache) for file in (cache / "runs").rglob("*") if file.is_file())
    return Objects(cache, (*sorted(map(locate_object, found)), *sorted(runs)), tuple(sorted(missing)))


def list_named_hashes(project: Path) -> set[str]:
    """List the DVC hashes that the experiments' dvc.lock files, raw data and labels name."""
    named: set[str] = set()
    for folder in list_experiments(project):
        named |= set(read_stage_outs(folder).values())
        raw = read_raw_hash(project, folder / load_settings(folder / "params.yaml").ingest.root)
        named |= {raw} if raw else set()
    labels = (read_raw_hash(project, pointer.with_suffix("")) for pointer in _list_label_pointers(project))
    return named | {each for each in labels if each}


def locate_object(name: str) -> Path:
    """Return where DVC's cache has the object of a hash, relative to the cache."""
    from pathlib import Path

    return Path("files", "md5", name[:2], name[2:])


def _list_inner(cache: Path, name: str) -> list[str]:
    """List the hashes of the files in a folder that the cache has; empty for that of a file."""
    path = cache / locate_object(name)
    if not name.endswith(_DIRECTORY) or not path.is_file():
        return []
    return [entry["md5"] for entry in json.loads(path.read_bytes())]


def _list_pointers(project: Path) -> Iterator[Path]:
    for folder in list_experiments(project):
        raw = (project / load_settings(folder / "params.yaml").ingest.root).resolve()
        if raw.is_relative_to(project.resolve()):
            yield raw.with_name(f"{raw.name}.dvc")
    yield from _list_label_pointers(project)


def _list_label_pointers(project: Path) -> list[Path]:
    """List the .dvc files of labels that were applied; those of experiments are the project's."""
    return sorted(Layout(project).labels.glob("*.csv.dvc"))
