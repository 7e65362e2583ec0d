"""Checks of the machine: packages, GPU, disk, and programs that are called."""

from __future__ import annotations

import os
import re
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from oncoshift.maintenance.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oncoshift.maintenance.findings import Profile, Scene

_PACKAGES: dict[Profile, tuple[str, ...]] = {
    "train": ("torch", "torchvision", "mlflow", "prefect", "optuna", "dvc", "captum", "staintools"),
    "serve": ("mlflow", "onnxruntime", "numpy", "pandas", "pillow"),
    "server": ("mlflow", "prefect", "optuna", "sqlalchemy"),
}
_INSTALL = 'pip install "oncoshift[platform]"'
_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;]+)")
_SHOWN = 5

_GB = 1e9
_FULL_GB, _SCARCE_GB = 1.0, 5.0


def check_packages(profile: Profile) -> Iterator[Finding]:
    """Check that the packages of a profile are installed."""
    for name in _PACKAGES[profile]:
        found = _find_version(name)
        if found is None:
            yield Finding(name, "error", "absent", _INSTALL)
        else:
            yield Finding(name, "ok", found)


def check_pins(project: Path) -> Iterator[Finding]:
    """Compare installed versions with the project's constraints.txt."""
    file = project / "constraints.txt"
    if not file.is_file():
        return
    pins = [match.groups() for line in file.read_text(encoding="utf-8").splitlines() if (match := _PIN.match(line))]
    other = [
        f"{name} {found} instead of {pin}" for name, pin in pins if (found := _find_version(name)) not in (None, pin)
    ]
    if other:
        shown = ", ".join(other[:_SHOWN]) + (f" and {len(other) - _SHOWN} more" if len(other) > _SHOWN else "")
        yield Finding(
            "versions", "warning", f"not what constraints.txt names, and tests ran with: {shown}",
            'pip install -c constraints.txt -e ".[platform]"',
        )  # fmt: skip
    else:
        yield Finding("versions", "ok", f"as constraints.txt names them ({len(pins)})")


def _find_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_device(scene: Scene) -> Iterator[Finding]:
    """Check that a GPU can be used where there is one, or where the settings ask for one."""
    import torch

    cores = f"{os.cpu_count()} cores"
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        memory = f"{free / _GB:.0f} of {total / _GB:.0f} GB free"
        yield Finding("device", "ok", f"{torch.cuda.get_device_name()} ({memory}), {cores}")
        return
    yield Finding("device", "ok", f"CPU, {cores}")
    if scene.settings.train.device == "cuda":
        yield Finding("gpu", "error", "train.device is cuda, and torch finds no GPU", "set auto, or see `nvidia-smi`")
    elif shutil.which("nvidia-smi"):
        yield Finding(
            "gpu", "warning", "nvidia-smi is here, but torch finds no GPU", "see `nvidia-smi`, and torch's build"
        )


def check_programs(scene: Scene) -> Iterator[Finding]:
    """Check programs that are called: git, and PostgreSQL's tools where they are needed."""
    git = shutil.which("git")
    yield Finding("git", "ok", git or "absent; runs will not name a commit")
    if any(url.startswith("postgresql") for url in (scene.tracking, scene.studies)) and not shutil.which("pg_dump"):
        yield Finding("pg_dump", "warning", "absent, and `oncoshift backup` needs it", "apt install postgresql-client")


def check_disk(scene: Scene) -> Iterator[Finding]:
    """Check that there is room below the project."""
    free = shutil.disk_usage(scene.project).free / _GB
    words = f"{free:.1f} GB free in {scene.project}"
    remedy = "`oncoshift gc` lists what nothing needs any more"
    if free < _FULL_GB:
        yield Finding("disk", "error", words, remedy)
    elif free < _SCARCE_GB:
        yield Finding("disk", "warning", words, remedy)
    else:
        yield Finding("disk", "ok", words)
