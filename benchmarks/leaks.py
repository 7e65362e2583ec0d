"""How well copies of one original are found on real tiles, how fast, and beside a perceptual hash.

The truth is the column `group` of LC25000's lung and colon tiles. The method sees only pixels, and
its constants are the same for all organs. Breast, kidney and phantom tiles have no known copies:
pairs found there across groups are false positives, those within a group are fields of one patient.

Run: python benchmarks/leaks.py      (less than three minutes on two cores)
It reads real tiles from ONCOSHIFT_SHARED (default ../shared).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd

from oncoshift.copies import Pair, find_pairs, join_groups
from oncoshift.copies.candidates import find_candidates
from oncoshift.copies.features import FEATURES, extract_features
from oncoshift.copies.scratch import Scratch
from oncoshift.phantom import render_phantom_tile
from oncoshift.serving.images import decode
from oncoshift.settings import PhantomSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LIMIT_MINUTES = 5.0
"""Minutes allowed for 10,000 tiles on two cores."""

SEARCHED = (4_000, 16_000, 32_000)
"""Numbers of synthetic tiles at which the search is timed."""

COPIED = ("lung", "colon")
NOT_COPIED = ("breast", "kidney")


def names(count: int) -> list[str]:
    """Name one group for each tile."""
    return [f"{position:07}" for position in range(count)]


def measures(found: Sequence[str], truth: Sequence[str]) -> dict[str, float]:
    """Compute precision, recall and F1 over all pairs of tiles."""
    table = pd.DataFrame({"found": found, "truth": truth})
    both, predicted, true = (
        int(sum(size * (size - 1) // 2 for size in table.groupby(columns).size()))
        for columns in (["found", "truth"], ["found"], ["truth"])
    )
    return {
        "precision": round(both / max(predicted, 1), 4),
        "recall": round(both / max(true, 1), 4),
        "f1": round(2 * both / max(predicted + true, 1), 4),
    }


def by_organ(found: Sequence[str], tiles: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Compute the measures over all tiles and for each organ."""
    named = tiles.assign(found=list(found))
    parts = {"all": named, **{organ: named[named["organ"] == organ] for organ in COPIED}}
    return {name: measures(part["found"].tolist(), part["group"].tolist()) for name, part in parts.items()}


