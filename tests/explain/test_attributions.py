"""Integrated gradients agree with analytic answers and leave the model as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from oncoshift.errors import DataError
from oncoshift.explain.attributions import Attributions, compute_mean_image, integrated_gradients
from oncoshift.serving.classifier import IMAGENET_STD, TileClassifier, normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Linear(nn.Module):
    """A model with logits linear in the normalised tile, which counts the tiles of each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 32 * 32, 2)
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        return self.layer(x.flatten(1))


def attribute(
    model: nn.Module,
    tiles: NDArray[np.uint8],
    baseline: NDArray[np.float64] | None = None,
    steps: int = 8,
    batch: int = 4,
) -> Attributions:
    baseline = np.full((32, 32, 3), 200.5) if baseline is None else baseline
    return integrated_gradients(
        model,  # type: ignore[arg-type]
        tiles,
        steps=steps,
        internal_batch_size=batch,
        device="cpu",
        baseline=baseline,
    )


def test_a_linear_model_has_the_analytic_answer(tiles: NDArray[np.uint8]) -> None:
    torch.manual_seed(0)
    model = Linear()
    result = attribute(model, tiles)
    weight = (model.layer.weight[1] - model.layer.weight[0]).detach().numpy().reshape(3, 32, 32)
    difference = (tiles - 200.5) / 255 / np.array(IMAGENET_STD)
    expected = np.einsum("chw,nhwc->nhw", weight, difference)
    np.testing.assert_allclose(result.values, expected, atol=1e-5)
    assert result.values.dtype == np.float32
    assert np.abs(result.delta).max() < 1e-4


def test_margins_are_those_of_the_softmax(classifier: TileClassifier, tiles: NDArray[np.uint8]) -> None:
    result = attribute(classifier, tiles)
    with torch.no_grad():
        probabilities = torch.softmax(classifier.eval()(normalise(torch.from_numpy(tiles))), dim=1)[:, 1]
    np.testing.assert_allclose(result.probabilities, probabilities.numpy(), rtol=1e-4)


def test_attributions_sum_to_the_gain_over_the_baseline(classifier: TileClassifier, tiles: NDArray[np.uint8]) -> None:
    with torch.no_grad():  # a margin that is clearly not zero
        classifier.head.weight *= 20
    result = attribute(classifier, tiles, steps=128, batch=32)
    gains = result.margins - result.baseline_margin
    np.testing.assert_allclose(result.values.sum(axis=(1, 2)), gains + result.delta, atol=1e-5)
    assert np.abs(gains).min() > 0.01
    assert result.relative_delta.max() < 0.05
    np.testing.assert_allclose(result.relative_delta, np.abs(result.delta / gains))


def test_train_mode_changes_nothing_and_is_restored(classifier: TileClassifier, tiles: NDArray[np.uint8]) -> None:
    classifier.trunk.layer1.eval()  # a part in another mode, as frozen parts are
    modes = [part.training for part in classifier.modules()]
    state = {name: value.clone() for name, value in classifier.state_dict().items()}
    in_train_mode = attribute(classifier, tiles)
    assert [part.training for part in classifier.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in classifier.state_dict().items()), (
        "no statistics moved"
    )
    assert all(parameter.grad is None for parameter in classifier.parameters())
    classifier.eval()
    np.testing.assert_array_equal(attribute(classifier, tiles).values, in_train_mode.values)


def test_the_mode_is_restored_after_an_error(tiles: NDArray[np.uint8]) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError(f"broken at {len(x)}")

    model = Broken().train()
    with pytest.raises(RuntimeError, match="broken"):
        attribute(model, tiles)
    assert model.training


@pytest.mark.parametrize(("batch", "steps"), [(1, 8), (3, 8), (8, 8), (20, 8), (64, 8)])
def test_no_pass_is_larger_than_the_internal_batch(tiles: NDArray[np.uint8], batch: int, steps: int) -> None:
    model = Linear()
    result = attribute(model, tiles, batch=batch, steps=steps)
    assert max(model.batches) <= batch
    np.testing.assert_allclose(result.values, attribute(model, tiles).values, atol=1e-5)


def test_a_tile_that_is_the_baseline_has_no_attribution(classifier: TileClassifier, tiles: NDArray[np.uint8]) -> None:
    result = attribute(classifier, tiles[:2], baseline=tiles[0])
    assert not result.values[0].any()
    assert np.isnan(result.relative_delta[0])
    assert np.isfinite(result.relative_delta[1])


def test_shapes_are_checked(classifier: TileClassifier, tiles: NDArray[np.uint8]) -> None:
    with pytest.raises(DataError, match=r"uint8 \[N, S, S, 3\]"):
        attribute(classifier, tiles.astype(np.float32))
    with pytest.raises(DataError, match="N ≥ 1"):
        attribute(classifier, tiles[:0])
    with pytest.raises(DataError, match=r"baseline must be \[32, 32, 3\]"):
        attribute(classifier, tiles, baseline=np.zeros((32, 32)))


def test_the_mean_image_is_that_of_the_rows(monkeypatch: pytest.MonkeyPatch, tiles: NDArray[np.uint8]) -> None:
    monkeypatch.setattr("oncoshift.explain.attributions._MEAN_CHUNK", 2)
    rows = np.array([4, 0, 3])
    np.testing.assert_allclose(compute_mean_image(tiles, rows), tiles[rows].mean(axis=0), rtol=1e-6)
    with pytest.raises(DataError, match="no tiles"):
        compute_mean_image(tiles, rows[:0])
