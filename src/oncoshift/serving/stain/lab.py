"""Conversion of RGB to 8-bit LAB and back, equal to OpenCV's to the bit, by tables and integers.

OpenCV computes both directions in fixed point from tables of the sRGB curve and of CIE's f
(modules/imgproc, color_lab.cpp: RGB2Lab_b, Lab2RGBinteger), and staintools builds on it. The tables
are made here, so that a served model does not depend on the version of OpenCV; a test compares all
2²⁴ colours in both directions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.serving.stain.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WHITE = np.array([0.950456, 1.0, 1.088754])
"""XYZ of the white point D65."""

_RGB_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_XYZ_TO_RGB = np.array(
    [[3.240479, -1.53715, -0.498535], [-0.969256, 1.875991, 0.041556], [0.055648, -0.204043, 1.057311]]
)
_BASE = 1 << 14
_LOWEST = -8145
"""The least argument of the table `CUBE`."""


def _linear(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _encoded(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055)


def _cube_root_table() -> NDArray[np.int32]:
    x = np.arange(256 * 3 // 2 * 8) / (255 * 8)
    f = np.where(x < 216 / 24389, x * 841 / 108 + 16 / 116, np.cbrt(x))
    # OpenCV first rounds to single precision, which turns two entries into ties.
    return np.rint((32768 * f).astype(np.float32)).astype(np.int32)


def _lightness_table() -> NDArray[np.int32]:
    """Tabulate Y and f(Y) of an 8-bit L, [256, 2]."""
    level = np.arange(256)
    f = (level * 100 / 255 + 16) / 116
    dark = level <= 20
    y = np.where(dark, _BASE * level * 180 / (17 * 29**3), _BASE * f**3)
    f = np.where(dark, _BASE * (16 / 116 + level * 5 / (51 * 29)), _BASE * f)
    return np.ascontiguousarray(np.stack([np.rint(y), np.rint(f)], axis=1).astype(np.int32))


def _cube_table() -> NDArray[np.int32]:
    i = np.arange(_LOWEST, _BASE * 9 // 4 + _LOWEST, dtype=np.int64)
    # Integer division truncates towards zero in C and rounds down in NumPy.
    low = np.sign(i) * (np.abs(i) * 108 // 841) - _BASE * 16 // 116 * 108 // 841
    return np.where(i <= 3390, low, i * i // _BASE * i // _BASE).astype(np.int32)


LINEAR = np.rint(255 * 8 * _linear(np.arange(256) / 255)).astype(np.int32)
"""Linear light of 0–255, int32 [256], 0–2040."""

TO_XYZ = np.rint(4096 * _RGB_TO_XYZ / _WHITE[:, None]).astype(np.int32)
"""Linear RGB to X, Y, Z relative to white, int32 [3, 3]; each row adds up to 4096."""

CUBE_ROOT = _cube_root_table()
"""CIE's f of X, Y or Z in 0–3071 (2040 is white), times 2¹⁵."""

LIGHTNESS = _lightness_table()
"""Y and f(Y) of an 8-bit L, both times 2¹⁴, int32 [256, 2]."""

CUBE = _cube_table()
"""The inverse of CIE's f, both times 2¹⁴; the first entry is that of `_LOWEST`."""

ENCODED = np.rint(255 * _encoded(np.arange(4096) / 4096)).astype(np.uint8)
"""8-bit value of linear light 0–4095."""

UNCHANGED = np.ascontiguousarray(np.tile(np.arange(256, dtype=np.uint8), (3, 1)))
"""The identity mapping of L, a and b, uint8 [3, 256]."""

TO_RGB = np.rint(4096 * _XYZ_TO_RGB * _WHITE[None, :]).astype(np.int32)
"""X, Y, Z relative to white to linear RGB, int32 [3, 3]."""

# All numbers in the kernels have 32 bits: one 64-bit literal would halve the vector width.
_Row = tuple[np.int32, np.int32, np.int32]
_XYZ: tuple[_Row, _Row, _Row] = tuple(tuple(np.int32(v) for v in row) for row in TO_XYZ)  # type: ignore[assignment]
_RGB: tuple[_Row, _Row, _Row] = tuple(  # type: ignore[assignment]
    tuple(np.int32(v) for v in row) for row in TO_RGB
)
_BLOCK = 512
_HALF_12, _HALF_14 = np.int32(1 << 11), np.int32(1 << 13)
_LOW_16 = np.int32(0xFFFF)
_8, _12, _14, _15, _16 = np.int32(8), np.int32(12), np.int32(14), np.int32(15), np.int32(16)
_U8, _U16 = np.uint32(8), np.uint32(16)
_L_SCALE, _L_SHIFT = np.int32(296), np.int32((1 << 14) - 1_336_935)
_A_SCALE, _B_SCALE, _AB_SHIFT = np.int32(500), np.int32(200), np.int32((128 << 15) + (1 << 14))
_DARKEST, _LIGHTEST = np.int32(0), np.int32(4095)


