"""Checks keep real H&E and the phantom, and flag blank, blurred and other tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd
import pytest
import skimage.data
from PIL import Image
from support.tiny_tiles import tissue

from oncoshift.data.validation.checks import find_fault
from oncoshift.serving.tissue import measure, sharpness
from oncoshift.settings import IngestSettings

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LIMITS = IngestSettings()
PHOTOS = ("astronaut", "chelsea", "coffee", "colorwheel", "hubble_deep_field", "rocket", "retina", "logo")
GREY = ("brick", "camera", "coins", "grass", "moon", "page", "text", "clock", "cell")


def kind(image: NDArray[np.uint8], settings: IngestSettings = LIMITS) -> str | None:
    fault = find_fault(measure(np.ascontiguousarray(image)), settings)
    return fault.kind if fault else None


def flat(colour: tuple[int, int, int], side: int = 64) -> NDArray[np.uint8]:
    return np.full((side, side, 3), colour, np.uint8)


def textured(colour: tuple[int, int, int], side: int = 64) -> NDArray[np.uint8]:
    """Make a tile of one colour with random brightness."""
    shade = np.random.default_rng(0).uniform(0.4, 1.0, (side, side, 1))
    return (np.array(colour) * shade).astype(np.uint8)


@pytest.fixture(scope="module")
def real(shared: Path) -> list[NDArray[np.uint8]]:
    """Every 40th real tile: about 100 tiles of four organs."""
    paths = pd.read_csv(shared / "data" / "tiles.csv")["path"][::40]
    return [np.array(Image.open(shared / "data" / "tiles" / path).convert("RGB")) for path in paths]


def test_tissue_has_no_fault() -> None:
    assert [kind(tissue(seed)) for seed in range(5)] == [None] * 5


def test_every_sampled_real_tile_passes(real: list[NDArray[np.uint8]]) -> None:
    assert [kind(tile) for tile in real] == [None] * len(real)
    assert len(real) > 90


def test_real_tiles_pass_at_other_sizes(real: list[NDArray[np.uint8]]) -> None:
    for side in (96, 768):
        resized = [cv2.resize(tile, (side, side), interpolation=cv2.INTER_AREA) for tile in real[::5]]
        assert {kind(tile) for tile in resized} == {None}


def test_stain_normalised_tiles_pass(real: list[NDArray[np.uint8]]) -> None:
    staintools = pytest.importorskip("staintools")
    target = real[30]
    for method, step in (("macenko", 8), ("vahadane", 30)):
        normalizer = staintools.StainNormalizer(method=method)
        normalizer.fit(target)
        assert {kind(normalizer.transform(tile)) for tile in real[::step]} == {None}, method
    reinhard = staintools.ReinhardColorNormalizer()
    reinhard.fit(target)
    assert {kind(reinhard.transform(tile)) for tile in real[::2]} == {None}


def test_most_blurred_tiles_are_flagged(real: list[NDArray[np.uint8]]) -> None:
    found = [kind(cv2.GaussianBlur(tile, (0, 0), 4.0)) for tile in real]
    assert found.count("blurred") > 0.85 * len(real)


@pytest.mark.parametrize("name", PHOTOS)
def test_photos_are_not_he(name: str) -> None:
    assert kind(getattr(skimage.data, name)()[..., :3]) == "not_he"


@pytest.mark.parametrize("name", GREY)
def test_grey_pictures_are_not_he(name: str) -> None:
    assert kind(np.repeat(getattr(skimage.data, name)()[..., None], 3, axis=2)) == "not_he"


def test_a_brown_stain_is_not_he() -> None:
    assert kind(skimage.data.immunohistochemistry()) == "not_he"


@pytest.mark.parametrize(
    "colour",
    [(0, 160, 0), (40, 40, 220), (0, 0, 255), (60, 90, 150), (135, 206, 235), (200, 30, 20), (150, 100, 50)],
    ids=["green", "blue", "pure blue", "jeans", "sky", "red", "brown"],
)
def test_other_colours_are_not_he(colour: tuple[int, int, int]) -> None:
    assert kind(textured(colour)) == "not_he"


def test_blank_tiles_are_flagged() -> None:
    glass = np.random.default_rng(0).normal(240, 3, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    assert kind(glass) == "blank"
    glass[:8, :16] = tissue(0)[:8, :16]
    assert kind(glass) == "blank"
    assert kind(flat((190, 120, 170))) == "blank"


def test_black_and_white_surfaces_have_finite_measurements() -> None:
    for colour in ((0, 0, 0), (255, 255, 255)):
        measured = measure(flat(colour))
        figures = (measured.sharpness, measured.saturation, measured.stain_share, measured.hue, measured.density_red)
        assert np.isfinite(figures).all()
        assert find_fault(measured, LIMITS) is not None


def test_a_small_tile_is_named_with_its_size() -> None:
    fault = find_fault(measure(tissue(0, side=31)), LIMITS)
    assert fault is not None
    assert fault.kind == "small"
    assert "31×31 pixels" in fault.reason


def test_limits_are_settings() -> None:
    blocks = np.kron(tissue(1, side=16), np.ones((16, 16, 1), np.uint8))
    assert kind(blocks) is None
    tile = cv2.GaussianBlur(blocks, (0, 0), 6.0)
    assert kind(tile) == "blurred"
    assert kind(tile, IngestSettings(min_sharpness=0.0)) is None
    cat = skimage.data.chelsea()
    assert kind(cat, IngestSettings(min_stain_share=0.0, min_eosin_share=0.0)) is None
    assert kind(tissue(0), IngestSettings(min_tissue=0.99)) == "blank"


def test_sharpness_does_not_measure_how_strong_the_stain_is() -> None:
    gray = cv2.cvtColor(tissue(3, side=64), cv2.COLOR_RGB2GRAY)
    pale = (200 + gray.astype(np.float32) * 0.2).astype(np.uint8)
    assert sharpness(pale) == pytest.approx(sharpness(gray), rel=0.05)


def test_measuring_leaves_the_tile_as_it_was() -> None:
    tile = tissue(0, side=300)
    before = tile.copy()
    measured = measure(tile)
    assert (measured.width, measured.height) == (300, 300)
    assert (tile == before).all()


def test_an_image_of_a_few_pixels_is_measured() -> None:
    for height, width in ((1, 1), (1, 4), (4, 1), (2, 3)):
        found = measure(np.full((height, width, 3), (183, 140, 185), dtype=np.uint8))
        assert (found.width, found.height, found.stain_share) == (width, height, 1.0)
