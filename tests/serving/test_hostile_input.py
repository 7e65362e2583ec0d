"""Whatever is sent to a model, each row gets an answer or an error, and the others theirs."""

from __future__ import annotations

import base64
import io
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.tiny_tiles import tissue

from oncoshift.serving.config import ServedConfig
from oncoshift.serving.network import NetworkOutput
from oncoshift.serving.predictor import TilePredictor, TileResult
from oncoshift.serving.tissue import TissueLimits

if TYPE_CHECKING:
    from numpy.typing import NDArray

LIMITS = TissueLimits(16, 0.05, 0.0, 0.02, 0.5, 0.05)
CONFIG = ServedConfig("oncoshift-kidney", "kidney", ("lung",), "resnet18", 16, 0.5, tile_size=32, limits=LIMITS)
MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
    "TIFF": ("RGB", "CMYK", "F", "I;16", "LAB"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("P",),
}
ORIENTATION = 0x0112


def brightness(tiles: NDArray[np.uint8]) -> NetworkOutput:
    """A network that needs no weights: the darker, the more malignant."""
    assert tiles.dtype == np.uint8
    assert tiles.shape[1:] == (32, 32, 3)
    mean = tiles.reshape(len(tiles), -1).mean(axis=1, dtype=np.float32) / 255
    return NetworkOutput(np.stack([mean, 1 - mean], axis=1), mean[:, None])


PREDICTOR = TilePredictor(CONFIG, brightness)


@st.composite
def image_files(draw: st.DrawFn) -> bytes:
    """An image file of any format, mode, size, orientation and number of frames, whole or not."""
    kind = draw(st.sampled_from(sorted(MODES)))
    mode = draw(st.sampled_from(MODES[kind]))
    width, height = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    frames = [
        Image.fromarray(tissue(seed, 70)).resize((width, height)).convert("RGB")
        for seed in range(draw(st.integers(1, 3)))
    ]
    converted = [_convert(frame, mode) for frame in frames]
    options: dict[str, Any] = {}
    if kind in ("JPEG", "WEBP", "PNG"):
        exif = Image.Exif()
        exif[ORIENTATION] = draw(st.integers(0, 65535))
        options["exif"] = exif
    if kind in ("GIF", "TIFF", "WEBP", "PNG") and len(converted) > 1 and mode != "I;16":
        options |= {"save_all": True, "append_images": converted[1:]}
    buffer = io.BytesIO()
    converted[0].save(buffer, kind, **options)
    data = bytearray(buffer.getvalue())
    for position in draw(st.lists(st.integers(0, len(data) - 1), max_size=3)):
        data[position] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)
    if mode == "LAB":
        return Image.frombytes("LAB", image.size, image.tobytes())
    return image.convert(mode)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-300, 300) | st.floats() | st.text(max_size=20) | st.binary(max_size=60),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=12,
)


def check(results: list[TileResult], good: TileResult) -> None:
    """Every row is an answer or an error, and the good tiles around are judged as alone."""
    assert results[0] == results[-1] == good
    for each in results:
        if each.error is not None:
            assert each == TileResult(error=each.error)
            assert "\n" not in each.error
        else:
            assert each.probability is not None
            assert 0 <= each.probability <= 1
            assert (each.label is None) == (each.abstain is not None)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(image_files(), min_size=1, max_size=3))
def test_any_image_file_is_answered(files: list[bytes]) -> None:
    good = tissue(0)
    (alone,) = PREDICTOR.predict([good])
    check(PREDICTOR.predict([good, *files, *(base64.b64encode(file).decode() for file in files), good]), alone)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(values, max_size=4))
def test_any_value_is_answered(cells: list[object]) -> None:
    good = tissue(0)
    (alone,) = PREDICTOR.predict([good])
    check(PREDICTOR.predict([good, *cells, good]), alone)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([np.uint8, np.int16, np.float32, np.bool_, object]),
    st.lists(st.integers(0, 5), max_size=5).map(tuple),
)
def test_any_array_is_answered(dtype: type, shape: tuple[int, ...]) -> None:
    (result,) = PREDICTOR.predict([np.zeros(shape, dtype)])
    assert (result.error is None) == (dtype is np.uint8 and len(shape) == 3 and shape[2] == 3 and min(shape) > 0)


@pytest.mark.parametrize("side", [3, 8192])
def test_memory_is_bounded_by_the_largest_tile(side: int) -> None:
    """A PNG of a few kilobytes and 8,192² pixels takes as much as its pixels do."""
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG")
    tracemalloc.start()
    PREDICTOR.predict([buffer.getvalue()])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20 + 12 * side * side
