"""Minimum class confusion agrees with values computed by hand: limits, gradient and shapes."""

from __future__ import annotations

import math

import pytest
import torch

from oncoshift.methods.mcc import class_confusion


def test_one_tile_by_hand() -> None:
    """With Y = (¾, ¼) both rows of YᵀY are 3 : 1, so ¼ and ¾ of them lie off the diagonal."""
    assert class_confusion(torch.tensor([[math.log(3.0), 0.0]]), 1.0).item() == pytest.approx((0.25 + 0.75) / 2)
    assert class_confusion(torch.tensor([[2 * math.log(3.0), 0.0]]), 2.0).item() == pytest.approx(0.5)


def test_two_tiles_by_hand() -> None:
    """Tiles (0.9, 0.1) and (0.5, 0.5) with the weights of their entropies."""
    y = [(0.9, 0.1), (0.5, 0.5)]
    raw = [1 + math.exp(sum(p * math.log(p) for p in row)) for row in y]
    w = [2 * value / sum(raw) for value in raw]
    between = sum(weight * a * b for weight, (a, b) in zip(w, y, strict=True))
    benign = sum(weight * a * a for weight, (a, _) in zip(w, y, strict=True))
    malignant = sum(weight * b * b for weight, (_, b) in zip(w, y, strict=True))
    expected = (between / (benign + between) + between / (malignant + between)) / 2
    logits = torch.tensor(y).log()
    assert class_confusion(logits, 1.0).item() == pytest.approx(expected, rel=1e-5)


def test_certain_predictions_of_both_classes_are_not_confused_and_of_one_class_are() -> None:
    certain = torch.tensor([[20.0, -20.0], [-20.0, 20.0]])
    assert class_confusion(certain, 1.0).item() == pytest.approx(0.0, abs=1e-6)
    one_class = torch.tensor([[3.0, -3.0], [3.0, -3.0]])
    assert class_confusion(one_class, 1.0).item() == pytest.approx(0.5, abs=1e-6)
    assert class_confusion(torch.zeros(7, 2), 2.5).item() == pytest.approx(0.5)


def test_gradient_is_that_of_finite_differences_with_the_weights_held() -> None:
    """The weights are constants; with equal entropies they are 1 at every common scale."""
    logits = torch.tensor([[1.0, -0.5], [-0.5, 1.0], [1.0, -0.5]], requires_grad=True)
    class_confusion(logits, 2.5).backward()
    along = (logits.grad * logits.detach()).sum().item()
    with torch.no_grad():
        h = 1e-2
        slope = (class_confusion(logits * (1 + h), 2.5) - class_confusion(logits * (1 - h), 2.5)).item() / (2 * h)
    assert along == pytest.approx(slope, rel=1e-3)
    assert along < 0, "surer predictions of both classes are less confused"


@pytest.mark.parametrize("gap", [60.0, 100.0, 110.0, 300.0])
def test_a_class_that_no_tile_is_thought_to_be_of_leaves_loss_and_gradient_finite(gap: float) -> None:
    logits = torch.tensor([[gap, 0.0], [gap, 0.0]], requires_grad=True)
    loss = class_confusion(logits, 1.0)
    loss.backward()
    assert 0.0 <= loss.item() <= 0.5
    assert torch.isfinite(logits.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(4,), (4, 1), (0, 2)])
def test_a_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"logits \[T, C\]"):
        class_confusion(torch.zeros(shape), 1.0)
