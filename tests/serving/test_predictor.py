"""The predictor gives the classifier's own probabilities, and a reason for each broken image."""

from __future__ import annotations

import base64
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.tiny_tiles import tissue

from oncoshift.files import sha256_file
from oncoshift.serving.classifier import EnsembleClassifier, TileClassifier, normalise
from oncoshift.serving.config import ServedConfig
from oncoshift.serving.eager import EagerNetwork
from oncoshift.serving.images import resize
from oncoshift.serving.predictor import TilePredictor
from oncoshift.serving.stain import LabStatistics, StainReference, fit_reference, normalizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.registry.folder import Package


REFERENCE = StainReference("reinhard", LabStatistics((70.0, 15.0, -10.0), (12.0, 6.0, 5.0)))


def png(tile: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(tile).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def predictor(package: Package, classifier: TileClassifier) -> TilePredictor:
    return TilePredictor(package.config, EagerNetwork(classifier, "cpu"))


def own_probabilities(classifier: TileClassifier, tiles: list[NDArray[np.uint8]]) -> list[float]:
    with torch.no_grad():
        logits = classifier(normalise(torch.from_numpy(np.stack(tiles))))
    return torch.softmax(logits, dim=1)[:, 1].tolist()


def test_probabilities_are_the_classifiers_own(
    predictor: TilePredictor, classifier: TileClassifier, tiles: NDArray[np.uint8]
) -> None:
    expected = own_probabilities(classifier, [resize(tile, 32) for tile in tiles])
    outcomes = predictor.predict(list(tiles))
    assert [outcome.probability for outcome in outcomes] == pytest.approx(expected, abs=1e-6)
    assert max(expected) - min(expected) > 1e-3
    assert [outcome.label for outcome in outcomes] == ["malignant" if p >= 0.5 else "benign" for p in expected]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_batch_does_not_change_the_outcome(
    predictor: TilePredictor, tiles: NDArray[np.uint8], batch_size: int
) -> None:
    whole = [outcome.probability for outcome in predictor.predict(list(tiles))]
    parts = [outcome.probability for outcome in predictor.predict(list(tiles), batch_size)]
    assert parts == pytest.approx(whole, abs=1e-6)


def test_stain_normalisation_is_done_after_resizing_as_in_training(
    reinhard_package: Package, classifier: TileClassifier, tiles: NDArray[np.uint8]
) -> None:
    reference = reinhard_package.config.reference
    assert reference is not None
    prepared = [normalizer(reference)(resize(tile, 32)).image for tile in tiles]
    outcomes = TilePredictor(reinhard_package.config, EagerNetwork(classifier, "cpu")).predict(
        [png(tile) for tile in tiles]
    )
    expected = own_probabilities(classifier, prepared)
    assert [outcome.probability for outcome in outcomes] == pytest.approx(expected, abs=1e-6)
    plain = own_probabilities(classifier, [resize(tile, 32) for tile in tiles])
    assert np.abs(np.subtract(expected, plain)).max() > 1e-3


def test_an_image_in_every_form_gives_the_same(predictor: TilePredictor, tiles: NDArray[np.uint8]) -> None:
    data = png(tiles[0])
    wrapped = base64.encodebytes(data).decode()
    forms = [tiles[0], data, bytearray(data), memoryview(data), wrapped, wrapped.replace("\n", ""), tiles[0].tolist()]
    assert "\n" in wrapped.strip()
    assert {outcome.error for outcome in predictor.predict(forms)} == {None}
    assert len({outcome.probability for outcome in predictor.predict(forms, batch_size=1)}) == 1


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (b"not an image", "12 bytes"),
        (None, "got NoneType"),
        (float("nan"), "got float"),
        ("not base64!", "not base64"),
        ("bm8=", "2 bytes"),
        (np.zeros((8, 8), np.uint8), "[8, 8]"),
        (np.zeros((8, 8, 3), np.float32), "float32"),
        ([[[0, 0, 256]]], "from 0 to 255"),
        ([[0, 0], [0]], "not an [H, W, 3] array"),
        ([], "from 0 to 255"),
    ],
)
def test_a_broken_image_says_why_and_costs_no_other(
    predictor: TilePredictor, tiles: NDArray[np.uint8], broken: object, words: str
) -> None:
    first, bad, last = predictor.predict([tiles[0], broken, tiles[1]])
    alone = predictor.predict([tiles[0], tiles[1]])
    assert bad.probability is None
    assert bad.label is None
    assert words in str(bad.error)
    assert [first.probability, last.probability] == pytest.approx([each.probability for each in alone], abs=1e-6)


