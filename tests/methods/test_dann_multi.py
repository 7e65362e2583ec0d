"""DANN over all organs: loss, accuracy and shapes agree with values computed by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from oncoshift.methods.alignment import Setup, Step
from oncoshift.methods.dann_multi import DannMulti, organ_cross_entropy
from oncoshift.settings.methods import DannMultiSettings

if TYPE_CHECKING:
    from typing import Any


def test_loss_by_hand() -> None:
    logits = torch.tensor([[math.log(2.0), 0.0, 0.0], [0.0, 0.0, 0.0]])
    organs = torch.tensor([0, 2])
    assert organ_cross_entropy(logits, organs).item() == pytest.approx((math.log(2) + math.log(3)) / 2)
    weighted = organ_cross_entropy(logits, organs, torch.tensor([1.5, 0.5]))
    assert weighted.item() == pytest.approx((1.5 * math.log(2) + 0.5 * math.log(3)) / 2)


def test_the_target_is_the_organ_after_the_sources() -> None:
    step = Step(
        z=torch.eye(4, requires_grad=True),
        source_logits=torch.zeros(3, 2),
        target_logits=torch.zeros(1, 2),
        labels=torch.tensor([0, 1, 1]),
        organs=torch.tensor([1, 0, 2]),
        epoch=0,
        progress=0.0,
    )
    settings = DannMultiSettings(schedule="constant", max_lambda=0.5, weight=1.0)
    term = DannMulti(Setup(width=4, organs=3, epochs=1), settings)
    with torch.no_grad():
        term.head.bias.zero_()
        term.head.weight.copy_(10 * torch.eye(4)[:, [1, 0, 2, 3]])
    loss, figures = term(step)
    assert figures["domain_accuracy"].item() == 1.0
    assert loss.item() == pytest.approx(math.log(1 + 3 * math.exp(-10)), rel=1e-3)
    loss.backward()
    assert step.z.grad[0, 0] > 0, "the trunk is pushed to make the organ less likely: descent lowers its own entry"


@pytest.mark.parametrize(("logits", "organs", "weights"), [((4,), (4,), None), ((4, 3), (4, 1), None),
                                                           ((4, 3), (4,), (4, 1))])  # fmt: skip
def test_a_wrong_shape_is_refused(logits: Any, organs: Any, weights: Any) -> None:
    with pytest.raises(ValueError, match=r"expected logits \[N, organs\]"):
        organ_cross_entropy(
            torch.zeros(logits),
            torch.zeros(organs, dtype=torch.long),
            None if weights is None else torch.zeros(weights),
        )