def hashes(image: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Compute 64-bit DCT hashes (Zauner 2010) of the eight views of a square tile, uint64 [8]."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    views = [np.rot90(view, turn) for view in (small, small[:, ::-1]) for turn in range(4)]
    low = [cv2.dct(np.ascontiguousarray(view))[:8, :8].ravel() for view in views]
    return np.array([np.packbits(block > np.median(block)).view(np.uint64)[0] for block in low])


def hashed_pairs(files: Sequence[Path]) -> tuple[NDArray[np.uint8], float]:
    """Return each pair's least Hamming distance over views, uint8 [N, N], and the seconds taken."""
    started = time.perf_counter()
    views = np.array([hashes(decode(file.read_bytes())) for file in files])
    least = np.full((len(files), len(files)), 64, np.uint8)
    for view in range(views.shape[1]):
        for row in range(len(files)):
            distances = np.bitwise_count(views[row, 0] ^ views[:, view]).astype(np.uint8)
            np.minimum(least[row], distances, out=least[row])
    return least, time.perf_counter() - started


def best_hash(files: Sequence[Path], tiles: pd.DataFrame) -> tuple[dict[str, dict[str, float]], float, int]:
    """Score the transitively joined hash at its best threshold, chosen with the truth known."""
    least, seconds = hashed_pairs(files)
    best: dict[str, dict[str, float]] = {"all": {"f1": -1.0}}
    chosen = 0
    for threshold in range(0, 17, 2):
        ones, others = np.nonzero(np.triu(least <= threshold, 1))
        pairs = [Pair(int(one), int(other), 1.0) for one, other in zip(ones, others, strict=True)]
        reached = by_organ(join_groups(names(len(files)), pairs), tiles)
        if reached["all"]["f1"] > best["all"]["f1"]:
            best, chosen = reached, threshold
    return best, seconds, chosen


def false_joins(images: Sequence[Path] | Sequence[NDArray[np.uint8]], groups: Sequence[str]) -> dict[str, int]:
    """Count the tiles, and the pairs found across and within groups."""

    def read(position: int) -> NDArray[np.uint8]:
        image = images[position]
        return decode(image.read_bytes()) if isinstance(image, Path) else image

    pairs = find_pairs(read, len(images))
    across = sum(groups[pair.first] != groups[pair.second] for pair in pairs)
    return {"tiles": len(images), "across groups": across, "within groups": len(pairs) - across}


def made_up(features: NDArray[np.uint8], count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Make codes of `count` tiles from real features; the second half share a third of the first's.

    Noise of 6 levels keeps tiles that draw the same feature as far apart as different tiles are;
    noise of 5 levels brings a copy's features as near as those that survive a crop and a rotation.
    """
    rng = np.random.default_rng(0)

    def noisy(descriptors: NDArray[np.uint8], level: float) -> NDArray[np.uint8]:
        moved = descriptors + level * rng.standard_normal(descriptors.shape, np.float32)
        return np.clip(np.rint(moved), 0, 255).astype(np.uint8)

    tiles = noisy(features[rng.integers(0, len(features), (count, FEATURES))], 6.0)
    half, shared = count // 2, FEATURES // 3
    tiles[half:, :shared] = noisy(tiles[:half, :shared], 5.0)
    return tiles, np.full(count, FEATURES, np.int64)


def search_scaling(files: Sequence[Path]) -> tuple[list[dict[str, float]], float]:
    """Time the search at each size; return a row for each, and the exponent of the total time."""
    described = [extract_features(decode(file.read_bytes())) for file in files]
    features = np.concatenate([seen.descriptors[: seen.used] for seen in described])
    rows = []
    for count in SEARCHED:
        descriptors, used = made_up(features, count)
        started = time.process_time()
        pairs = find_candidates(descriptors, used, Scratch(None))
        seconds = time.process_time() - started
        found = np.mean(np.isin(np.arange(count // 2), pairs[pairs[:, 1] - pairs[:, 0] == count // 2, 0]))
        rows.append({"tiles": count, "ms": round(1e3 * seconds / count, 3), "found": round(float(found), 4)})
    slope = np.polyfit(np.log(SEARCHED), np.log([row["tiles"] * row["ms"] for row in rows]), 1)[0]
    return rows, round(float(slope), 2)


def phantom_tiles() -> tuple[list[NDArray[np.uint8]], list[str]]:
    """Render the phantom with its default settings; return its tiles and groups."""
    settings = PhantomSettings()
    tiles, groups = [], []
    for organ in settings.organs:
        for label in (0, 1):
            for group in range(settings.groups_per_class):
                for number in range(settings.tiles_per_group):
                    tiles.append(render_phantom_tile(settings, organ, label, group, number).image)
                    groups.append(f"{organ}-{label}-{group}")
    return tiles, groups


def measure(root: Path) -> dict[str, object]:
    """Measure all figures."""
    listed = pd.read_csv(root / "tiles.csv")
    tiles = listed[listed["organ"].isin(COPIED)].reset_index(drop=True)
    files = [root / "tiles" / path for path in tiles["path"]]
    find_pairs(lambda position: decode(files[position].read_bytes()), 40)  # compile
    wall, core = time.perf_counter(), time.process_time()
    pairs = find_pairs(lambda position: decode(files[position].read_bytes()), len(files))
    wall, core = time.perf_counter() - wall, time.process_time() - core
    ours = by_organ(join_groups(names(len(files)), pairs), tiles)
    peer, peer_seconds, threshold = best_hash(files, tiles)
    elsewhere = {}
    for organ in NOT_COPIED:
        others = listed[listed["organ"] == organ]
        elsewhere[organ] = false_joins([root / "tiles" / path for path in others["path"]], others["group"].tolist())
    elsewhere["phantom"] = false_joins(*phantom_tiles())
    searches, exponent = search_scaling(files)
    return {
        "tiles": len(files),
        "leaks": ours,
        "perceptual hash": peer,
        "perceptual hash threshold": threshold,
        "error ratio to hash": round((1 - peer["all"]["f1"]) / max(1 - ours["all"]["f1"], 1e-4), 1),
        "seconds per 10,000 tiles": round(wall / len(files) * 10_000, 1),
        "core seconds per 10,000 tiles": round(core / len(files) * 10_000, 1),
        "hash seconds per 10,000 tiles": round(peer_seconds / len(files) * 10_000, 1),
        "limit seconds per 10,000 tiles": 60 * LIMIT_MINUTES,
        "search core ms a tile": searches,
        "search_exponent": exponent,
        "elsewhere": elsewhere,
    }


def main() -> int:
    """Print tables, then the figures as one JSON object."""
    root = Path(os.environ.get("ONCOSHIFT_SHARED", "../shared")) / "data"
    if not (root / "tiles.csv").is_file():
        print(f"skipped: no {root}/tiles.csv; set ONCOSHIFT_SHARED to the folder of real tiles")
        return 0
    figures = measure(root)
    print(f"{'method':<16} {'tiles of':<9} {'precision':>9} {'recall':>9} {'F1':>9}")
    for method in ("leaks", "perceptual hash"):
        for part, row in figures[method].items():  # type: ignore[attr-defined]
            print(f"{method:<16} {part:<9} {row['precision']:>9.4f} {row['recall']:>9.4f} {row['f1']:>9.4f}")
    print(f"perceptual hash: least of 8 views, best threshold {figures['perceptual hash threshold']} of 64 bits")
    for name in ("seconds", "core seconds", "limit seconds"):
        print(f"{name + ' per 10,000 tiles':<34} {figures[f'{name} per 10,000 tiles']:>8}")
    print(f"\n{'search among':<16} {'core ms a tile':>15} {'copies found':>13}")
    for row in figures["search core ms a tile"]:  # type: ignore[attr-defined]
        print(f"{row['tiles']:<16} {row['ms']:>15.2f} {row['found']:>13.4f}")
    print(f"search time grows as tiles to the power {figures['search_exponent']}")
    print(f"\n{'no known copies':<16} {'tiles':>6} {'pairs across groups':>20} {'within groups':>14}")
    for name, row in figures["elsewhere"].items():  # type: ignore[attr-defined]
        print(f"{name:<16} {row['tiles']:>6} {row['across groups']:>20} {row['within groups']:>14}")
    print(json.dumps({"benchmark": "leaks", "figures": figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
