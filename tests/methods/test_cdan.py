"""CDAN's multilinear map, entropy weights and loss agree with values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from oncoshift.methods.alignment import Setup, Step
from oncoshift.methods.cdan import Cdan, certainty, multilinear_map
from oncoshift.settings.methods import CdanSettings

EVEN, SURE = [0.0, 0.0], [math.log(3.0), 0.0]
SETUP = Setup(width=3, organs=1, epochs=1)


def a_step() -> Step:
    generator = torch.Generator().manual_seed(0)
    return Step(
        z=torch.randn(5, 3, generator=generator, requires_grad=True),
        source_logits=torch.tensor([EVEN, SURE, SURE], requires_grad=True),
        target_logits=torch.tensor([SURE, EVEN], requires_grad=True),
        labels=torch.tensor([0, 1, 1]),
        organs=torch.tensor([0, 0, 1]),
        epoch=0,
        progress=0.5,
    )


def test_map_is_the_outer_product_and_predictions_are_constants() -> None:
    logits, z = torch.tensor([SURE], requires_grad=True), torch.tensor([[2.0, 4.0]], requires_grad=True)
    seen = multilinear_map(logits, z)
    assert torch.allclose(seen, torch.tensor([[1.5, 3.0, 0.5, 1.0]]))
    seen.sum().backward()
    assert logits.grad is None
    assert torch.allclose(z.grad, torch.ones(1, 2))  # type: ignore[arg-type]


def test_certainty_by_hand() -> None:
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    expected = torch.tensor([1.5, 1 + math.exp(-entropy)])
    assert torch.allclose(certainty(torch.tensor([EVEN, SURE])), expected)


@pytest.mark.parametrize("entropy_weighting", [False, True])
def test_loss_by_hand(entropy_weighting: bool) -> None:
    torch.manual_seed(1)
    settings = CdanSettings(schedule="constant", weight=2.0, entropy_weighting=entropy_weighting)
    term, step = Cdan(SETUP, settings), a_step()
    loss, figures = term(step)
    g = torch.cat([step.source_logits, step.target_logits]).softmax(1)
    seen = torch.stack([torch.outer(p, z).flatten() for p, z in zip(g, step.z, strict=True)])
    d = torch.sigmoid(seen @ term.head.weight[0] + term.head.bias)
    losses = -torch.cat([torch.log(d[:3]), torch.log(1 - d[3:])])
    sure = 1 + math.exp(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    source, target = torch.tensor([1.5, sure, sure]), torch.tensor([sure, 1.5])
    weights = torch.cat([source / source.mean(), target / target.mean()]) if entropy_weighting else torch.ones(5)
    assert figures["domain_loss"].item() == pytest.approx((losses * weights).mean().item(), rel=1e-5)
    assert loss.item() == pytest.approx(2.0 * (losses * weights).mean().item(), rel=1e-5)


def test_gradient_reaches_the_feature_reversed_and_not_the_predictions() -> None:
    term, step = Cdan(SETUP, CdanSettings(schedule="constant", max_lambda=0.5, weight=1.0)), a_step()
    term(step)[0].backward()
    reversed_ = step.z.grad.clone()
    assert step.source_logits.grad is None
    plain = a_step()
    logits = term.head(multilinear_map(torch.cat([plain.source_logits, plain.target_logits]), plain.z))
    term.compute_domain_loss(logits, plain, term.weigh_tiles(plain))[0].backward()
    assert torch.allclose(reversed_, -0.5 * plain.z.grad)  # type: ignore[arg-type]
    assert reversed_.abs().sum() > 0


def test_label_shift_and_entropy_weights_are_multiplied_and_of_mean_one_in_each_domain() -> None:
    """Certainties are c(½), c(¾), c(¾); even target shares give w(y) = ½ / ⅓ and ½ / ⅔."""
    step = a_step()._replace(target_logits=torch.tensor([SURE, SURE[::-1]]))
    weights = Cdan(SETUP, CdanSettings(label_shift="reweight")).weigh_tiles(step)
    sure = certainty(torch.tensor([SURE])).item()
    source = torch.tensor([1.5 * 1.5, 0.75 * sure, 0.75 * sure])
    assert torch.allclose(weights, torch.cat([source / source.mean(), torch.ones(2)]))  # type: ignore[arg-type]


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"logits \[N, C\]"):
        multilinear_map(torch.zeros(3, 2), torch.zeros(4, 5))
    with pytest.raises(ValueError, match=r"logits \[N, C\]"):
        multilinear_map(torch.zeros(3), torch.zeros(3, 5))
