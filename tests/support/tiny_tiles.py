"""A tiny folder data set that every test can afford."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

ORGANS = ("lung", "colon", "kidney")


def tissue(seed: int, side: int = 32) -> np.ndarray:
    """Make a pink and violet noise tile, uint8 [side, side, 3], that can be stain-normalised."""
    rng = np.random.default_rng(seed)
    colour = np.array([[200, 120, 170], [110, 60, 140], [245, 240, 245]])[rng.integers(0, 3, (side, side))]
    return np.clip(colour + rng.normal(0, 12, colour.shape), 0, 255).astype(np.uint8)


def write_tree(root: Path, groups: int = 4, tiles: int = 2, side: int = 32) -> Path:
    """Write `root/<organ>/<label>/<group>_<number>.png` with `groups` groups a class."""
    seed = 0
    for organ in ORGANS:
        for label in ("benign", "malignant"):
            folder = root / organ / label
            folder.mkdir(parents=True)
            for group in range(groups):
                for number in range(tiles):
                    seed += 1
                    Image.fromarray(tissue(seed, side)).save(folder / f"{organ}-{label[0]}{group}_{number}.png")
    return root
