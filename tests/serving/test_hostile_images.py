"""Small files that would need huge memory are refused before decoding, and large tiles are read."""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from oncoshift.serving import limits
from oncoshift.serving.images import UnreadableImageError, decode, read_tile

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def encode(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int, colour: int, more: bytes = b"") -> bytes:
    """Make a PNG without pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def jpeg(segment: bytes, times: int) -> bytes:
    data = encode("JPEG")
    return data[:2] + segment * times + data[2:]


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def scans(times: int) -> bytes:
    """Make a progressive JPEG of 1,024 × 1,024 with `times` further copies of its last scan."""
    buffer = io.BytesIO()
    Image.new("RGB", (1024, 1024)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    return data[:-2] + data[data.rfind(b"\xff\xda") : -2] * times + data[-2:]


def tiff(order: str = "<", **fields: tuple[int, int, int]) -> bytes:
    """Make a TIFF of one grey pixel; `fields` are tags with type, count and value."""
    wanted = {
        256: (3, 1, 1), 257: (3, 1, 1), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 0), 277: (3, 1, 1),
        278: (3, 1, 1), 279: (4, 1, 1), **{int(tag[1:]): value for tag, value in fields.items()},
    }  # fmt: skip
    entries = b""
    for tag, (kind, count, value) in sorted(wanted.items()):
        number = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
        entries += struct.pack(order + "HHI", tag, kind, count) + number
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HIH", 42, 8, len(wanted)) + entries + bytes(4)


def webp(name: bytes, size: int) -> bytes:
    data = encode("WEBP", exif=b"Exif\0\0" + bytes(20))
    more = name + struct.pack("<I", size) + bytes(size)
    return data[:4] + struct.pack("<I", len(data) + len(more) - 8) + data[8:] + more


LARGE = limits.MAX_METADATA + 1
TOO_MUCH = {
    "16 bits a channel": (lambda: png(8192, 8192, 16, 6), "8192×8192 pixels of 8 bytes"),
    "bytes": (lambda: b"\xff\xd8" + bytes(limits.MAX_BYTES), f"{limits.MAX_BYTES + 2} bytes are more than"),
    "JPEG Exif": (lambda: jpeg(segment(0xE1, b"Exif\0\0" + bytes(65000)), 65), "bytes of profiles"),
    "JPEG profile": (lambda: jpeg(segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(65000)), 65), "bytes of profiles"),
    "JPEG filled up": (lambda: jpeg(b"\xff", LARGE), "bytes of profiles"),
    "JPEG comments": (lambda: jpeg(segment(0xFE, b""), limits.MAX_PARTS), "segments, chunks or strips"),
    "JPEG after its end": (lambda: jpeg(b"\xff\xd9" + segment(0xFE, b""), limits.MAX_PARTS), "segments, chunks"),
    "JPEG scans": (lambda: scans(1100), "1025 or more scans of 1048576 pixels"),
    "PNG Exif": (lambda: png(1, 1, 8, 2, chunk(b"eXIf", bytes(LARGE))), "bytes of profiles"),
    "PNG text": (lambda: png(1, 1, 8, 2, chunk(b"tEXt", b"k\0v") * limits.MAX_PARTS), "segments, chunks or strips"),
    "PNG empty chunks": (lambda: png(1, 1, 8, 2, chunk(b"IDAT", b"") * limits.MAX_PARTS), "segments, chunks or strips"),
    "PNG bomb in a profile": (
        lambda: png(1, 1, 8, 2, chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(10**8)))), "Decompressed data too large"
    ),
    "WebP Exif": (lambda: webp(b"EXIF", LARGE), "bytes of profiles"),
    "TIFF profile": (lambda: tiff(_34675=(7, LARGE, 8)), "bytes of profiles"),
    "TIFF profile, big-endian": (lambda: tiff(">", _34675=(7, LARGE, 8)), "bytes of profiles"),
    "TIFF strips": (lambda: tiff(_273=(4, limits.MAX_PARTS + 1, 8)), "segments, chunks or strips"),
    "TIFF tile": (lambda: tiff(_322=(3, 1, 65520), _323=(3, 1, 65520)), "65520×65520 pixels"),
    "TIFF tile, big-endian": (lambda: tiff(">", _322=(3, 1, 65520), _323=(4, 1, 65520)), "65520×65520 pixels"),
    "BMP run lengths": (
        lambda: b"BM" + bytes(28) + struct.pack("<I", 1) + bytes(LARGE), "bytes of run-length encoded BMP"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_a_file_that_asks_for_too_much_is_refused(kind: str) -> None:
    make, words = TOO_MUCH[kind]
    data = make()
    for read in (decode, lambda given: read_tile(given, 8)):
        with pytest.raises(UnreadableImageError, match=words):
            read(data)


def test_markers_inside_a_segment_are_no_scans() -> None:
    hidden = b"\xff\xda\0\2" * 2000
    np.testing.assert_array_equal(decode(jpeg(segment(0xFE, hidden), 1)), decode(encode("JPEG")))


def test_what_honest_files_have_is_within_the_limits() -> None:
    expected = decode(encode("JPEG"))
    for data in (
        jpeg(segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0" + bytes(60000)), 3),
        encode("JPEG", comment=b"c" * 60000),
    ):
        np.testing.assert_array_equal(decode(data), expected)
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        found = decode(encode(kind, icc_profile=bytes(900_000), **options))
        np.testing.assert_array_equal(found, PIXELS)
    assert decode(scans(100)).shape == (1024, 1024, 3)


@pytest.mark.parametrize("seed", range(4))
def test_what_follows_the_end_of_a_jpeg_is_not_looked_at(seed: int) -> None:
    """Cameras and microscopes append previews, which may hold the bytes of any marker."""
    tail = random.Random(seed).randbytes(2_000_000)
    np.testing.assert_array_equal(decode(encode("JPEG") + tail), decode(encode("JPEG")))


def test_the_largest_tiles_pass_the_limits() -> None:
    for channels, deep in ((3, 1), (4, 1), (1, 2)):
        limits.check_pixels(8192, 8192, channels * deep)
    with pytest.raises(UnreadableImageError, match="save it with 8 bits per channel"):
        limits.check_pixels(8192, 8192, 6)
