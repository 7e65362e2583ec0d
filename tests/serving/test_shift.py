"""The model abstains on what is no tissue or far from its training organs, and says how far."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageDraw
from support.tiny_tiles import tissue

from oncoshift.data.validation.checks import get_limits
from oncoshift.serving.config import ServedConfig
from oncoshift.serving.network import NetworkOutput
from oncoshift.serving.predictor import TilePredictor
from oncoshift.serving.shift import NEIGHBOURS, ShiftReference
from oncoshift.settings import IngestSettings

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CONFIG = ServedConfig(
    "oncoshift-kidney", "kidney", ("lung",), "resnet18", 16, 0.5, tile_size=224, limits=get_limits(IngestSettings())
)
WIDTH = 8


def around(axis: int, count: int, seed: int = 0) -> NDArray[np.float32]:
    """Features [count, WIDTH] about one direction, as those of an organ are."""
    made = np.random.default_rng(seed).normal(0, 0.05, (count, WIDTH))
    made[:, axis] += 1
    return made.astype(np.float32)


@pytest.fixture(scope="module")
def reference() -> ShiftReference:
    """Two organs with ten groups of four tiles each."""
    features = np.concatenate([around(0, 40, 1), around(1, 40, 2)])
    groups = np.array([f"patient {number // 4}" for number in range(80)])
    return ShiftReference.fit(features, np.repeat(["kidney", "lung"], 40), groups)


def network_of(features: NDArray[np.float32]) -> TilePredictor:
    """A predictor whose network gives every tile the same features."""

    def run(tiles: NDArray[np.uint8]) -> NetworkOutput:
        return NetworkOutput(np.zeros((len(tiles), 2), np.float32), np.repeat(features, len(tiles), axis=0))

    groups = np.array([f"patient {number}" for number in range(40)])
    reference = ShiftReference.fit(around(0, 40, 1), np.repeat("kidney", 40), groups)
    return TilePredictor(CONFIG, run, reference)


def chart() -> NDArray[np.uint8]:
    image = Image.new("RGB", (224, 224), "white")
    draw = ImageDraw.Draw(image)
    for row, colour in enumerate(("red", "green", "blue", "orange", "black")):
        draw.rectangle((20, 20 + 40 * row, 60 + 30 * row, 45 + 40 * row), fill=colour)
    return np.asarray(image)


def test_tiles_of_the_training_organs_are_near_and_others_far(reference: ShiftReference) -> None:
    near = reference.measure(np.concatenate([around(0, 50, 3), around(1, 50, 4)]))
    far = reference.measure(around(2, 50, 5))
    assert np.median(near) < 1 < far.min()
    assert [reference.rank(value) for value in far.tolist()] == [100.0] * 50
    assert 20 < np.median([reference.rank(value) for value in near.tolist()]) < 80


def test_tiles_of_one_group_do_not_vouch_for_one_another() -> None:
    """Tiles of one patient are alike: beside themselves they would make every new patient far."""
    groups = np.repeat([f"patient {number}" for number in range(8)], NEIGHBOURS + 1)
    centres = around(0, 8, 6)
    features = np.repeat(centres, NEIGHBOURS + 1, axis=0) + around(0, len(groups), 7) * 1e-4
    reference = ShiftReference.fit(features, np.repeat("kidney", len(groups)), groups)
    assert reference.distances.min() > 0.1


def test_a_reference_survives_writing_and_reading(reference: ShiftReference, tmp_path: Path) -> None:
    reference.save(tmp_path / "shift.npz")
    read = ShiftReference.load(tmp_path / "shift.npz")
    features = around(1, 20, 8)
    np.testing.assert_array_equal(read.measure(features), reference.measure(features))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.full((224, 224, 3), 255, np.uint8), "blank"),
        (np.full((224, 224, 3), (230, 120, 180), np.uint8), "blank: one even surface"),
        (chart(), "not_he"),
        (np.zeros((8, 8, 3), np.uint8), "small"),
    ],
)
def test_what_is_no_tissue_gets_a_reason_and_no_label(image: NDArray[np.uint8], reason: str) -> None:
    (result,) = network_of(around(0, 1)).predict([image])
    assert result.label is None
    assert result.error is None
    assert str(result.abstain).startswith(reason)
    assert result.probability == 0.5  # which the gate judges


def test_tissue_far_from_the_training_organs_gets_a_reason_that_names_them() -> None:
    tile = tissue(0, 224)
    (near,), (far,) = (network_of(around(axis, 1)).predict([tile]) for axis in (0, 3))
    assert (near.label, near.abstain) == ("malignant", None)
    assert (far.label, far.shift) == (None, 100.0)
    assert "far: " in str(far.abstain)
    assert "training tiles of lung, kidney" in str(far.abstain)


def test_limits_see_a_large_jpeg_as_ingest_does() -> None:
    """Decoded to little more than the tile's side, a blurred image would look sharp."""
    blurred = Image.fromarray(tissue(0, 96)).resize((1536, 1536), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    blurred.save(buffer, "JPEG", quality=95)
    small = TilePredictor(
        ServedConfig("oncoshift-kidney", "kidney", ("lung",), "resnet18", 16, 0.5, tile_size=32, limits=CONFIG.limits),
        lambda tiles: NetworkOutput(np.zeros((len(tiles), 2), np.float32), np.ones((len(tiles), 1), np.float32)),
    )
    whole = np.asarray(Image.open(io.BytesIO(buffer.getvalue())))
    assert small.predict([buffer.getvalue()])[0].abstain == small.predict([whole])[0].abstain


def test_real_lung_tiles_are_judged(shared: Path) -> None:
    files = sorted((shared / "data" / "tiles" / "lung").rglob("*.jpg"))[::40]
    results = network_of(around(0, 1)).predict([file.read_bytes() for file in files])
    assert len(results) > 30
    assert [result.abstain for result in results] == [None] * len(results)


@pytest.mark.parametrize("lung", [["one slide"] * 40, ["one slide"] * 38 + ["another"] * 2], ids=["one", "nearly one"])
@pytest.mark.parametrize("kidney", [["patient"] * 40, [f"patient {number // 4}" for number in range(40)]])
def test_an_organ_of_one_slide_does_not_make_everything_near(kidney: list[str], lung: list[str]) -> None:
    features = np.concatenate([around(0, 40, 1), around(1, 40, 2)])
    reference = ShiftReference.fit(features, np.repeat(["kidney", "lung"], 40), np.array([*kidney, *lung]))
    assert np.median(reference.measure(around(0, 50, 3))) < 1
    assert reference.measure(around(2, 50, 5)).min() > 1.5
