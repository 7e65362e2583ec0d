"""Limits on what an image file may demand of a decoder, checked on its structure before decoding.

A few bytes can demand minutes of work and gigabytes of memory: by endless profiles and comments, by
a hundred thousand scans over the same pixels, by millions of empty parts. Each check walks the
structure as the decoders do, so that nothing can be hidden from it, and skips what it does not
know, since a decoder refuses that.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PIXELS = 2**26
"""8,192 × 8,192; a larger image is a slide or a decompression bomb, not a tile."""

MAX_BYTES = 2**28
"""Of a file, and of its decoded pixels (256 MiB): 8,192 × 8,192 with four channels of 8 bits."""

MAX_METADATA = 2**22
"""Bytes of profiles, Exif data and comments (4 MiB); the largest ICC profiles have 3 MiB."""

MAX_PARTS = 2**16
"""Segments, chunks or strips of a file; the largest PNG from libpng has 2**15 chunks."""

MAX_SCANNED = 2**30
"""Scans of a JPEG times its pixels; a progressive JPEG usually has ten scans over all pixels."""

_JPEG_SEGMENT = re.compile(rb"\xff[\xc0-\xc7\xc9-\xcf\xd9-\xef\xfe]")
"""A marker before a segment with its length, or the end of the image (ITU-T T.81, table B.1)."""

_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_END = 0xD9
_SCAN = 0xDA

_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes per value, by field type (TIFF 6.0, section 2; BigTIFF)."""

_TILE_SIDES = frozenset({322, 323})
"""Fields with the width and height of a TIFF's internal tiles."""


class UnreadableImageError(ValueError):
    """Bytes that cannot be decoded as an image, or an array that is not a uint8 RGB image."""


def check_bytes(size: int) -> None:
    """Refuse a file of more than `MAX_BYTES`.

    Raises:
        UnreadableImageError: it is larger.
    """
    if size > MAX_BYTES:
        raise UnreadableImageError(f"{size} bytes are more than the {MAX_BYTES} of the largest tile")


def check_pixels(width: int, height: int, bytes_per_pixel: int) -> None:
    """Refuse an image of more than `MAX_PIXELS` pixels, or more than `MAX_BYTES` once decoded.

    Raises:
        UnreadableImageError: it is larger.
    """
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(f"{width}×{height} pixels are more than the {MAX_PIXELS} of the largest tile")
    if width * height * bytes_per_pixel > MAX_BYTES:
        raise UnreadableImageError(
            f"{width}×{height} pixels of {bytes_per_pixel} bytes are more than the {MAX_BYTES} bytes of the largest "
            "tile; save it with 8 bits per channel"
        )


def check_structure(data: bytes) -> None:
    """Refuse a file with more metadata, parts or scans than a tile can have, without decoding.

    Raises:
        UnreadableImageError: the file exceeds a limit, which the message names.
    """
    check_bytes(len(data))
    if data[:2] == b"\xff\xd8":
        _check_jpeg(data)
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        _check_chunks(_read_png_chunks(data), (b"IDAT",))
    elif data[:4] == b"RIFF":
        _check_chunks(_read_webp_chunks(data), (b"VP8 ", b"VP8L", b"ALPH", b"ANMF"))
    elif data[:2] in (b"II", b"MM"):
        _check_tiff(data)
    elif data[:2] == b"BM":
        _check_bmp(data)


def _check_jpeg(data: bytes) -> None:
    at, parts, scans, pixels = 2, 0, 0, 0
    while found := _JPEG_SEGMENT.search(data, at, len(data) if scans else MAX_METADATA):
        marker, start = data[found.end() - 1], found.end()
        parts += 1
        if marker in _FRAMES and len(data) >= start + 7:
            height, width = struct.unpack_from(">HH", data, start + 3)
            pixels = max(pixels, width * height)
        scans += marker == _SCAN
        _check_parts(parts)
        if marker == _END:
            if scans:  # decoders ignore what follows; before the first scan Pillow reads on
                break
            at = start
            continue
        if scans * pixels > MAX_SCANNED and scans > 1:
            raise UnreadableImageError(
                f"{scans} or more scans of {pixels} pixels each are more than the JPEG of a tile has; save it again"
            )
        at = start + int.from_bytes(data[start : start + 2], "big")
    if not scans:
        _check_metadata(len(data))


def _check_chunks(chunks: Iterator[tuple[bytes, int]], pixels: tuple[bytes, ...]) -> None:
    metadata = 0
    for parts, (name, size) in enumerate(chunks, start=1):
        _check_parts(parts)
        metadata += 0 if name in pixels else size
        _check_metadata(metadata)


def _read_png_chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    at = 8
    while at + 8 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8], size
        at += 12 + size


def _read_webp_chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    at = 12
    while at + 8 <= len(data):
        (size,) = struct.unpack_from("<I", data, at + 4)
        yield data[at : at + 4], size
        at += 8 + size + size % 2


def _check_tiff(data: bytes) -> None:
    """Check the first page's directory; the other pages are not read."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:3] == b"\x2b"
    entry = struct.Struct(order + ("HHQQ" if big else "HHII"))
    try:
        (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
        _check_parts(entries)
        start = at + (8 if big else 2)
        fields = list(entry.iter_unpack(data[start : start + entries * entry.size]))
    except (struct.error, OverflowError):
        return  # truncated, which the decoder reports
    _check_metadata(sum(_TIFF_SIZES.get(kind, 1) * count for _, kind, count, _ in fields))
    _check_parts(max((count for _, kind, count, _ in fields if _TIFF_SIZES.get(kind, 1) > 1), default=0))
    # A value of two bytes is stored at the start of the field's four (eight) bytes.
    shift = (48 if big else 16) if order == ">" else 0
    sides = {tag: value >> shift if kind == 3 else value for tag, kind, _, value in fields if tag in _TILE_SIDES}
    check_pixels(sides.get(322, 1), sides.get(323, 1), 1)


def _check_bmp(data: bytes) -> None:
    """Limit run-length encoded BMPs, which Pillow decodes in a Python loop."""
    compression = int.from_bytes(data[30:34], "little")
    if compression in (1, 2) and len(data) > MAX_METADATA:
        raise UnreadableImageError(f"{len(data)} bytes of run-length encoded BMP are too many; save the tile as PNG")


def _check_parts(parts: int) -> None:
    if parts > MAX_PARTS:
        raise UnreadableImageError(
            f"more than {MAX_PARTS} segments, chunks or strips, which no tile has; save the tile again"
        )


def _check_metadata(size: int) -> None:
    if size > MAX_METADATA:
        raise UnreadableImageError(
            f"more than {MAX_METADATA} bytes of profiles, Exif data or comments; save the tile again without them"
        )
