"""The orientation term penalises predictions that do not follow the anchor, and only those."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from oncoshift.methods.alignment import Setup, Step
from oncoshift.methods.orient import Orient, correlate
from oncoshift.settings.methods import OrientSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from oncoshift.settings import Settings

ANCHOR = torch.tensor([-1.0, 1.0, -2.0, 0.5, 0.0, 1.5])


def penalise(
    logits: torch.Tensor, anchor: torch.Tensor | None = ANCHOR
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    term = Orient(Setup(8, 1, 1), OrientSettings(weight=4.0, margin=0.3))
    target = torch.stack([-logits / 2, logits / 2], 1)
    nothing = torch.zeros(0)
    loss: tuple[torch.Tensor, dict[str, torch.Tensor]] = term(
        Step(nothing, nothing, target, nothing, nothing, 0, 0.0, None, anchor)
    )
    return loss


def test_predictions_that_follow_the_anchor_are_free() -> None:
    loss, figures = penalise(ANCHOR)
    assert loss == 0
    assert figures["anchor_correlation"] > 0.9


def test_predictions_the_other_way_round_cost_and_are_turned() -> None:
    logits = torch.tensor([0.5, -1.0, 1.0, 0.0, 0.5, -1.0], requires_grad=True)
    loss, figures = penalise(logits)
    assert loss.item() == pytest.approx(4 * (0.3 - figures["anchor_correlation"].item()))
    (gradient,) = torch.autograd.grad(loss, logits)
    turned = penalise(logits.detach() - 10 * gradient)[1]["anchor_correlation"]
    assert figures["anchor_correlation"] < -0.5 < turned


def test_constant_predictions_have_a_finite_gradient() -> None:
    logits = torch.zeros(6, requires_grad=True)
    loss, _ = penalise(logits)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(gradient).all()


def test_the_correlation_is_pearsons_and_shapes_are_asserted() -> None:
    x = torch.randn(50)
    assert correlate(x[:6], ANCHOR).item() == pytest.approx(torch.corrcoef(torch.stack([x[:6], ANCHOR]))[0, 1].item())
    with pytest.raises(ValueError, match=r"two vectors \[T\]"):
        correlate(x[:6, None], ANCHOR)


def test_without_an_anchor_it_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the anchor"):
        penalise(ANCHOR, None)


def test_a_target_that_alignment_turns_around_is_oriented(
    world: Callable[..., Any], settings_for: Callable[..., Settings], train: Callable[..., Any]
) -> None:
    """Without the term, a shortcut that points the other way on the target inverts its classes."""
    inverted = world(0)
    values, rows = inverted.inputs.values, inverted.data.target.rows
    values[rows, 1] = -4 * values[rows, 0]
    plain, oriented = (
        train(inverted, settings_for(method, 0)).target_accuracy for method in ("dann_mcc", "dann_mcc_orient")
    )
    assert plain < 0.1
    assert oriented > 0.8
