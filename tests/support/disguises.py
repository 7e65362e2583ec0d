"""Copies of a tile as found in data sets: rotated, zoomed, cropped, recoloured, re-encoded."""

from __future__ import annotations

import io
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Disguise:
    """Changes to a copy: rotation in degrees, mirroring, zoom, cropped shares, density, JPEG."""

    turn: float = 0.0
    mirror: bool = False
    zoom: float = 1.0
    crop: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    density: tuple[float, float, float] = (1.0, 1.0, 1.0)
    quality: int | None = None


def disguised(tile: np.ndarray, how: Disguise) -> np.ndarray:
    """Make a copy of `tile`, uint8 [S, S, 3]; rotation fills corners with mirrored tissue."""
    side = tile.shape[0]
    turned = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), how.turn, how.zoom)
    image = cv2.warpAffine(tile, turned, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    image = image[:, ::-1] if how.mirror else image
    left, top, right, bottom = (round(share * side) for share in how.crop)
    image = cv2.resize(np.ascontiguousarray(image[top : side - bottom, left : side - right]), (side, side))
    dense = -np.log((image + 1.0) / 256.0) * np.array(how.density)
    image = np.clip(np.rint(256.0 * np.exp(-dense) - 1.0), 0, 255).astype(np.uint8)
    if how.quality is None:
        return image
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=how.quality)
    return np.asarray(Image.open(buffer))


def random_disguise(seed: int) -> Disguise:
    """Draw all changes at once.

    Any angle, zoom up to 1.3, up to 10 % off each edge, ±10 % of density, JPEG quality 50 to 90.
    """
    rng = np.random.default_rng(seed)
    return Disguise(
        turn=rng.uniform(0, 360),
        mirror=bool(rng.integers(2)),
        zoom=rng.uniform(1.0, 1.3),
        crop=tuple(rng.uniform(0, 0.1, 4)),
        density=tuple(rng.uniform(0.9, 1.1, 3)),
        quality=int(rng.integers(50, 91)),
    )
