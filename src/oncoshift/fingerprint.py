"""Hashes that say whether something has changed: the code that decides a result, and any plain value."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from oncoshift.files import sha256_file

_PACKAGE = Path(__file__).resolve().parent
TRAINING_CODE = ("data", "methods", "models", "selection", "serving", "training")
"""Packages that decide a trained weight; a change elsewhere does not make a model old."""

TILE_CODE = (
    "data/packs/tiles.py",
    "data/stain",
    "serving/colour.py",
    "serving/images.py",
    "serving/limits.py",
    "serving/stain",
)
"""What decides a pixel of a pack."""

TILE_LIBRARIES = ("numba", "numpy", "opencv-python", "pillow", "simplejpeg")
"""Their versions decide how a pixel is rounded."""

STAGE_CODE = {
    "ingest": ("copies", "data/groups.py", "data/ingest.py", "data/names.py", "data/source", "data/validation",
               "disjoint_sets.py", "serving/colour.py", "serving/images.py", "serving/limits.py"),
    "split": ("data/split.py", "data/split_checks.py"),
    "normalize": ("data/normalize.py", "data/packs", *TILE_CODE),
}  # fmt: skip
"""The code behind each data stage; dvc.yaml runs a stage again when it changes."""


def code_fingerprint(packages: tuple[str, ...] = TRAINING_CODE) -> str:
    """Hash of the source of some packages of oncoshift, and of torch's version."""
    import torch  # takes a second, which stages without a network need not wait for

    return _source_hash([torch.__version__], packages)


def tile_code_fingerprint() -> str:
    """Hash of the source, and of the libraries' versions, that turn a file into a tile of a pack."""
    return _source_hash(_tile_libraries(), TILE_CODE)


def stage_fingerprints() -> dict[str, str]:
    """Hash of the code behind each stage in `STAGE_CODE`."""
    libraries = _tile_libraries()
    return {stage: _source_hash(libraries, code) for stage, code in STAGE_CODE.items()}


def _tile_libraries() -> list[str]:
    return [f"{name} {version(name)}" for name in TILE_LIBRARIES]


def _source_hash(versions: list[str], packages: tuple[str, ...]) -> str:
    digest = hashlib.sha256("".join(versions).encode())
    for package in sorted(packages):
        path = _PACKAGE / package
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(_PACKAGE).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def weights_fingerprint(weights: str) -> str:
    """`model.weights`, as what it is and not where: the content of a file, or the word."""
    path = Path(weights)
    return sha256_file(path) if path.is_file() else weights


def value_fingerprint(value: Any) -> str:
    """Hash of a JSON-like value; the order of keys does not count."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
