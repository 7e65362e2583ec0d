"""Features that identify copies of a tile: mirror-invariant SIFT descriptors and a thumbnail.

SIFT (Lowe 2004, doi:10.1023/B:VISI.0000029664.99615.94) is robust to rotation, zoom and
recolouring. Mirroring a tile reverses the rows of its histogram and negates the angles. In a basis
whose members are each even or odd under that reversal, mirroring only flips the signs of the odd
coordinates, so their absolute values give one descriptor for both views. The basis is a fixed
cosine and Fourier basis of which the lowest frequencies are kept. Nothing is fitted, so a
descriptor does not depend on the data set.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 128
"""Side in pixels at which features are detected: enough detail for nuclei, in a third of the time
that 224 takes."""

FEATURES = 60
"""Features kept per tile, the strongest ones. Descriptors and keypoints take 2.4 KB per tile, the
thumbnail 4.1 KB and the index 2.4 KB or more: 1.8 GB for 200,000 tiles, which are kept in files,
see `find_pairs`."""

DESCRIPTOR_SIZE = 32
"""Numbers in a descriptor, a byte each."""

THUMBNAIL = 64
"""Side of the thumbnail in pixels, 4 KB."""

_CONTRAST = 0.02
"""SIFT's contrast threshold, half of OpenCV's default, so that pale tissue has features, too."""

_CODE_SCALE = 255.0
"""Scale from coordinates to bytes. Those of unit histograms lie within ±0.57 on H&E, and ±0.5 fills
a byte."""

_CELLS, _ANGLES = 4, 8
"""SIFT's histogram: 4×4 cells of 8 angles."""

_FINE, _COARSE = 1.0, 8.0
"""Standard deviations of the thumbnail's band-pass filter, in its pixels. It removes noise, and
slow changes of light, which would make any two tiles that are half background look alike."""

_FLAT = 1.5
"""Standard deviation of the filtered thumbnail, in grey levels, below which a tile shows nothing
that could be recognised."""


@dataclass(frozen=True)
class TileFeatures:
    """Features of a tile.

    Attributes:
        descriptors: uint8 [FEATURES, DESCRIPTOR_SIZE]; rows from `used` on are zero.
        keypoints: float16 [FEATURES, 4]: x, y, size in pixels of a tile scaled to SIDE, and angle
            in radians.
        used: how many features the tile has.
        thumbnail: int8 [THUMBNAIL, THUMBNAIL], luminance in a band of scales.
        digest: 16 bytes, equal for equal pixels; empty for a featureless tile.
    """

    descriptors: NDArray[np.uint8]
    keypoints: NDArray[np.float16]
    used: int
    thumbnail: NDArray[np.int8]
    digest: bytes


def extract_features(image: NDArray[np.uint8]) -> TileFeatures:
    """Extract the features of a tile.

    Args:
        image: RGB, uint8 [H, W, 3], of any size; one that is not square is scaled to a square.

    Returns:
        The features; a blank tile has few or no features and an empty digest.
    """
    import cv2

    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    thumbnail = _make_thumbnail(grey)
    descriptors = np.zeros((FEATURES, DESCRIPTOR_SIZE), np.uint8)
    keypoints = np.zeros((FEATURES, 4), np.float16)
    sift = cv2.SIFT.create(nfeatures=FEATURES, contrastThreshold=_CONTRAST)
    points, histograms = sift.detectAndCompute(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), None)
    used = 0
    if histograms is not None:
        order = sorted(range(len(points)), key=lambda i: _rank(points[i]))[:FEATURES]
        used = len(order)
        descriptors[:used] = encode_histograms(histograms[order])
        keypoints[:used] = [(*points[i].pt, points[i].size, np.deg2rad(points[i].angle)) for i in order]
    digest = b"" if thumbnail.std() < _FLAT else _hash_pixels(image)
    return TileFeatures(descriptors, keypoints, used, thumbnail, digest)


def encode_histograms(histograms: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Encode SIFT histograms [N, 128] as mirror-invariant descriptors.

    Returns:
        uint8 [N, DESCRIPTOR_SIZE].
    """
    # The root of a histogram of sum 1 has length 1 (RootSIFT, Arandjelović and Zisserman 2012).
    unit = np.sqrt(histograms / np.maximum(histograms.sum(axis=1, keepdims=True), 1e-6))
    basis, odd = _build_basis()
    coordinates = unit @ basis.T
    coordinates[:, odd] = np.abs(coordinates[:, odd])
    descriptors: NDArray[np.uint8] = np.clip(np.rint(coordinates * _CODE_SCALE + 128.0), 0, 255).astype(np.uint8)
    return descriptors


def _rank(point: Any) -> tuple[float, ...]:
    return (-point.response, point.pt[0], point.pt[1], point.size, point.angle)


def _make_thumbnail(grey: NDArray[np.uint8]) -> NDArray[np.int8]:
    import cv2

    small = cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float32)
    band = cv2.GaussianBlur(small, (0, 0), _FINE) - cv2.GaussianBlur(small, (0, 0), _COARSE)
    return np.asarray(np.clip(np.rint(band), -127, 127), dtype=np.int8)


def _hash_pixels(image: NDArray[np.uint8]) -> bytes:
    state = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    state.update(np.ascontiguousarray(image).data)
    return state.digest()


@cache
def _build_basis() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Build rows [DESCRIPTOR_SIZE, 128] over (row, column, angle), and say which are odd.

    The rows are orthonormal, lowest frequencies first.
    """
    cell = np.arange(_CELLS) + 0.5
    cosines = [np.cos(np.pi * cell * k / _CELLS) for k in range(_CELLS)]
    turns = 2 * np.pi * np.arange(_ANGLES) / _ANGLES
    waves = [(0, False, np.ones(_ANGLES))]
    for k in range(1, _ANGLES // 2 + 1):
        waves.append((k, False, np.cos(k * turns)))
        if k < _ANGLES // 2:
            waves.append((k, True, np.sin(k * turns)))
    members = []
    for row in range(_CELLS):
        for column in range(_CELLS):
            for k, is_sine, wave in waves:
                member = np.einsum("r,c,a->rca", cosines[row], cosines[column], wave).ravel()
                odd = (row % 2 == 1) != is_sine
                members.append((row**2 + column**2 + k**2, odd, member / np.linalg.norm(member)))
    # The constant comes first and is dropped: it hardly differs between histograms of equal sum.
    kept = sorted(members, key=lambda member: member[0])[1 : DESCRIPTOR_SIZE + 1]
    basis = np.array([member for _, _, member in kept], dtype=np.float32)
    return basis, np.array([odd for _, odd, _ in kept])
