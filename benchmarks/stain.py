"""Stain normalisation on real tiles: speed and agreement with staintools and torchstain.

Every library runs on one thread; they take turns over all tiles, and a figure is the median over
tiles of the least CPU time over repeats. Then ours runs alone on two threads, by wall-clock time.

staintools' Reinhard takes half the time once something in the process has freed a large array
(torch does), because glibc then keeps memory that it returned before. So its ratio is measured
twice: `reinhard_ratio` in a process with nothing else in it, like one that makes packs, and
`reinhard_beside_torch_ratio` in this one.

Run: python benchmarks/stain.py [--quick]
torchstain is left out unless installed with `pip install -e .[bench]`. Tiles come from
ONCOSHIFT_SHARED (default ../shared).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import staintools

from oncoshift.serving.images import decode
from oncoshift.serving.stain import Precision, StainMethod, StainReference, fit_reference, normalizer
from oncoshift.serving.stain.density import DENSITY, LUMINANCE, densities
from oncoshift.serving.stain.vahadane import stain_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    Tile = NDArray[np.uint8]
    Transform = Callable[[Tile], Tile]

METHODS: tuple[StainMethod, ...] = ("reinhard", "macenko", "vahadane")
PRECISIONS: tuple[Precision, ...] = ("exact", "fast")
PEER, EXACT, FAST, GROUP = "staintools", "ours, exact", "ours, fast", "ours, group's fit"
AGAIN = "staintools, again"
"""A second run of staintools' Vahadane, which stops by the clock and so differs from itself."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def real_tiles(each: int) -> list[Tile]:
    """Read `each` tiles of each organ, evenly spaced in their list; uint8 [224, 224, 3]."""
    folder = Path(os.environ.get("ONCOSHIFT_SHARED", "../shared")) / "data"
    with (folder / "tiles.csv").open() as file:
        rows = list(csv.DictReader(file))
    tiles = []
    for organ in sorted({row["organ"] for row in rows}):
        paths = [row["path"] for row in rows if row["organ"] == organ]
        picked = paths[:: len(paths) // each][:each]
        tiles += [decode((folder / "tiles" / path).read_bytes()) for path in picked]
    return tiles


def staintools_of(method: str, reference: Tile, *, standardize: bool) -> Transform:
    """Fit staintools."""

    def prepare(tile: Tile) -> Tile:
        tile = tile.copy()  # staintools writes into its argument
        return staintools.LuminosityStandardizer.standardize(tile) if standardize else tile

    peer = staintools.ReinhardColorNormalizer() if method == "reinhard" else staintools.StainNormalizer(method)
    peer.fit(prepare(reference))
    return lambda tile: peer.transform(prepare(tile))


def torchstain_of(method: str, backend: str, reference: Tile) -> Transform | None:
    """Fit torchstain; return None where it is not installed or lacks the method."""
    try:
        import torch
        import torchstain
    except ImportError:
        return None
    torch.set_num_threads(1)
    make = {"reinhard": torchstain.normalizers.ReinhardNormalizer, "macenko": torchstain.normalizers.MacenkoNormalizer}
    if method not in make:
        return None
    peer = make[method](backend=backend)

    def given(tile: Tile) -> object:
        return torch.from_numpy(tile.copy()).permute(2, 0, 1) if backend == "torch" else tile.copy()

    def transform(tile: Tile) -> Tile:
        found = peer.normalize(given(tile)) if method == "reinhard" else peer.normalize(I=given(tile), stains=False)[0]
        return np.asarray(found).astype(np.uint8)

    peer.fit(given(reference))
    return transform


def ours_of(reference: StainReference, tiles: list[Tile] | None = None) -> Transform:
    """Fit ours: to each tile by itself, or to all of `tiles` together."""
    normalize = normalizer(reference)
    if tiles is None:
        return lambda tile: normalize(tile).image
    fit = normalize.fit_group(tiles)
    assert not isinstance(fit, str)
    return lambda tile: normalize.apply(tile, fit).image


def measure(
    transforms: dict[str, Transform], tiles: list[Tile], repeats: dict[str, int]
) -> tuple[dict[str, float], dict[str, list[Tile | None]]]:
    """Return CPU milliseconds a tile and the results, None where a library raised."""
    best = {name: np.full(len(tiles), np.inf) for name in transforms}
    results: dict[str, list[Tile | None]] = {name: [None] * len(tiles) for name in transforms}
    for turn in range(max(repeats.values())):
        for name in [name for name in transforms if turn < repeats[name]]:
            for position, tile in enumerate(tiles):
                started = time.process_time()
                try:
                    results[name][position] = transforms[name](tile)
                except Exception:  # noqa: S112 - a peer that raises on a tile is a finding, and printed as one
                    continue
                best[name][position] = min(best[name][position], time.process_time() - started)
    return {name: 1000 * float(np.median(times[np.isfinite(times)])) for name, times in best.items()}, results


def likeness(results: Iterable[Tile | None], expected: Iterable[Tile | None]) -> tuple[float, float, int]:
    """Return mean and maximum of the tiles' mean absolute differences, and the missing tiles."""
    pairs = list(zip(results, expected, strict=True))
    found = [float(np.abs(a.astype(int) - b).mean()) for a, b in pairs if a is not None and b is not None]
    return float(np.mean(found)), max(found), len(pairs) - len(found)


def compare(
    method: StainMethod, reference: Tile, tiles: list[Tile], *, standardize: bool, quick: bool
) -> dict[str, float]:
    """Print a method's rows and return its figures."""
    exact, fast = (
        fit_reference(reference, method, standardize_luminosity=standardize, precision=precision)
        for precision in PRECISIONS
    )
    transforms: dict[str, Transform | None] = {PEER: staintools_of(method, reference, standardize=standardize)}
    if not standardize:
        for backend in ("numpy", "torch"):
            transforms[f"torchstain, {backend}"] = torchstain_of(method, backend, reference)
    if method == "vahadane":
        transforms[AGAIN] = staintools_of(method, reference, standardize=standardize)
    transforms |= {EXACT: ours_of(exact), FAST: ours_of(fast), GROUP: ours_of(exact, tiles)}
    present = {name: transform for name, transform in transforms.items() if transform is not None}
    for transform in present.values():
        transform(tiles[0])  # compile, and fill caches
    repeats = dict.fromkeys(present, 3 if quick else 9)
    if method == "vahadane":
        repeats |= {PEER: 1, AGAIN: 1}
    times, results = measure(present, tiles, repeats)
    label = method + (", luminosity" if standardize else "")
    for name in present:
        mean, most, missing = likeness(results[name], results[PEER])
        alike = "" if name in (PEER, GROUP) else f"{mean:>10.4f} {most:>10.4f}"
        failed = f"  raised on {missing} of {len(tiles)} tiles" if missing else ""
        print(f"{label:<22} {name:<19} {times[name]:>10.3f} {times[PEER] / times[name]:>8.1f} {alike}{failed}")
    key = method + ("_luminosity" if standardize else "")
    figures = {f"{key}_ms": times[EXACT], f"{key}_staintools_ms": times[PEER]}
    for name, suffix in ((EXACT, ""), (FAST, "_fast")):
        mean, most, _ = likeness(results[name], results[PEER])
        figures |= {f"{key}{suffix}_ratio": times[PEER] / times[name]}
        figures |= {f"{key}{suffix}_mad": mean, f"{key}{suffix}_mad_max": most}
    if AGAIN in results:
        figures[f"{key}_staintools_own_mad"] = likeness(results[AGAIN], results[PEER])[0]
    return figures | {f"{key}_group_ratio": times[PEER] / times[GROUP]}


def fresh_reinhard(tiles: list[Tile], reference: Tile, repeats: int) -> dict[str, float]:
    """Time Reinhard against staintools in a process where nothing else has been loaded."""
    exact = fit_reference(reference, "reinhard", standardize_luminosity=False)
    transforms = {PEER: staintools_of("reinhard", reference, standardize=False), EXACT: ours_of(exact)}
    times, _ = measure(transforms, tiles, dict.fromkeys(transforms, repeats))
    return {"reinhard_fresh_ratio": times[PEER] / times[EXACT], "reinhard_fresh_staintools_ms": times[PEER]}


def large(reference: Tile, tiles: list[Tile]) -> dict[str, float]:
    """Compare fast with exact mode where fast samples: mosaics of four tiles of an organ, 448²."""
    mosaics = []
    for start in range(0, len(tiles) - 3, 4):
        a, b, c, d = tiles[start : start + 4]
        mosaics.append(np.concatenate([np.concatenate([a, b], axis=1), np.concatenate([c, d], axis=1)]))
    figures: dict[str, float] = {}
    for method in METHODS[1:]:
        exact, fast = (
            ours_of(fit_reference(reference, method, standardize_luminosity=False, precision=precision))
            for precision in PRECISIONS
        )
        times, results = measure({EXACT: exact, FAST: fast}, mosaics, {EXACT: 5, FAST: 5})
        mean, most, _ = likeness(results[FAST], results[EXACT])
        print(
            f"{method}, 448²: exact {times[EXACT]:.2f} ms, fast {times[FAST]:.2f} ms, apart {mean:.3f}, most {most:.3f}"
        )
        figures |= {f"{method}_448_fast_speedup": times[EXACT] / times[FAST], f"{method}_448_fast_mad": mean}
    return figures


def angles(tiles: list[Tile]) -> dict[str, float]:
    """Measure Vahadane's stain vectors against staintools', and its own between runs, degrees."""
    extract = staintools.stain_extraction.vahadane_stain_extractor.VahadaneStainExtractor.get_stain_matrix
    apart, own = [], []
    for tile in tiles:
        first, second = extract(tile.copy()), extract(tile.copy())
        ours = stain_vectors(densities(tile.reshape(-1, 3), 1, DENSITY, LUMINANCE)[1])
        assert ours is not None
        apart.append(_degrees(ours, first))
        own.append(_degrees(first, second))
    print(
        f"Vahadane's vectors, degrees to staintools: median {np.median(apart):.3f}, most {np.max(apart):.3f}; "
        f"staintools to itself: median {np.median(own):.3f}, most {np.max(own):.3f}"
    )
    return {
        "vahadane_degrees": float(np.median(apart)),
        "vahadane_degrees_max": float(np.max(apart)),
        "vahadane_degrees_own": float(np.median(own)),
    }


def _degrees(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(np.degrees(np.arccos(np.clip((first * second).sum(axis=1), -1, 1))).max())


def threads(reference: Tile, tiles: list[Tile], repeats: int) -> dict[str, float]:
    """Measure our tiles a second on one thread and on two, by wall-clock time."""
    figures: dict[str, float] = {}
    many = tiles * 8
    for method in METHODS:
        normalize = normalizer(fit_reference(reference, method, standardize_luminosity=False))
        rates = []
        for workers in (1, 2):
            # A few large chunks, so that handing tiles over does not affect the time.
            chunks = [(normalize, many[start :: 2 * workers]) for start in range(2 * workers)]
            taken = []
            with ThreadPoolExecutor(workers) as pool:
                for _ in range(repeats):
                    started = time.perf_counter()
                    list(pool.map(_work, chunks))
                    taken.append(time.perf_counter() - started)
            rates.append(len(many) / min(taken))
        print(f"{method}: {rates[0]:.0f} tiles/s on one thread, {rates[1]:.0f} on two (× {rates[1] / rates[0]:.2f})")
        figures |= {f"{method}_tiles_per_second_2": rates[1], f"{method}_scaling_2": rates[1] / rates[0]}
    return figures


def _work(chunk: tuple[Transform, list[Tile]]) -> None:
    normalize, tiles = chunk
    for tile in tiles:
        normalize(tile)


def main() -> None:
    """Print a table, then the figures as one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few tiles: does it run at all")
    parser.add_argument("--fresh", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # the libraries read it when they are loaded
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=os.environ | ONE_THREAD, check=False).returncode)
    cv2.setNumThreads(1)
    quick = arguments.quick
    tiles = real_tiles(4 if quick else 16)
    few = tiles[:: len(tiles) // (2 if quick else 16)]
    reference = tiles[len(tiles) * 3 // 8]
    if arguments.fresh:
        print(json.dumps(fresh_reinhard(tiles, reference, 3 if quick else 9)))
        return
    fresh = subprocess.run([sys.executable, *sys.argv, "--fresh"], capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(fresh.stdout)
    if torchstain_of("macenko", "numpy", reference) is None:
        print("torchstain is not installed: pip install -e .[bench]")
    print(f"{'method':<22} {'library':<19} {'CPU ms':>10} {'ratio':>8} {'|Δ| mean':>10} {'|Δ| most':>10}")
    for standardize in (False, True):
        for method in METHODS:
            some = few if method == "vahadane" else tiles
            figures |= compare(method, reference, some, standardize=standardize, quick=quick)
    print(
        f"reinhard in a fresh process: staintools {figures['reinhard_fresh_staintools_ms']:.3f} ms, "
        f"ratio {figures['reinhard_fresh_ratio']:.1f}"
    )
    figures["reinhard_beside_torch_ratio"] = figures["reinhard_ratio"]
    figures["reinhard_ratio"] = figures.pop("reinhard_fresh_ratio")
    figures |= large(reference, tiles) | angles(few) | threads(reference, tiles, 2 if quick else 7)
    rounded = {name: float(f"{value:.4g}") for name, value in figures.items()}
    print(json.dumps({"benchmark": "stain", "figures": rounded}))


if __name__ == "__main__":
    main()
