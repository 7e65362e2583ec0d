"""How fast tiles are decoded into packs and read back, against Pillow and a plain copy of memory.

Tiles are synthetic tissue at 768², as JPEG of about 75 KB, the mean size of LC25000's files; packs
are at 224².

Run: python benchmarks/packs.py            (about a minute)
     python benchmarks/packs.py --large    (also 200,000 tiles at 64², for memory; minutes, 3 GB)
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import psutil
from PIL import Image
from rich.console import Console
from rich.table import Table

from oncoshift.data.packs.make import PackRecipe, update_pack
from oncoshift.data.packs.pack import PackNormalization
from oncoshift.data.packs.tiles import FileReader, TileMaker, TileSource
from oncoshift.phantom import render_phantom_tile
from oncoshift.serving.images import decode, read_tile, resize
from oncoshift.settings import PhantomSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from oncoshift.data.packs.pack import Pack

SIDE, RAW_SIDE, DISTINCT, TILES, QUALITY = 224, 768, 24, 4800, 87


def jpegs(side: int, count: int, quality: int) -> list[bytes]:
    """Make synthetic tissue as JPEG files, 4:2:0."""
    settings = PhantomSettings(tile_size=side)
    files = []
    for number in range(count):
        tile = render_phantom_tile(settings, settings.organs[number % 4], number % 2, number % 5, number // 8)
        buffer = io.BytesIO()
        Image.fromarray(tile.image).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
        files.append(buffer.getvalue())
    return files


def write_tiles(folder: Path, images: list[bytes], count: int, first: int = 0) -> list[TileSource]:
    """Write `count` files; a few bytes behind the image make each file's content unique."""
    folder.mkdir(parents=True, exist_ok=True)
    tiles = []
    for row in range(first, first + count):
        data = images[row % len(images)] + row.to_bytes(8, "big")
        path = folder / f"{row:06d}.jpg"
        path.write_bytes(data)
        tiles.append(TileSource(row, path.name, str(row), str(path), hashlib.sha256(data).hexdigest()))
    return tiles


def best(run: Callable[[], object], repeats: int = 5) -> float:
    """Return the shortest CPU time of some runs, seconds."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        times.append(time.process_time() - started)
    return min(times)


def recipe(side: int) -> PackRecipe:
    """Return a recipe without stain normalisation."""
    return PackRecipe(PackNormalization("none"), side, "benchmark", "none", 512)


def pack(folder: Path, tiles: list[TileSource], side: int, workers: int | None) -> tuple[Pack, float]:
    """Bring a pack up to date; return it and the wall-clock seconds taken."""
    started = time.perf_counter()
    made, _ = update_pack(folder, tiles, recipe(side), TileMaker(FileReader(Path(), side)), workers)
    return made, time.perf_counter() - started


def decoding(files: list[bytes]) -> dict[str, float]:
    """Compare our decoder with Pillow's on one core: speed, and mean absolute difference."""
    ours = best(lambda: [read_tile(data, SIDE) for data in files]) / len(files)
    pillow = best(lambda: [resize(decode(data), SIDE) for data in files]) / len(files)
    apart = [np.abs(read_tile(data, SIDE).astype(int) - resize(decode(data), SIDE)).mean() for data in files]
    return {
        "jpeg_kib": round(float(np.mean([len(data) for data in files])) / 1024, 1),
        "decode_tiles_per_second_a_core": round(1 / ours),
        "pillow_tiles_per_second_a_core": round(1 / pillow),
        "decode_ratio": round(pillow / ours, 2),
        "decode_mad": round(float(np.mean(apart)), 3),
    }


def packing(folder: Path, files: list[bytes]) -> tuple[dict[str, float], Pack]:
    """Time packing: on one core, on all cores, with 1 % more tiles, and with nothing to do."""
    tiles = write_tiles(folder / "raw", files, TILES)
    some = tiles[: TILES // 3]
    os.sched_setaffinity(0, {next(iter(CORES))})
    _, alone = pack(folder / "alone", some, SIDE, 1)
    os.sched_setaffinity(0, CORES)
    made, full = pack(folder / "pack", tiles, SIDE, None)
    more = tiles + write_tiles(folder / "raw", files, TILES // 100, first=TILES)
    _, added = pack(folder / "pack", more, SIDE, None)
    made, nothing = pack(folder / "pack", more, SIDE, None)
    return {
        "pack_tiles_per_second_one_core": round(len(some) / alone),
        "pack_tiles_per_second_all_cores": round(TILES / full),
        "one_percent_more_share_of_full": round(added / full, 4),
        "nothing_new_share_of_full": round(nothing / full, 4),
    }, made


def reading(made: Pack) -> dict[str, float]:
    """Time random reads from the page cache against plain copies of as many bytes, on one core."""
    images, rng = made.images, np.random.default_rng(0)
    batches = [rng.integers(0, len(images), 64) for _ in range(40)]
    buffer = np.empty((64, SIDE, SIDE, 3), np.uint8)
    array = images[np.arange(len(images))]
    for batch in batches:
        images.read(batch, out=buffer)

    def copy() -> None:
        for batch in batches:
            for position, row in enumerate(batch.tolist()):
                buffer[position] = array[row]

    count = 64 * len(batches)
    reads = best(lambda: [images.read(batch, out=buffer) for batch in batches])
    fresh = best(lambda: [images[batch] for batch in batches])
    limit = best(copy)
    return {
        "random_reads_per_second": round(count / reads),
        "random_reads_per_second_new_array": round(count / fresh),
        "memory_copies_per_second": round(count / limit),
        "read_share_of_copy": round(limit / reads, 3),
    }


def large(folder: Path) -> dict[str, float]:
    """Pack 200,000 tiles at 64², and measure the peak memory of all processes together."""
    files = jpegs(64, 64, 85)
    tiles = write_tiles(folder / "raw", files, 200_000)
    peak, done = 0, threading.Event()
    process = psutil.Process()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.1):
            resident = process.memory_info().rss
            for child in process.children(recursive=True):
                try:
                    resident += child.memory_info().rss
                except psutil.Error:
                    continue
            peak = max(peak, resident)

    watcher = threading.Thread(target=watch)
    watcher.start()
    made, seconds = pack(folder / "pack", tiles, 64, None)
    done.set()
    watcher.join()
    assert len(made.images) == 200_000
    return {
        "large_tiles": 200_000,
        "large_peak_gib_all_processes": round(peak / 2**30, 2),
        "large_tiles_per_second": round(200_000 / seconds),
    }


def main() -> None:
    """Measure, print a table, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="also 200,000 tiles")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    files = jpegs(RAW_SIDE, DISTINCT, QUALITY)
    figures = decoding(files)
    with tempfile.TemporaryDirectory() as scratch:
        packed, made = packing(Path(scratch), files)
        figures |= packed | reading(made)
    if arguments.large:
        with tempfile.TemporaryDirectory() as scratch:
            figures |= large(Path(scratch))
    table = Table(title="packs", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:,}")
    Console().print(table)
    print(json.dumps({"benchmark": "packs", "figures": figures}))


CORES = os.sched_getaffinity(0)

if __name__ == "__main__":
    main()
