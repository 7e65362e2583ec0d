"""Deletion, insertion and ROAD: on a network worked out by hand, and equal to Quantus's figures."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from oncoshift.explain.faithfulness import (
    ROAD_PERCENTAGES,
    STEPS,
    FaithfulnessTest,
    impute,
    rank_pixels,
    rank_randomly,
)
from oncoshift.explain.randomisation import compute_similarity, randomise_parameters
from oncoshift.serving.attributions import prepare_classifier
from oncoshift.serving.classifier import normalise
from oncoshift.serving.trunks import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

    from oncoshift.serving.classifier import TileClassifier

BASELINE = np.full((32, 32, 3), 255 * IMAGENET_MEAN[0])
"""Zero in the first channel, once it is normalised."""


@pytest.fixture(scope="module")
def quantus() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: ModuleType = pytest.importorskip("quantus", reason="Quantus is in the extra `bench`")
    return module


@pytest.fixture
def maps() -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(5, 32, 32)).astype(np.float32)


class Centre(nn.Module):
    """Malignant where the middle of the tile is bright."""

    def forward(self, x: Tensor) -> Tensor:
        margin = 10 * x[:, :, 12:20, 12:20].mean(dim=(1, 2, 3))
        return torch.stack([-margin, margin], dim=1)


class OneChannel(nn.Module):
    """A classifier of grey tiles with one channel: Quantus's ROAD fails on three."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        grey = x * IMAGENET_STD[0] + IMAGENET_MEAN[0]
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        logits: Tensor = self.classifier((grey - mean) / std)
        return logits


def to_grey(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(tiles[..., :1], 3, axis=3)


def score(metric: Any, classifier: nn.Module, tiles: NDArray[np.uint8], maps: NDArray[np.float32]) -> Any:
    """Let Quantus measure the same maps of grey tiles, signed as evidence for the called class."""
    x, grey = normalise(torch.from_numpy(to_grey(tiles)))[:, :1], OneChannel(classifier).eval()
    called = grey(x).argmax(1).numpy()
    evidence = (np.where(called == 1, 1, -1)[:, None, None] * maps)[:, None]
    given = {"x_batch": x.contiguous().numpy(), "y_batch": called, "a_batch": evidence}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return metric(model=grey, **given, softmax=True, channel_first=True)


def build_test(classifier: nn.Module, tiles: NDArray[np.uint8]) -> tuple[FaithfulnessTest, NDArray[np.int64]]:
    with torch.no_grad():
        called = classifier(normalise(torch.from_numpy(tiles))).argmax(1).numpy()
    return FaithfulnessTest(classifier, tiles, BASELINE, called), called


def test_the_true_map_beats_a_random_order() -> None:
    tiles = np.full((1, 32, 32, 3), 230, dtype=np.uint8)
    neutral = np.broadcast_to(255 * np.array(IMAGENET_MEAN), (32, 32, 3))
    test = FaithfulnessTest(Centre(), tiles, neutral, np.array([1]))
    truth = np.zeros((1, 32, 32), dtype=np.float32)
    truth[:, 12:20, 12:20] = 1
    good, bad = (test.run(ranks) for ranks in (rank_pixels(truth, np.array([1])), rank_randomly(truth.shape)))
    assert good.deletion[0] < 0.51 < bad.deletion[0]
    assert good.insertion[0] > bad.insertion[0]
    assert good.road[0] <= bad.road[0]
    assert rank_pixels(-truth, np.array([0])).max() == 1023


def test_evidence_for_benign_is_negative() -> None:
    values = np.array([[[3, -1], [2, 0]]], dtype=np.float32)
    assert rank_pixels(values, np.array([1])).tolist() == [[[0, 3], [1, 2]]]
    assert rank_pixels(values, np.array([0])).tolist() == [[[3, 0], [2, 1]]]


def test_deletion_is_that_of_quantus(
    quantus: ModuleType, classifier: TileClassifier, tiles: NDArray[np.uint8], maps: NDArray[np.float32]
) -> None:
    plain = prepare_classifier(classifier)
    metric = quantus.PixelFlipping(features_in_step=1024 // STEPS, perturb_baseline=0.0)
    test, called = build_test(plain, to_grey(tiles))
    ours = test.compute_curves(rank_pixels(maps, called), insert=False)
    np.testing.assert_allclose(ours, score(metric, plain, tiles, maps), atol=1e-3)


def test_road_is_that_of_quantus(
    quantus: ModuleType, classifier: TileClassifier, tiles: NDArray[np.uint8], maps: NDArray[np.float32]
) -> None:
    plain = prepare_classifier(classifier)
    with torch.no_grad():
        plain.head.weight *= 20  # so that some calls change
    metric = quantus.ROAD(percentages=list(ROAD_PERCENTAGES), noise=0.0)
    test, called = build_test(plain, to_grey(tiles))
    ours = test.compute_road(rank_pixels(maps, called), noise=0.0).mean(axis=0)
    theirs = score(metric, plain, tiles, maps)
    np.testing.assert_allclose(ours, [theirs[share] for share in ROAD_PERCENTAGES], atol=1e-3)


def test_imputed_pixels_are_those_of_quantus(quantus: ModuleType, maps: NDArray[np.float32]) -> None:
    pixels = maps[:3]
    removed = np.random.default_rng(0).random((32, 32)) < 0.6
    theirs = quantus.noisy_linear_imputation(pixels, np.flatnonzero(removed), noise=0.0)
    np.testing.assert_allclose(impute(pixels, removed, np.zeros_like(pixels)), theirs, atol=1e-3)


def test_similarity_is_that_of_quantus(quantus: ModuleType, maps: NDArray[np.float32]) -> None:
    other = maps + np.random.default_rng(2).normal(size=maps.shape).astype(np.float32)
    spearman = quantus.similarity_func.correlation_spearman
    theirs = [spearman(a.ravel(), b.ravel()) for a, b in zip(maps, other, strict=True)]
    np.testing.assert_allclose(compute_similarity(maps, other), theirs, atol=1e-3)


def test_a_map_of_one_value_has_no_similarity(maps: NDArray[np.float32]) -> None:
    assert np.isnan(compute_similarity(np.zeros_like(maps), maps)).all()
    np.testing.assert_allclose(compute_similarity(maps, maps), 1)


def test_randomised_parameters_are_others_and_repeat(classifier: TileClassifier) -> None:
    state = torch.get_rng_state()
    one, other, third = (randomise_parameters(classifier, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    trained = classifier.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    name = "trunk.layer4.1.conv2.weight"
    assert not torch.equal(one[name], trained[name])
    assert not torch.equal(one[name], third[name])


def test_linear_imputation_continues_a_gradient() -> None:
    ramp = np.tile(np.arange(9.0), (1, 9, 1))
    removed = np.zeros((9, 9), dtype=bool)
    removed[2:7, 2:7] = True
    np.testing.assert_allclose(impute(ramp, removed, np.zeros_like(ramp)), ramp, atol=1e-9)
    noise = np.ones_like(ramp)
    np.testing.assert_allclose(impute(ramp, removed, noise) - ramp, removed[None], atol=1e-9)
    np.testing.assert_array_equal(impute(ramp, np.zeros_like(removed), noise), ramp)
