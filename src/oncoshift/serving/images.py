"""From an image file's bytes to RGB pixels, the same at training and at serving.

Needs NumPy and Pillow; simplejpeg for JPEG tiles, and OpenCV for colour images of 16 bits a channel.
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
from oncoshift.serving.limits import UnreadableImageError as UnreadableImageError  # where the readers are

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
"""What is read; Pillow's other formats are no tiles, and some of their readers start programs."""

_BROKEN = (
    OSError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow's readers raise on broken files."""

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
_PNG_DEPTH = 24
"""Where a PNG's header says how many bits a channel has."""

_PLAIN_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""JPEG markers that start a frame, with the image's size."""

_TELLING = frozenset({0xE1, 0xE2, 0xEE})
"""JPEG markers of Exif data, of a profile and of Adobe's colour transform: Pillow reads these."""

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings an image upright, by its Exif orientation (Exif 2.32, tag 274)."""


def read_image_file(path: Path) -> bytes:
    """Read an image file; what is no regular file, or too large for a tile, is refused before it is read.

    Raises:
        UnreadableImageError: the file cannot be opened or read, is a folder, a pipe, a socket or a device, or has more
            than `MAX_BYTES` bytes. The message leaves out the path, which the caller knows.
    """
    try:
        with open(path, "rb", opener=_open_nonblocking) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableImageError("no regular file: a pipe, a socket or a device is no image")
            check_bytes(status.st_size)
            return file.read(status.st_size)
    except OSError as error:
        raise UnreadableImageError(f"cannot read the file: {error.strerror or error}") from error


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode an image file's bytes to sRGB, uint8 [H, W, 3].

    JPEG, PNG, TIFF, BMP and WebP; of several pages the first. Turned upright by its Exif orientation; an ICC profile is
    applied; transparent becomes white; CMYK and grey become RGB; 16 bits become 8 by division by 257, rounded.

    Raises:
        UnreadableImageError: the bytes are truncated or no such image, are above a limit of `oncoshift.serving.limits`,
            or have pixels of 32 bits or in floating point.
    """
    check_structure(data)
    return _decode(data)


def resize(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize an RGB uint8 [H, W, 3] image to [side, side, 3], bilinear with antialiasing."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise UnreadableImageError(f"expected uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    if image.shape[:2] == (side, side):
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


def read_tile(data: bytes, side: int) -> NDArray[np.uint8]:
    """An image file's bytes as the tile that a classifier sees, uint8 [side, side, 3], stretched if not square.

    Where the image has `side`, this is `decode`. A larger plain JPEG is decoded at the smallest eighth of its size
    that is above `side`, which takes a quarter of the time; the filter to `side` is that of `resize` for every
    format, so that organs whose tiles come as PNG are as sharp as those that come as JPEG.

    Raises:
        UnreadableImageError: see `decode`.
    """
    check_structure(data)
    pixels = _decode_jpeg_scaled(data, side) if data[:2] == b"\xff\xd8" else None
    return resize(_decode(data) if pixels is None else pixels, side)


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
    """Without O_NONBLOCK, to open a pipe that nobody writes to takes for ever; a regular file opens as ever."""
    return os.open(path, flags | os.O_NONBLOCK)


def _open(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    deep = image.mode.startswith("I;16") or _is_deep(data, image)
    check_pixels(*image.size, len(image.getbands()) * (2 if deep else 1))
    return image


def _decode_jpeg_scaled(data: bytes, side: int) -> NDArray[np.uint8] | None:
    """A colour JPEG scaled while it is decoded; None where `decode` must see to more than that."""
    import simplejpeg

    try:
        # More than the side, so that the filter to the side always runs; scaling alone would leave a sharper tile.
        return simplejpeg.decode_jpeg(data, min_height=side + 1, min_width=side + 1) if _is_plain(data) else None
    except UnreadableImageError:
        raise
    except _BROKEN:
        return None  # `decode` mends it, or says what is wrong


def _is_plain(data: bytes) -> bool:
    """Whether a JPEG is RGB of a tile's size, upright, and without a profile.

    Pillow finds out in a tenth of a millisecond, which counts when there are many tiles; so a JPEG whose header has
    only what every JPEG has is told by its segments (ITU-T T.81, B.1 and B.2).
    """
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1] not in _TELLING:
        if data[at + 1] in _PLAIN_FRAMES:
            precision, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
            return bool(precision == 8 and channels == 3 and 0 < width * height <= MAX_PIXELS)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    with _open(data) as image:
        return image.mode == "RGB" and "icc_profile" not in image.info and _read_orientation(image) == 1


def _read_orientation(image: Image.Image) -> int:
    """The Exif orientation, 1–8; 1 where there is none, or Exif data are broken."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _BROKEN:
        return 1


def _turn_upright(pixels: Image.Image, image: Image.Image) -> Image.Image:
    """`pixels` turned by the orientation of the file they come from; Pillow itself has turned a TIFF."""
    turn = _TRANSPOSITIONS.get(_read_orientation(image))
    return pixels if turn is None else pixels.transpose(turn)


def _reduce_to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey pixels of 16 bits as 8; other images as they are."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # "I": Pillow before 10.3
        return _attach_profile(Image.fromarray(_to_eight(np.asarray(image, dtype=np.uint16))), image)
    if image.mode in ("I", "F"):
        kind = "floating point" if image.mode == "F" else "32-bit integers"
        raise UnreadableImageError(f"pixels are {kind}, which say not what is white; save the tile with 8 or 16 bits")
    return image


def _is_deep(data: bytes, image: Image.Image) -> bool:
    """Whether Pillow cut 16 bits a colour channel to 8, as it does without a word."""
    if image.mode not in ("RGB", "RGBA", "LA"):
        return False
    if image.format == "PNG":
        return data[_PNG_DEPTH] == 16
    bits = image.tag_v2.get(_BITS_PER_SAMPLE, ()) if image.format == "TIFF" else ()  # type: ignore[attr-defined]
    return 16 in bits


def _decode_deep_colour(data: bytes, image: Image.Image) -> Image.Image | None:
    """All 16 bits by OpenCV, rounded to 8; None where OpenCV reads something else than Pillow did."""
    try:
        import cv2
    except ImportError as error:  # its wheels need libGL, which a bare server has not
        raise UnreadableImageError(f"16 bits a colour channel need OpenCV, which cannot be loaded: {error}") from error
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
    """0–65535 to 0–255: 65535 = 255 × 257."""
    eight = np.empty(pixels.shape, np.uint8)
    for row, deep in zip(eight, pixels, strict=True):  # at once, the largest tile would take gigabytes more
        row[...] = (deep.astype(np.uint32) * 255 + 32895) >> 16  # what (deep + 128) // 257 is, without a division
    return eight


def _attach_profile(pixels: Image.Image, image: Image.Image) -> Image.Image:
    if "icc_profile" in image.info:
        pixels.info["icc_profile"] = image.info["icc_profile"]
    return pixels
