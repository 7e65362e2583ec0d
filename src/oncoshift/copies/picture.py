"""Pictures of copies: one tile, the other, and their difference after alignment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from oncoshift.copies.features import extract_features
from oncoshift.copies.verification import verify_pair
from oncoshift.serving.images import resize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SIDE = 224
_CAPTION = 18
_GAP = 8
_COLUMNS = 2
_GREY = 128


def draw_side_by_side(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw two tiles and their aligned difference.

    Args:
        first: RGB uint8 [H, W, 3].
        second: RGB uint8 [H, W, 3].

    Returns:
        uint8 [224, 688, 3]: the two tiles and the difference, separated by white. In the difference
        grey means equal and black means outside of the first tile; it is entirely black if the two
        cannot be aligned.
    """
    one, other = resize(first, _SIDE), resize(second, _SIDE)
    affine = _find_affine(one, other)
    difference = np.zeros_like(one) if affine is None else _draw_difference(one, other, affine)
    gap = np.full((_SIDE, _GAP, 3), 255, np.uint8)
    return np.hstack((one, gap, other, gap, difference))


def draw_leaks(rows: Sequence[tuple[NDArray[np.uint8], str]]) -> NDArray[np.uint8]:
    """Lay out pictures uint8 [H, W, 3] of one size in two columns, each under its caption."""
    height, width = rows[0][0].shape[:2]
    cell_height, cell_width = height + _CAPTION, width + 4 * _GAP
    canvas = Image.new("RGB", (_COLUMNS * cell_width, cell_height * -(-len(rows) // _COLUMNS)), "white")
    draw = ImageDraw.Draw(canvas)
    for number, (picture, caption) in enumerate(rows):
        left, top = number % _COLUMNS * cell_width, number // _COLUMNS * cell_height
        draw.text((left + 4, top + 3), caption, fill="black")
        canvas.paste(Image.fromarray(picture), (left, top + _CAPTION))
    return np.asarray(canvas)


def _find_affine(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    if np.array_equal(one, other):
        return np.eye(2, 3)
    seen, seen_other = extract_features(one), extract_features(other)
    match = verify_pair(
        (seen.descriptors[: seen.used], seen_other.descriptors[: seen_other.used]),
        (seen.keypoints[: seen.used], seen_other.keypoints[: seen_other.used]),
        (seen.thumbnail, seen_other.thumbnail),
    )
    return None if match is None else match.affine


def _draw_difference(
    one: NDArray[np.uint8], other: NDArray[np.uint8], affine: NDArray[np.float64]
) -> NDArray[np.uint8]:
    import cv2

    # From fractions of a tile to pixel indices; a pixel's centre is at its index plus one half.
    in_pixels = affine.copy()
    in_pixels[:, 2] = affine[:, 2] * _SIDE + 0.5 * affine[:, :2].sum(axis=1) - 0.5
    warped = cv2.warpAffine(one, in_pixels, (_SIDE, _SIDE)).astype(np.int16)
    seen = cv2.warpAffine(np.full((_SIDE, _SIDE), 255, np.uint8), in_pixels, (_SIDE, _SIDE)) == 255
    shown = np.clip(_GREY + warped - other, 0, 255) * seen[..., None]
    return np.asarray(shown, dtype=np.uint8)
