"""Every image format becomes the same upright sRGB pixels, and other files are refused by name."""

from __future__ import annotations

import csv
import io
import struct
import sys
import zlib
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

from oncoshift.serving.images import UnreadableImageError, decode, read_tile, resize
from oncoshift.serving.limits import MAX_PIXELS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP")


def smooth(height: int = 40, width: int = 56) -> NDArray[np.uint8]:
    """Draw a smooth picture without symmetry, which JPEG preserves to a few grey levels."""
    rows, columns = np.mgrid[0:height, 0:width] / [[[height]], [[width]]]
    return np.stack([40 + 180 * columns, 230 - 150 * rows, 60 + 120 * rows * columns], axis=2).astype(np.uint8)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    exact: dict[str, dict[str, object]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    image.save(buffer, kind, **{**exact.get(kind, {}), **options})
    return buffer.getvalue()


def encode_deep(pixels: NDArray[np.uint16], suffix: str) -> bytes:
    """Encode RGB or RGBA at 16 bits a channel, as OpenCV writes it."""
    order = [2, 1, 0, 3][: pixels.shape[2]]
    written, data = cv2.imencode(suffix, np.ascontiguousarray(pixels[:, :, order]))
    assert written
    return data.tobytes()


def matrix_profile(swap: bool = False) -> bytes:
    """Make a minimal ICC display profile: sRGB primaries, gamma 1; `swap` swaps red and green."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    red, green, blue = (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)
    if swap:
        red, green = green, red
    curve = b"curv" + bytes(4) + struct.pack(">I", 0)
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 7) + b"linear\0" + bytes(4 + 4 + 2 + 1 + 67),
        b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1.0, 0.8249),
        b"rXYZ": b"XYZ " + bytes(4) + fixed(*red),
        b"gXYZ": b"XYZ " + bytes(4) + fixed(*green),
        b"bXYZ": b"XYZ " + bytes(4) + fixed(*blue),
        b"rTRC": curve, b"gTRC": curve, b"bTRC": curve,
    }  # fmt: skip
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = start + len(body)
    header = struct.pack(">I4sI", size, b"lcms", 0x02100000) + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    header += fixed(0.9642, 1.0, 0.8249) + bytes(48)
    return header + table + body


@pytest.mark.parametrize("kind", [*FORMATS, "BMP"])
def test_every_format_gives_the_same_pixels(kind: str) -> None:
    found = decode(encode(Image.fromarray(smooth()), kind))
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, smooth(), atol=6 if kind == "JPEG" else 0)


def test_a_progressive_jpeg_is_read() -> None:
    data = encode(Image.fromarray(smooth()), "JPEG", progressive=True)
    np.testing.assert_allclose(read_tile(data, 32).astype(int), resize(smooth(), 32), atol=6)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(kind: str, orientation: int) -> None:
    """Exif relates stored rows and columns to the picture, so the picture is stored rotated."""
    upright = smooth()
    transposed = upright.transpose(1, 0, 2)
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: transposed, 6: np.rot90(upright), 7: transposed[::-1, ::-1], 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif)
    np.testing.assert_allclose(decode(data), upright, atol=6 if kind == "JPEG" else 0)
    np.testing.assert_allclose(read_tile(data, 24).astype(int), resize(upright, 24), atol=6)


def test_broken_exif_data_are_passed_over() -> None:
    data = encode(Image.fromarray(smooth()), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\xff\xff\xff")
    np.testing.assert_allclose(decode(data), smooth(), atol=6)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_are_rounded_not_cut(suffix: str, channels: int) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30, channels)).astype(np.uint16)
    if channels == 4:
        deep[:, :, 3] = 65535
    expected = np.round(deep[:, :, :3] / 257).astype(np.uint8)
    np.testing.assert_array_equal(decode(encode_deep(deep, suffix)), expected)
    assert (expected != deep[:, :, :3] >> 8).any()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_sixteen_bits_is_rounded(kind: str) -> None:
    deep = np.arange(0, 65536, 67, dtype=np.uint16)[:960].reshape(24, 40)
    expected = np.round(deep / 257).astype(np.uint8)
    np.testing.assert_array_equal(decode(encode(Image.fromarray(deep), kind)), np.dstack([expected] * 3))


def test_big_endian_grey_and_grey_with_transparency_of_sixteen_bits() -> None:
    deep = np.full((3, 4), 51400, np.uint16)  # 200 × 257
    tiff = encode(Image.fromarray(deep.astype(">u2")), "TIFF")
    assert tiff[:2] == b"MM"
    assert (decode(tiff) == 200).all()
    rows = np.stack([deep, np.zeros_like(deep)], axis=2).astype(">u2")  # wholly transparent
    assert (decode(_png(4, 3, colour=4, rows=rows)) == 255).all()


def _png(width: int, height: int, colour: int, rows: NDArray[np.uint16]) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sixteen_bit_colour_is_turned_upright_too(orientation: int) -> None:
    """The baseline TIFF of 16 bits gets its orientation tag by hand."""
    deep = np.random.default_rng(1).integers(0, 256, (6, 9, 3)).astype(np.uint16) * 257
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in {256: 9, 257: 6, 258: (16, 16, 16), 259: 1, 262: 2, 274: orientation, 277: 3, 278: 6}.items():
        ifd[tag] = value
    ifd.tagtype[273] = ifd.tagtype[279] = 4
    ifd[273], ifd[279] = 0, deep.nbytes  # `tobytes` adds its own length to the offset
    data = b"II*\0" + struct.pack("<I", 8) + ifd.tobytes(8) + deep.astype("<u2").tobytes()
    shallow = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray((deep // 257).astype(np.uint8)).save(shallow, "TIFF", exif=exif)
    np.testing.assert_array_equal(decode(data), decode(shallow.getvalue()))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    white = Image.new("RGB", (9, 7), "white").convert(mode)
    assert (decode(encode(white, "TIFF" if mode == "CMYK" else "PNG")) == 255).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 8))
    if mode == "P":
        palette = Image.new("P", (8, 8), 1)
        palette.putpalette([0, 0, 0, 9, 9, 9])
        palette.paste(0, (0, 0, 4, 8))
        data = encode(palette, "PNG", transparency=1)
    else:
        data = encode(image.convert(mode), "PNG")
    found = decode(data)
    assert (found[:, :4] == 0).all()
    assert (found[:, 4:] == 255).all()


def test_half_transparent_is_half_way_to_white() -> None:
    found = decode(encode(Image.new("RGBA", (4, 4), (100, 0, 200, 128)), "PNG"))
    np.testing.assert_allclose(found[0, 0], [177, 127, 227], atol=1)


def test_a_colour_key_is_transparent() -> None:
    assert (decode(encode(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", transparency=(1, 2, 3))) == 255).all()


def test_an_inverted_cmyk_jpeg_keeps_its_colours() -> None:
    data = encode(Image.fromarray(smooth()).convert("CMYK"), "JPEG")
    np.testing.assert_allclose(decode(data), smooth(), atol=8)
    np.testing.assert_array_equal(read_tile(data, 20), resize(decode(data), 20))


def test_an_icc_profile_is_converted_to_srgb() -> None:
    grey = Image.new("RGB", (8, 8), (64, 64, 64))  # linear .251 is 137 of 255 in sRGB
    for kind in FORMATS:
        found = decode(encode(grey, kind, icc_profile=matrix_profile()))
        np.testing.assert_allclose(found, 137, atol=2)
    tile = read_tile(encode(grey, "JPEG", icc_profile=matrix_profile()), 8)
    np.testing.assert_allclose(tile, 137, atol=2)
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    np.testing.assert_allclose(
        decode(encode(red, "PNG", icc_profile=matrix_profile(swap=True)))[0, 0], [0, 255, 0], atol=3
    )


def test_an_icc_profile_goes_with_transparency_and_with_sixteen_bits() -> None:
    half = Image.new("RGBA", (4, 4), (64, 64, 64, 0))
    half.paste((64, 64, 64, 255), (0, 0, 2, 4))
    found = decode(encode(half, "PNG", icc_profile=matrix_profile()))
    np.testing.assert_allclose(found[:, :2], 137, atol=2)
    assert (found[:, 2:] == 255).all()
    deep = encode_deep(np.full((4, 4, 3), 64 * 257, np.uint16), ".png")
    name = zlib.compress(matrix_profile())
    content = b"iCCP" + b"icc\0\0" + name
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    np.testing.assert_allclose(decode(deep[:33] + chunk + deep[33:]), 137, atol=2)


@pytest.mark.parametrize("profile", [b"no profile", matrix_profile()[:150], b"\0" * 128])
def test_a_broken_profile_is_passed_over(profile: bytes) -> None:
    np.testing.assert_array_equal(decode(encode(Image.fromarray(smooth()), "PNG", icc_profile=profile)), smooth())


def test_profiles_that_change_nothing_are_passed_over() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (srgb, lab):
        np.testing.assert_array_equal(decode(encode(Image.fromarray(smooth()), "PNG", icc_profile=profile)), smooth())


def test_of_several_pages_the_first_is_read() -> None:
    first, second = Image.fromarray(smooth()), Image.new("RGB", (9, 9), "black")
    data = encode(first, "TIFF", save_all=True, append_images=[second])
    np.testing.assert_array_equal(decode(data), smooth())


@pytest.mark.parametrize("kind", [*FORMATS, "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("read", [decode, lambda data: read_tile(data, 16)])
def test_truncated_files_are_refused_in_the_same_words_each_time(kind: str, share: float, read: object) -> None:
    assert callable(read)
    data = encode(Image.fromarray(smooth(200, 200)), kind)
    cut = data[: int(len(data) * share)]
    with pytest.raises(UnreadableImageError) as first:
        read(cut)
    with pytest.raises(UnreadableImageError) as second:
        read(cut)
    assert str(first.value) == str(second.value)
    assert "0x" not in str(first.value)


@pytest.mark.parametrize("data", [b"", b"text", b"\xff\xd8", b"\xff\xd8\xff\xe0", b"%PDF-1.4", b"II*\0" + b"\xff" * 40])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    for read in (decode, lambda given: read_tile(given, 32)):
        with pytest.raises(UnreadableImageError, match=f"{len(data)} bytes"):
            read(data)


def test_sixteen_bits_where_opencv_cannot_be_loaded_are_an_error_of_that_image(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_deep(np.zeros((4, 4, 3), np.uint16), ".png")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UnreadableImageError, match="need OpenCV, which cannot be loaded"):
        decode(data)


def test_sixteen_bits_cut_short_are_refused() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (50, 50, 3)).astype(np.uint16)
    for suffix in (".png", ".tiff"):
        data = encode_deep(deep, suffix)
        with pytest.raises(UnreadableImageError):
            decode(data[: len(data) // 2])


@pytest.mark.parametrize(("dtype", "words"), [(np.float32, "floating point"), (np.int32, "32-bit integers")])
def test_pixels_without_a_white_are_refused(dtype: type, words: str) -> None:
    with pytest.raises(UnreadableImageError, match=words):
        decode(encode(Image.fromarray(np.ones((8, 8), dtype)), "TIFF"))


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    empty = zlib.compress(b"\0" * 100)
    rest = struct.pack(">I", len(empty)) + b"IDAT" + empty + struct.pack(">I", zlib.crc32(b"IDAT" + empty))
    with pytest.raises(UnreadableImageError, match=f"{side}×{side} pixels"):
        decode(b"\x89PNG\r\n\x1a\n" + chunk + rest)
    huge = struct.pack(">IIBBBBB", 60000, 60000, 1, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + huge + struct.pack(">I", zlib.crc32(b"IHDR" + huge))
    with pytest.raises(UnreadableImageError, match="decompression bomb"):
        decode(b"\x89PNG\r\n\x1a\n" + chunk + rest)


def test_other_formats_are_refused_even_if_pillow_knows_them() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PPM")
    with pytest.raises(UnreadableImageError, match="no image in a known format"):
        decode(buffer.getvalue())


@pytest.mark.parametrize("size", [(40, 56), (24, 24), (23, 90), (300, 200), (16, 500)])
def test_a_tile_has_its_side_whatever_the_image(size: tuple[int, int]) -> None:
    image = Image.fromarray(smooth(*size))
    for kind in ("JPEG", "PNG"):
        tile = read_tile(encode(image, kind), 24)
        assert tile.shape == (24, 24, 3)
        np.testing.assert_allclose(tile.astype(int), resize(smooth(*size), 24), atol=8)


@pytest.mark.parametrize("side", [24, 56, 100])
def test_where_nothing_is_scaled_down_a_tile_is_what_decode_gives(side: int) -> None:
    data = encode(Image.fromarray(smooth(56, 56)[:side, :side]), "JPEG", quality=60, subsampling=2)
    if side > 24:
        np.testing.assert_array_equal(read_tile(data, side), resize(decode(data), side))
    else:
        np.testing.assert_array_equal(read_tile(data, side), decode(data))


def real_tiles(shared: Path, every: int) -> list[bytes]:
    with (shared / "data" / "tiles.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [(shared / "data" / "tiles" / row["path"]).read_bytes() for row in rows[::every]]


def test_real_tiles_at_their_own_size_are_decoded_to_the_same_bits(shared: Path) -> None:
    tiles = real_tiles(shared, 25)
    assert len(tiles) > 150
    for data in tiles:
        np.testing.assert_array_equal(read_tile(data, 224), resize(decode(data), 224))


def test_real_tiles_of_768_pixels_come_within_a_grey_level_of_the_slow_way(shared: Path) -> None:
    differences = []
    for small in real_tiles(shared, 100):
        large = Image.open(io.BytesIO(small)).convert("RGB").resize((768, 768), Image.Resampling.BICUBIC)
        data = encode(large, "JPEG", quality=87, subsampling=2)
        slow, fast = resize(decode(data), 224).astype(float), read_tile(data, 224)
        differences.append(np.abs(fast - slow).mean())
    assert max(differences) < 1.0
