"""Integrated Gradients: equal to Captum's at equal steps, and doubled until they have converged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from oncoshift.serving.attributions import (
    Attribution,
    Convergence,
    explain_tile,
    integrate_gradients,
    make_baseline,
    prepare_classifier,
)
from oncoshift.serving.classifier import Classifier, build_classifier, normalise
from oncoshift.serving.trunks import IMAGENET_STD

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 32


class Linear(nn.Module):
    """Logits linear in the normalised tile."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * SIDE * SIDE, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x.flatten(1))
        return logits


class Cubic(nn.Module):
    """Margin (mean pixel)³, for which no grid is exact; records the size of its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.passes: list[int] = []

    def __deepcopy__(self, memo: object) -> Cubic:
        return self

    def forward(self, x: Tensor) -> Tensor:
        self.passes.append(len(x))
        margin = (self.scale * x.mean(dim=(1, 2, 3))) ** 3
        return torch.stack([-margin / 2, margin / 2], dim=1)


@pytest.fixture
def tiles() -> Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3)).astype(np.uint8)
    return torch.from_numpy(pixels)


@pytest.fixture
def grey() -> Tensor:
    return torch.full((1, SIDE, SIDE, 3), 200.0)


@pytest.fixture(params=[1, 2], ids=["one", "ensemble"])
def classifier(request: pytest.FixtureRequest) -> Classifier:
    torch.manual_seed(0)
    made = build_classifier("resnet18", 8, 0.5, request.param)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training: each channel has statistics of its own
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    return made.train()


def integrate(model: nn.Module, tiles: Tensor, start: Tensor, **limits: float) -> Attribution:
    convergence = Convergence(**limits)  # type: ignore[arg-type]
    return integrate_gradients(prepare_classifier(model), tiles, start, convergence, batch_size=16)


def find_margin(model: nn.Module, x: Tensor) -> Tensor:
    logits: Tensor = model(x)
    return logits[:, 1] - logits[:, 0]


def test_a_prepared_classifier_says_the_same_and_the_given_one_is_untouched(
    classifier: Classifier, tiles: Tensor
) -> None:
    state = {name: value.clone() for name, value in classifier.state_dict().items()}
    prepared = prepare_classifier(classifier)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in prepared.modules()), "folded"
    assert not any(parameter.requires_grad for parameter in prepared.parameters())
    assert classifier.training
    assert all(parameter.requires_grad for parameter in classifier.parameters())
    assert all(torch.equal(value, state[name]) for name, value in classifier.state_dict().items())
    x = normalise(tiles)
    torch.testing.assert_close(prepared(x), classifier.eval()(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [4, 16])
def test_maps_are_those_of_captum_at_equal_steps(
    classifier: Classifier, tiles: Tensor, grey: Tensor, steps: int
) -> None:
    captum = pytest.importorskip("captum.attr")
    mine = integrate(classifier, tiles, grey, steps=steps // 2, max_steps=steps, tolerance=1e-9)
    assert mine.steps.tolist() == [steps] * 3
    method = captum.IntegratedGradients(lambda x: find_margin(classifier.eval(), x))
    theirs = method.attribute(
        normalise(tiles), normalise(grey), n_steps=steps + 1, method="riemann_trapezoid", internal_batch_size=8
    )
    # Captum divides by the number of points, one more than there are intervals.
    expected = theirs.sum(dim=1).detach().numpy() * (steps + 1) / steps
    np.testing.assert_allclose(mine.values, expected, atol=1e-4 * np.abs(expected).max())


def test_a_linear_model_has_the_analytic_answer(tiles: Tensor, grey: Tensor) -> None:
    torch.manual_seed(0)
    model = Linear()
    mine = integrate(model, tiles, grey, steps=1)
    weight = (model.layer.weight[1] - model.layer.weight[0]).detach().numpy().reshape(3, SIDE, SIDE)
    expected = np.einsum("chw,nhwc->nhw", weight, (tiles.numpy() - 200.0) / 255 / np.array(IMAGENET_STD))
    np.testing.assert_allclose(mine.values, expected, atol=1e-5)
    assert mine.values.dtype == np.float32
    assert mine.steps.tolist() == [2, 2, 2], "the first doubling confirms it"
    assert mine.converged.all()
    np.testing.assert_allclose(mine.stability, 1)


def test_steps_are_doubled_until_the_delta_is_small_and_points_are_used_once(grey: Tensor) -> None:
    model = Cubic()
    dark = torch.full((1, SIDE, SIDE, 3), 20, dtype=torch.uint8)
    mine = integrate(model, dark, grey, steps=1, tolerance=0.01)
    assert mine.converged.all()
    assert mine.relative_delta[0] <= 0.01
    assert sum(model.passes) == mine.steps[0] + 1, "every point of the last grid once"
    loose = integrate(model, dark, grey, steps=1, tolerance=0.2)
    assert loose.steps[0] < mine.steps[0]
    assert loose.relative_delta[0] > mine.relative_delta[0]


def test_a_tile_that_has_not_converged_is_reported(grey: Tensor) -> None:
    dark = torch.full((1, SIDE, SIDE, 3), 20, dtype=torch.uint8)
    mine = integrate(Cubic(), dark, grey, steps=1, max_steps=3, tolerance=1e-6)
    assert mine.steps.tolist() == [2]
    assert not mine.converged.any()


def test_a_tile_that_is_its_baseline_has_no_attribution(classifier: Classifier, tiles: Tensor) -> None:
    mine = integrate(classifier, tiles[:2], tiles[:1].float(), steps=2, max_steps=4)
    assert not mine.values[0].any()
    assert np.isnan(mine.relative_delta[0])
    assert np.isnan(mine.stability[0])
    assert mine.converged[0]


def test_no_pass_is_larger_than_the_batch(tiles: Tensor, grey: Tensor) -> None:
    model = Cubic()
    integrate_gradients(model, tiles, grey, Convergence(4, 16, 1e-9), batch_size=3)
    assert max(model.passes) == 3


@pytest.mark.parametrize(("kind", "value"), [("white", 255), ("black", 0)])
def test_flat_baselines(tiles: Tensor, kind: str, value: int) -> None:
    assert (make_baseline(kind, tiles) == value).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("side", [8, SIDE])
def test_a_blurred_baseline_keeps_the_colour_and_loses_the_texture(tiles: Tensor, side: int) -> None:
    small = tiles[:, :side, :side]
    blurred = make_baseline("blurred", small)
    assert blurred.shape == small.shape
    assert blurred.diff(dim=1).std() < small.float().diff(dim=1).std() / 5
    assert blurred.mean().item() == pytest.approx(small.float().mean().item(), rel=0.1)


def test_one_tile_is_explained_from_pixels(classifier: Classifier, tiles: Tensor) -> None:
    tile: NDArray[np.uint8] = tiles[0].numpy()
    mine = explain_tile(classifier, tile, convergence=Convergence(2, 4))
    assert mine.values.shape == (1, SIDE, SIDE)
    given = explain_tile(
        classifier, tile, baseline=make_baseline("blurred", tiles[:1])[0].numpy(), convergence=Convergence(2, 4)
    )
    np.testing.assert_array_equal(mine.values, given.values)
    probability = classifier.eval()(normalise(tiles[:1])).softmax(1)[0, 1].item()
    assert mine.probabilities[0] == pytest.approx(probability, abs=1e-4)


def test_shapes_and_limits_are_checked(tiles: Tensor, grey: Tensor) -> None:
    with pytest.raises(ValueError, match=r"\[N, S, S, 3\]"):
        integrate(Linear(), tiles, grey[:, :8])
    with pytest.raises(ValueError, match="max_steps 2"):
        Convergence(4, 2)
