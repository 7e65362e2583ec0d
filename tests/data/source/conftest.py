"""Fixtures of the adapters' tests: trees of real image files with the published names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image
from support.data_sets import open_and_scan
from support.tiny_tiles import tissue

from oncoshift.settings import IngestSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oncoshift.data.source.adapters.base import RawTile

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF"}


@pytest.fixture
def put() -> Callable[..., None]:
    """`put(root, *names)`, which writes small tissue tiles in the format of their extension.

    Files with other names are written as text.
    """

    def write(root: Path, *names: str) -> None:
        for seed, name in enumerate(names):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = FORMATS.get(path.suffix.lower())
            if kind is None or path.name.startswith("."):
                path.write_text("no image")
            else:
                Image.fromarray(tissue(seed)).save(path, kind)

    return write


@pytest.fixture
def found(tmp_path: Path) -> Callable[..., list[RawTile]]:
    """`found(adapter, root, **settings)`, which returns the tiles that stage ingest would open."""

    def tiles(adapter: str, root: Path, **settings: object) -> list[RawTile]:
        section = IngestSettings.model_validate({"adapter": adapter, **settings})
        return open_and_scan(section, root, tmp_path / "tiles" / "unpacked").tiles

    return tiles
