"""Decoding of an image file's bytes to RGB pixels, the same in training and in serving.

Needs NumPy and Pillow; simplejpeg for JPEG tiles, and OpenCV for colour images of 16 bits per
channel.
"""

from __future__ import annotations

import io
import os
import stat
import struct
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from oncoshift.serving.colour import to_srgb
from oncoshift.serving.limits import MAX_PIXELS, check_bytes, check_pixels, check_structure
from oncoshift.serving.limits import UnreadableImageError as UnreadableImageError  # re-exported for callers of `decode`

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
"""Formats that are read. Others of Pillow's are not used for tiles, and some start programs."""

_BROKEN = (
    OSError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""Exceptions of Pillow's readers on broken files."""

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
_PNG_DEPTH = 24
"""Offset of the bits per channel in a PNG's header."""

_PLAIN_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""JPEG markers of the frame header, which holds the image's size."""

_NEED_PILLOW = frozenset({0xE1, 0xE2, 0xEE})
"""JPEG markers of Exif data, ICC profile and Adobe's colour transform, which Pillow must read."""

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that turns an image upright, by its Exif orientation (Exif 2.32, tag 274)."""


def read_image_file(path: Path) -> bytes:
    """Read an image file, after checking that it is a regular file of at most `MAX_BYTES`.

    Raises:
        UnreadableImageError: the file cannot be opened or read; is a folder, pipe, socket or
            device; or is too large. The message omits the path, which the caller knows.
    """
    try:
        with open(path, "rb", opener=_open_nonblocking) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableImageError(
                    "not a regular file: a pipe, a socket or a device cannot be read as an image"
                )
            check_bytes(status.st_size)
            return file.read(status.st_size)
    except OSError as error:
        raise UnreadableImageError(f"cannot read the file: {error.strerror or error}") from error


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode an image file's bytes to sRGB, uint8 [H, W, 3].

    Reads JPEG, PNG, TIFF, BMP and WebP, and of several pages the first. The Exif orientation and an
    ICC profile are applied; transparent pixels become white; CMYK and grey become RGB; 16 bits
    become 8 by division by 257, rounded.

    Raises:
        UnreadableImageError: the bytes are truncated or no image of these formats, exceed a limit
            of `oncoshift.serving.limits`, or have pixels of 32 bits or in floating point.
    """
    check_structure(data)
    return _decode(data)


def check_array(image: NDArray[np.uint8]) -> None:
    """Refuse an array that is no RGB image.

    Raises:
        UnreadableImageError: it is not uint8 [H, W, 3], or it has no pixels.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise UnreadableImageError(f"expected uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")


def resize(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize an RGB uint8 [H, W, 3] image to [side, side, 3], bilinear with antialiasing."""
    check_array(image)
    if image.shape[:2] == (side, side):
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


def read_tile(data: bytes, side: int) -> NDArray[np.uint8]:
    """Decode an image file's bytes to a tile of the classifier's size, uint8 [side, side, 3].

    An image that is not square is stretched. Every format is resized by `resize`, so that PNG and
    JPEG tiles are equally sharp.

    Raises:
        UnreadableImageError: see `decode`.
    """
    return resize(read_pixels(data, side), side)


def read_pixels(data: bytes, side: int) -> NDArray[np.uint8]:
    """Decode an image file's bytes to at least `side`, or its own size, RGB uint8 [H, W, 3].

    A plain JPEG larger than `side` is decoded at the smallest eighth of its size above `side`,
    which takes a quarter of the time.

    Raises:
        UnreadableImageError: see `decode`.
    """
    check_structure(data)
    pixels = _decode_jpeg_scaled(data, side) if data[:2] == b"\xff\xd8" else None
    return _decode(data) if pixels is None else pixels


def _decode(data: bytes) -> NDArray[np.uint8]:
    try:
        with _open(data) as image:
            image.load()
            pixels = _decode_deep_colour(data, image) if _is_deep(data, image) else None
            upright = _turn_upright(_reduce_to_eight_bits(image) if pixels is None else pixels, image)
            return np.asarray(to_srgb(upright))
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        # Pillow's own message holds a memory address, so two runs would report differently.
        raise UnreadableImageError(
            f"{len(data)} bytes are no image in a known format ({', '.join(FORMATS)}, 8 or 16 bits)"
        ) from None
    except _BROKEN as error:
        raise UnreadableImageError(f"cannot decode image of {len(data)} bytes: {error}") from error


def _open_nonblocking(path: str, flags: int) -> int:
    """Open without blocking: opening a pipe that nobody writes to would never return."""
    return os.open(path, flags | os.O_NONBLOCK)


def _open(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    deep = image.mode.startswith("I;16") or _is_deep(data, image)
    check_pixels(*image.size, len(image.getbands()) * (2 if deep else 1))
    return image


def _decode_jpeg_scaled(data: bytes, side: int) -> NDArray[np.uint8] | None:
    """Decode a plain colour JPEG at reduced size; None if it is not plain and needs `decode`."""
    import simplejpeg

    try:
        # More than the side, so that the filter to the side always runs; scaling alone would leave
        # a sharper tile.
        return simplejpeg.decode_jpeg(data, min_height=side + 1, min_width=side + 1) if _is_plain(data) else None
    except UnreadableImageError:
        raise
    except _BROKEN:
        return None  # `decode` may still read it, or says what is wrong


def _is_plain(data: bytes) -> bool:
    """Return whether a JPEG is RGB of at most `MAX_PIXELS`, upright, and without a profile.

    The segments of the header are read first (ITU-T T.81, B.1 and B.2): asking Pillow takes 0.1 ms,
    which counts with many tiles, so it is asked only if there are segments that it must interpret.
    """
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1] not in _NEED_PILLOW:
        if data[at + 1] in _PLAIN_FRAMES:
            precision, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
            return bool(precision == 8 and channels == 3 and 0 < width * height <= MAX_PIXELS)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    with _open(data) as image:
        return image.mode == "RGB" and "icc_profile" not in image.info and _read_orientation(image) == 1


def _read_orientation(image: Image.Image) -> int:
    """Read the Exif orientation, 1–8; 1 if there is none or the Exif data are broken."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _BROKEN:
        return 1


def _turn_upright(pixels: Image.Image, image: Image.Image) -> Image.Image:
    """Turn `pixels` by their file's orientation; Pillow has already turned a TIFF."""
    turn = _TRANSPOSITIONS.get(_read_orientation(image))
    return pixels if turn is None else pixels.transpose(turn)


def _reduce_to_eight_bits(image: Image.Image) -> Image.Image:
    """Convert grey pixels of 16 bits to 8; return other images unchanged."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # "I": Pillow before 10.3
        return _attach_profile(Image.fromarray(_to_eight(np.asarray(image, dtype=np.uint16))), image)
    if image.mode in ("I", "F"):
        kind = "floating point" if image.mode == "F" else "32-bit integers"
        raise UnreadableImageError(f"pixels are {kind}, whose white is undefined; save the tile with 8 or 16 bits")
    return image


def _is_deep(data: bytes, image: Image.Image) -> bool:
    """Return whether Pillow silently reduced 16 bits per colour channel to 8."""
    if image.mode not in ("RGB", "RGBA", "LA"):
        return False
    if image.format == "PNG":
        return data[_PNG_DEPTH] == 16
    bits = image.tag_v2.get(_BITS_PER_SAMPLE, ()) if image.format == "TIFF" else ()  # type: ignore[attr-defined]
    return 16 in bits


def _decode_deep_colour(data: bytes, image: Image.Image) -> Image.Image | None:
    """Read all 16 bits by OpenCV, rounded to 8; None if OpenCV's reading differs from Pillow's."""
    try:
        import cv2
    except ImportError as error:  # its wheels need libGL, which a bare server lacks
        raise UnreadableImageError(
            f"16 bits per colour channel need OpenCV, which cannot be loaded: {error}"
        ) from error
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if pixels is None or pixels.dtype != np.uint16 or pixels.shape[:2] != (image.height, image.width):
        return None
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        return None
    order = [2, 1, 0, 3][: pixels.shape[2]]
    return _attach_profile(Image.fromarray(_to_eight(pixels)[:, :, order]), image)


def _to_eight(pixels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Round 0–65535 to 0–255 (65535 = 255 × 257)."""
    eight = np.empty(pixels.shape, np.uint8)
    for row, deep in zip(eight, pixels, strict=True):  # by rows: the whole of the largest tile would take gigabytes
        row[...] = (deep.astype(np.uint32) * 255 + 32895) >> 16  # (deep + 128) // 257 without a division
    return eight


def _attach_profile(pixels: Image.Image, image: Image.Image) -> Image.Image:
    if "icc_profile" in image.info:
        pixels.info["icc_profile"] = image.info["icc_profile"]
    return pixels
