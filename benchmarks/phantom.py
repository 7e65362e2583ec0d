"""How fast the phantom is written, against the PNG encoding alone as the lower bound.

Run: python benchmarks/phantom.py
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from pathlib import Path

from PIL import Image

from oncoshift.phantom import write_phantom
from oncoshift.phantom.write import COMPRESSION
from oncoshift.settings import PhantomSettings

CASES = {64: 8, 224: 2}
"""Tile size → tiles in a group."""


def measure(size: int, tiles_per_group: int) -> dict[str, float]:
    """Time one core's writing of four organs, and the encoding of what was written."""
    settings = PhantomSettings(tile_size=size, groups_per_class=5, tiles_per_group=tiles_per_group)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "phantom"
        started = time.process_time()
        write_phantom(settings, root)
        writing = time.process_time() - started
        files = sorted(root.rglob("*.png"))
        encoding, encoded = _encode(files)
    tiles = len(files) / 2
    return {
        "tiles_per_second": round(tiles / writing, 1),
        "png_limit_tiles_per_second": round(tiles / encoding, 1),
        "png_share": round(encoding / writing, 3),
        "kib_per_tile": round(encoded / tiles / 1024, 1),
    }


def _encode(files: list[Path]) -> tuple[float, int]:
    """Encode images and masks in memory at the writer's level; return CPU seconds and bytes."""
    images = []
    for file in files:
        with Image.open(file) as image:
            image.load()
            images.append(image.copy())
    encoded = 0
    started = time.process_time()
    for picture in images:
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG", compress_level=COMPRESSION)
        encoded += buffer.tell()
    return time.process_time() - started, encoded


def main() -> None:
    """Print a table, then the figures as one JSON object."""
    figures = {f"{size}px": measure(size, tiles) for size, tiles in CASES.items()}
    print(f"{'size':>6} {'tiles/s a core':>15} {'PNG alone':>10} {'PNG share':>10} {'KiB/tile':>9}")
    for size, row in figures.items():
        print(f"{size:>6} " + "{:>15} {:>10} {:>10} {:>9}".format(*row.values()))
    print(json.dumps({"benchmark": "phantom", "figures": figures}))


if __name__ == "__main__":
    main()
