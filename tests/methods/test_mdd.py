"""Margin disparity: both losses, their sum, reversed gradient and shapes agree with hand values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from oncoshift.methods.alignment import Setup, Step
from oncoshift.methods.mdd import Mdd, agreement_loss, disagreement_loss
from oncoshift.settings.methods import MddSettings

if TYPE_CHECKING:
    from typing import Any


def a_step() -> Step:
    generator = torch.Generator().manual_seed(0)
    return Step(
        z=torch.randn(5, 3, generator=generator, requires_grad=True),
        source_logits=torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 0.5]]),
        target_logits=torch.tensor([[1.0, 0.0], [0.0, 3.0]]),
        labels=torch.tensor([0, 0, 1]),
        organs=torch.tensor([0, 0, 1]),
        epoch=0,
        progress=0.5,
    )


def test_losses_by_hand() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, math.log(4.0)]])  # p of class 0: ¾ and ⅕
    classes = torch.tensor([0, 0])
    assert agreement_loss(logits, classes).item() == pytest.approx(-(math.log(0.75) + math.log(0.2)) / 2)
    assert disagreement_loss(logits, classes).item() == pytest.approx(-(math.log(0.25) + math.log(0.8)) / 2)


def test_disagreement_stays_finite_with_a_gradient_where_the_probability_rounds_to_one() -> None:
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = disagreement_loss(logits, torch.tensor([0]))
    loss.backward()
    assert loss.item() == pytest.approx(400.0)
    assert torch.allclose(logits.grad, torch.tensor([[1.0, -1.0]]))  # type: ignore[arg-type]


def test_loss_and_gradient_by_hand() -> None:
    torch.manual_seed(1)
    settings = MddSettings(schedule="constant", max_lambda=0.25, weight=2.0, margin=3.0, hidden=0)
    term, step = Mdd(Setup(width=3, organs=1, epochs=1), settings), a_step()
    loss, figures = term(step)
    loss.backward()
    plain = a_step()
    p = (plain.z @ term.head.weight.T + term.head.bias).softmax(1)
    source = -(p[0, 1].log() + p[1, 0].log() + p[2, 1].log()) / 3
    target = -((1 - p[3, 0]).log() + (1 - p[4, 1]).log()) / 2
    expected = 2.0 * (3.0 * source + target)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    assert torch.allclose(step.z.grad, -0.25 * plain.z.grad, atol=1e-6)  # type: ignore[arg-type]
    chosen = p.argmax(1).tolist()
    agree = [chosen[0] == 1, chosen[1] == 0, chosen[2] == 1]
    assert figures["source_agreement"].item() == pytest.approx(sum(agree) / 3)


@pytest.mark.parametrize("loss", [agreement_loss, disagreement_loss])
def test_a_wrong_shape_is_refused(loss: Any) -> None:
    with pytest.raises(ValueError, match=r"logits \[N, C\]"):
        loss(torch.zeros(3, 2), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"logits \[N, C\]"):
        loss(torch.zeros(3, 2), torch.zeros(3, 1, dtype=torch.long))