def test_a_truncated_image_is_an_error(predictor: TilePredictor, tiles: NDArray[np.uint8]) -> None:
    (outcome,) = predictor.predict([png(tiles[0])[:-200]])
    assert outcome.probability is None
    assert outcome.error


def test_broken_weights_do_not_pass_for_benign(package: Package, tiles: NDArray[np.uint8]) -> None:
    classifier = TileClassifier("resnet18", 16, 0.5)
    with torch.no_grad():
        classifier.head.bias.fill_(torch.nan)
    (outcome,) = TilePredictor(package.config, EagerNetwork(classifier, "cpu")).predict([tiles[0]])
    assert (outcome.probability, outcome.label) == (None, None)
    assert outcome.error == "the model gave no finite probability"


def test_the_threshold_decides_the_label(
    package: Package, classifier: TileClassifier, tiles: NDArray[np.uint8]
) -> None:
    labels = {}
    for threshold in (0.0, 1.0):
        predictor = TilePredictor(replace(package.config, threshold=threshold), EagerNetwork(classifier, "cpu"))
        labels[threshold] = {result.label for result in predictor.predict(list(tiles))}
    assert labels == {0.0: {"malignant"}, 1.0: {"benign"}}


@pytest.mark.parametrize("threshold", [50, -0.1, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(
    predictor: TilePredictor, tiles: NDArray[np.uint8], threshold: float
) -> None:
    with pytest.raises(ValueError, match="must be a probability, from 0 to 1"):
        predictor.predict(list(tiles), threshold=threshold)


def test_temperature_divides_the_logits(
    package: Package, classifier: TileClassifier, tiles: NDArray[np.uint8], predictor: TilePredictor
) -> None:
    cooled = TilePredictor(replace(package.config, temperature=4.0), EagerNetwork(classifier, "cpu"))
    plain, calibrated = (
        np.array([result.probability for result in each.predict(list(tiles))], np.float64)
        for each in (predictor, cooled)
    )
    np.testing.assert_allclose(np.log(calibrated / (1 - calibrated)), np.log(plain / (1 - plain)) / 4, rtol=1e-5)
    with pytest.raises(ValueError, match="temperature 0"):
        replace(package.config, temperature=0.0)


def test_no_images_and_no_batch(predictor: TilePredictor) -> None:
    assert predictor.predict([]) == []
    with pytest.raises(ValueError, match="batch_size 0"):
        predictor.predict([], 0)


def test_the_config_survives_writing_and_reading(package: Package, reinhard_package: Package) -> None:
    for config in (package.config, reinhard_package.config):
        assert ServedConfig.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="labels"):
        ServedConfig.from_json(package.config.to_json().replace("benign", "normal"))


def test_a_config_written_before_there_were_ensembles_is_read(package: Package) -> None:
    values = json.loads(package.config.to_json())
    del values["members"]
    assert ServedConfig.from_json(json.dumps(values)) == package.config


@pytest.mark.parametrize("damaged", ["model.onnx", "shift.npz"])
def test_a_file_of_which_a_bit_has_flipped_is_not_served(model_artifacts: Path, tmp_path: Path, damaged: str) -> None:
    folder = Path(shutil.copytree(model_artifacts, tmp_path / "artifacts"))
    TilePredictor.open(folder, "cpu")
    flip(folder / damaged)
    with pytest.raises(ValueError, match=rf"{damaged}: damaged: expected SHA-256 \w{{64}}, found \w{{64}}"):
        TilePredictor.open(folder, "cpu")


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_a_model_of_an_old_version_is_loaded_by_its_own_script(
    package: Package, classifier: TileClassifier, tiles: NDArray[np.uint8], tmp_path: Path
) -> None:
    """It had weights.safetensors and a config.json with `weights_sha256`, and called `load`."""
    config, weights = tmp_path / "config.json", tmp_path / "weights.safetensors"
    save_file(classifier.state_dict(), weights)
    values = json.loads(package.config.to_json())
    for new in ("files", "temperature", "um_per_pixel", "limits"):
        del values[new]
    config.write_text(json.dumps({**values, "weights_sha256": sha256_file(weights)}))
    found = TilePredictor.load(config, weights, "cpu").predict(list(tiles))
    resized = [resize(tile, 32) for tile in tiles]
    assert [each.probability for each in found] == pytest.approx(own_probabilities(classifier, resized), abs=1e-6)
    flip(weights)
    with pytest.raises(ValueError, match=r"weights\.safetensors: damaged"):
        TilePredictor.load(config, weights, "cpu")


def test_an_ensemble_says_the_mean_probability(
    package: Package, classifier: TileClassifier, tiles: NDArray[np.uint8], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    other = TileClassifier("resnet18", 16, 0.5).eval()
    (tmp_path / "config.json").write_text(replace(package.config, members=2).to_json())
    save_file(EnsembleClassifier([classifier, other]).state_dict(), tmp_path / "weights.safetensors")
    predictor = TilePredictor.load(tmp_path / "config.json", tmp_path / "weights.safetensors", "cpu")
    resized = [resize(tile, 32) for tile in tiles]
    each = [own_probabilities(member, resized) for member in (classifier, other)]
    assert np.abs(np.subtract(each[0], each[1])).max() > 0.01
    said = np.array([outcome.probability for outcome in predictor.predict(list(tiles))], np.float64)
    np.testing.assert_allclose(said, np.mean(each, 0), atol=1e-6)


def test_a_variant_and_its_reference_belong_together(package: Package) -> None:
    with pytest.raises(ValueError, match="'reinhard' with a stain reference of 'none'"):
        replace(package.config, variant="reinhard")
    with pytest.raises(ValueError, match="'macenko' with a stain reference of 'reinhard'"):
        replace(package.config, variant="macenko", reference=REFERENCE)


def test_every_variant_is_served(package: Package, classifier: TileClassifier) -> None:
    tile, *others = (tissue(seed) for seed in range(4))
    for method in ("reinhard", "macenko", "vahadane"):
        reference = fit_reference(tile, method, precision="fast")
        config = ServedConfig.from_json(replace(package.config, variant=method, reference=reference).to_json())
        predictor = TilePredictor(config, EagerNetwork(classifier, "cpu"))
        for other in others:
            image, outcome = normalizer(reference)(other)
            assert outcome == "normalised"
            np.testing.assert_array_equal(predictor.prepare(png(other)).tile, image)
            assert not np.array_equal(image, other)


def test_a_config_written_before_there_were_other_methods_is_read(reinhard_package: Package) -> None:
    values = json.loads(reinhard_package.config.to_json())
    values["reference"] = {
        "means": [70.0, 15.0, -10.0], "stds": [12.0, 6.0, 5.0], "standardize_luminosity": True
    }  # fmt: skip
    assert ServedConfig.from_json(json.dumps(values)) == reinhard_package.config


def test_a_tile_of_another_scale_is_resampled_and_the_answer_says_so(
    package: Package, classifier: TileClassifier, tiles: NDArray[np.uint8]
) -> None:
    config = replace(package.config, um_per_pixel=0.5)  # 32 pixels, 16 µm
    predictor = TilePredictor(config, EagerNetwork(classifier, "cpu"))
    tile = tiles[0]  # 40 pixels
    whole, centre = predictor.prepare(tile, 0.4), predictor.prepare(tile, 0.5)
    np.testing.assert_array_equal(whole.tile, predictor.prepare(tile).tile)
    np.testing.assert_array_equal(centre.tile, tile[4:36, 4:36])
    results = predictor.predict([tile] * 4, um_per_pixel=[None, 0.4, 0.5, 0.1])
    assert [result.scale for result in results] == [
        "not stated", "as stated", "resampled from 0.5 µm per pixel", None,
    ]  # fmt: skip
    assert (results[0].probability, results[3].probability) == (results[1].probability, None)
    assert results[2].probability != results[1].probability
    assert str(results[3].error).startswith("shows 4 µm, and the model needs 16 µm")
    unscaled = TilePredictor(package.config, EagerNetwork(classifier, "cpu"))
    assert unscaled.predict([tile], um_per_pixel=[0.1])[0].scale is None
    with pytest.raises(ValueError, match="1 scales of 2 images"):
        predictor.predict([tile, tile], um_per_pixel=[0.5])


def test_a_large_jpeg_is_resampled_from_all_its_pixels(package: Package, classifier: TileClassifier) -> None:
    config = replace(package.config, um_per_pixel=0.5)
    predictor = TilePredictor(config, EagerNetwork(classifier, "cpu"))
    large = np.zeros((400, 400, 3), np.uint8)
    large[168:232, 168:232] = 200
    buffer = io.BytesIO()
    Image.fromarray(large).save(buffer, "JPEG", quality=95)
    prepared = predictor.prepare(buffer.getvalue(), 0.25)  # the central 64 pixels are 16 µm
    assert prepared.scale == "resampled from 0.25 µm per pixel"
    assert prepared.tile.mean() > 190
