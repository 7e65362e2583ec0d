"""Hashes that say whether something has changed: the code that decides a result, and any plain value."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from oncoshift.files import sha256_file

_PACKAGE = Path(__file__).resolve().parent
TRAINING_CODE = ("data", "methods", "models", "selection", "serving", "training")
"""Packages that decide a trained weight; a change elsewhere does not make a model old."""

TILE_CODE = ("data/stain", "serving/images.py", "serving/stain")
"""What decides a pixel of a pack."""


def code_fingerprint(packages: tuple[str, ...] = TRAINING_CODE) -> str:
    """Hash of the source of some packages of oncoshift, and of torch's version."""
    import torch  # takes a second, which stages without a network need not wait for

    return _source_hash([torch.__version__], packages)


def tile_code_fingerprint() -> str:
    """Hash of the source that turns a file into a tile of a pack."""
    return _source_hash([], TILE_CODE)


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
