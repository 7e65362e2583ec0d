"""OpenCV's matching and alignment in place of ours for finding copies, on the same candidates.

Ours are `copies/matching.py` (nearest descriptors, and a map that most keypoints agree on) and
`copies/registration.py` (the map refined on pixels). Each row of the table replaces one of these
steps by OpenCV's function. Tiles and truth are those of `benchmarks/leaks.py`; descriptors and
candidates are computed once and shared by all variants. Times are core seconds of the comparison.

Run: python benchmarks/leaks_opencv.py      (about five minutes)
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
from leaks import COPIED, by_organ, names

from oncoshift.copies import Pair, join_groups, pairs, verification
from oncoshift.copies.candidates import find_candidates
from oncoshift.copies.join import drop_weak_pairs
from oncoshift.copies.scratch import Scratch
from oncoshift.serving.images import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Affine = NDArray[np.float64]

NEAR = 4.0
"""Tolerance for a feature's position, pixels, as in `copies/matching.py`."""

STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 12, 1e-4)
"""Termination criteria of ECC, with as many iterations as ours may take."""


def cross_checked(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Do `find_mutual_neighbours` with cv2.BFMatcher."""
    if not len(first) or not len(second):
        return np.zeros((0, 2), np.int64)
    found = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(first, second)
    return np.array([(match.queryIdx, match.trainIdx) for match in found], np.int64).reshape(-1, 2)


def estimated_by(method: int) -> Callable[[Affine, Affine], tuple[int, Affine]]:
    """Do `fit_affine` with cv2.estimateAffine2D, seeded alike for each pair.

    cv2.estimateAffine2D ignores the features' sizes and angles.
    """

    def estimated(first: Affine, second: Affine) -> tuple[int, Affine]:
        cv2.setRNGSeed(0)
        points = np.ascontiguousarray(first[:, :2]), np.ascontiguousarray(second[:, :2])
        affine, inliers = cv2.estimateAffine2D(*points, method=method, ransacReprojThreshold=NEAR, maxIters=2000)
        return (0, np.zeros(6)) if affine is None else (int(inliers.sum()), affine.ravel())

    return estimated


def by_correlation(
    moving: NDArray[np.float32], fixed: NDArray[np.float32], start: Affine
) -> tuple[float, float, Affine]:
    """Do `align` with cv2.findTransformECC."""
    try:
        score, affine = cv2.findTransformECC(
            fixed, moving, start.reshape(2, 3).astype(np.float32), cv2.MOTION_AFFINE, STEPS, None, 1
        )
    except cv2.error:  # it does not converge
        return -1.0, 0.0, start
    rows, columns = np.indices(fixed.shape)
    places = affine @ np.stack((columns.ravel(), rows.ravel(), np.ones(fixed.size)))
    share = ((places >= 0) & (places < len(fixed) - 1)).all(axis=0).mean()
    return float(score), float(share), affine.astype(np.float64).ravel()


VARIANTS: dict[str, dict[str, Any]] = {
    "ours": {},
    "BFMatcher": {"find_mutual_neighbours": cross_checked},
    "estimateAffine2D, RANSAC": {"fit_affine": estimated_by(cv2.RANSAC)},
    "estimateAffine2D, USAC_MAGSAC": {"fit_affine": estimated_by(cv2.USAC_MAGSAC)},
    "findTransformECC": {"align": by_correlation},
}


def compared(kept: pairs._Features, chosen: NDArray[np.int64]) -> tuple[list[Pair], float]:
    """Return the accepted pairs and the core seconds of the comparison."""
    kept.verify(*chosen[0].tolist())  # compile
    started = time.process_time()
    matched = [(i, j, kept.verify(i, j)) for i, j in chosen.tolist()]
    seconds = time.process_time() - started
    found = [(Pair(i, j, match.score), match.inliers) for i, j, match in matched if match is not None]
    return drop_weak_pairs(len(kept.digests), [pair for pair, _ in found], [agree for _, agree in found]), seconds


def measure(files: Sequence[Path], tiles: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Measure each variant, and print its figures as soon as they are known."""
    kept = pairs._describe_all(
        lambda position: decode(files[position].read_bytes()), len(files), Scratch(None), lambda _done, _total: None
    )
    copies = pairs._pair_equal(kept.digests)
    used = kept.used.copy()
    used[[pair.second for pair in copies]] = 0
    chosen = find_candidates(kept.descriptors, used, Scratch(None))
    print(f"{len(files)} tiles, {len(chosen)} candidates")
    print(f"{'variant':<30} {'precision':>9} {'recall':>9} {'F1':>9} {'core s':>8}")
    figures = {}
    for variant, functions in VARIANTS.items():
        original = {name: getattr(verification, name) for name in functions}
        try:
            for name, function in functions.items():
                setattr(verification, name, function)
            found, seconds = compared(kept, chosen)
        finally:
            for name, function in original.items():
                setattr(verification, name, function)
        row = by_organ(join_groups(names(len(files)), [*copies, *found]), tiles)["all"]
        print(
            f"{variant:<30} {row['precision']:>9.4f} {row['recall']:>9.4f} {row['f1']:>9.4f} {seconds:>8.1f}",
            flush=True,
        )
        figures[variant] = row | {"seconds": round(seconds, 2)}
    return figures


def main() -> int:
    """Print a table, then the figures as one JSON object."""
    root = Path(os.environ.get("ONCOSHIFT_SHARED", "../shared")) / "data"
    if not (root / "tiles.csv").is_file():
        print(f"skipped: no {root}/tiles.csv; set ONCOSHIFT_SHARED to the folder of real tiles")
        return 0
    cv2.setNumThreads(1)
    listed = pd.read_csv(root / "tiles.csv")
    tiles = listed[listed["organ"].isin(COPIED)].reset_index(drop=True)
    figures = measure([root / "tiles" / path for path in tiles["path"]], tiles)
    print(json.dumps({"benchmark": "leaks_opencv", "figures": figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