def to_lab(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Convert RGB pixels [n, 3] to LAB.

    Returns:
        L + 2⁸ a + 2¹⁶ b of each pixel, 0–255 each, [n]; and histograms of L, a and b, [3, 256].
    """
    lab = np.empty(len(pixels), np.int32)
    return lab, _to_lab(pixels.reshape(-1), LINEAR, CUBE_ROOT, lab)


def from_lab(lab: NDArray[np.int32], mapping: NDArray[np.uint8] = UNCHANGED) -> NDArray[np.uint8]:
    """Convert LAB pixels of `to_lab` to RGB [n, 3], after mapping L, a and b by `mapping`."""
    pixels = np.empty((len(lab), 3), np.uint8)
    _from_lab(lab, mapped_terms(mapping, LIGHTNESS), CUBE, ENCODED, pixels.reshape(-1))
    return pixels


@compiled
def mapped_terms(mapping: NDArray[np.uint8], lightness: NDArray[np.int32]) -> NDArray[np.int32]:
    """Tabulate Y + 2¹⁶ f(Y) by L, f(X) − f(Y) by a, and f(Y) − f(Z) by b, int32 [3, 256].

    Args:
        mapping: applied to each value of L, a and b first, uint8 [3, 256].
        lightness: `LIGHTNESS`.
    """
    terms = np.empty((3, 256), np.int32)
    for i in range(256):
        a, b = np.int64(mapping[1, i]), np.int64(mapping[2, i])
        y, f = lightness[mapping[0, i], 0], lightness[mapping[0, i], 1] - _LOWEST
        terms[0, i] = y | (f << 16)
        terms[1, i] = ((5 * a * 53687 + 128) >> 13) - 128 * _BASE // 500
        terms[2, i] = ((b * 41943 + 16) >> 9) - 128 * _BASE // 200 + 1
    return terms


@compiled
def _to_lab(
    pixels: NDArray[np.uint8], linear: NDArray[np.int32], cube_root: NDArray[np.int32], lab: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Convert pixels [3 n] in blocks, so that arithmetic is compiled to vector instructions."""
    # Two histograms in turn: neighbours are often equal, and two additions to one count in a row
    # stall.
    counts = np.zeros((2, 3, 256), np.int32)
    light = np.empty(3 * _BLOCK, np.int32)
    x, y, z = np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.int32)
    for start in range(0, len(lab), _BLOCK):
        size = min(_BLOCK, len(lab) - start)
        block = pixels[3 * start : 3 * (start + size)]
        for j in range(len(block)):
            light[j] = linear[block[j]]
        for i in range(size):
            r, g, b = light[3 * i], light[3 * i + 1], light[3 * i + 2]
            x[i] = np.int32(r * _XYZ[0][0] + g * _XYZ[0][1] + b * _XYZ[0][2] + _HALF_12) >> _12
            y[i] = np.int32(r * _XYZ[1][0] + g * _XYZ[1][1] + b * _XYZ[1][2] + _HALF_12) >> _12
            z[i] = np.int32(r * _XYZ[2][0] + g * _XYZ[2][1] + b * _XYZ[2][2] + _HALF_12) >> _12
        for i in range(size):
            # Unsigned, because numba checks signed indices for counting from the end, which costs
            # time.
            x[i], y[i], z[i] = cube_root[np.uint32(x[i])], cube_root[np.uint32(y[i])], cube_root[np.uint32(z[i])]
        for i in range(size):
            fx, fy, fz = x[i], y[i], z[i]
            lightness = np.int32(_L_SCALE * fy + _L_SHIFT) >> _15
            a = np.int32(_A_SCALE * np.int32(fx - fy) + _AB_SHIFT) >> _15
            b = np.int32(_B_SCALE * np.int32(fy - fz) + _AB_SHIFT) >> _15
            lab[start + i] = lightness | np.int32(a << _8) | np.int32(b << _16)
        for i in range(start, start + size):
            packed, turn = np.uint32(lab[i]), np.uint32(i & 1)
            counts[turn, 0, np.uint8(packed)] += 1
            counts[turn, 1, np.uint8(packed >> _U8)] += 1
            counts[turn, 2, np.uint8(packed >> _U16)] += 1
    total: NDArray[np.int64] = counts[0].astype(np.int64) + counts[1]
    return total


@compiled
def _from_lab(
    lab: NDArray[np.int32],
    terms: NDArray[np.int32],
    cube: NDArray[np.int32],
    encoded: NDArray[np.uint8],
    pixels: NDArray[np.uint8],
) -> None:
    """Convert to pixels [3 n], written in place."""
    light = np.empty(3 * _BLOCK, np.int32)
    x, y, z = np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.int32)
    for start in range(0, len(lab), _BLOCK):
        size = min(_BLOCK, len(lab) - start)
        for i in range(size):
            packed = np.uint32(lab[start + i])
            lightness = terms[0, np.uint8(packed)]
            f = lightness >> _16
            x[i] = cube[np.uint32(f + terms[1, np.uint8(packed >> _U8)])]
            y[i] = lightness & _LOW_16
            z[i] = cube[np.uint32(f - terms[2, np.uint8(packed >> _U16)])]
        for i in range(size):
            r, g, b = x[i], y[i], z[i]
            red = np.int32(r * _RGB[0][0] + g * _RGB[0][1] + b * _RGB[0][2] + _HALF_14) >> _14
            green = np.int32(r * _RGB[1][0] + g * _RGB[1][1] + b * _RGB[1][2] + _HALF_14) >> _14
            blue = np.int32(r * _RGB[2][0] + g * _RGB[2][1] + b * _RGB[2][2] + _HALF_14) >> _14
            light[3 * i] = min(max(red, _DARKEST), _LIGHTEST)
            light[3 * i + 1] = min(max(green, _DARKEST), _LIGHTEST)
            light[3 * i + 2] = min(max(blue, _DARKEST), _LIGHTEST)
        block = pixels[3 * start : 3 * (start + size)]
        for j in range(len(block)):
            block[j] = encoded[np.uint32(light[j])]
