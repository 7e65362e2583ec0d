"""Label-shift weights and their running estimate are exact, and help where proportions differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from oncoshift.methods.label_shift import MIN_SHARE, MOMENTUM, TargetShares, weigh_sources

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from oncoshift.settings import Settings

ONE_GROUP = torch.zeros(4, dtype=torch.long)


def test_weights_by_hand() -> None:
    """Wanted shares are ¼ and ¾, actual ones ½: benign tiles weigh ½, malignant ones 1½."""
    weights = weigh_sources(torch.tensor([0, 1, 1, 0]), ONE_GROUP, torch.tensor([0.25, 0.75]))
    assert torch.allclose(weights, torch.tensor([0.5, 1.5, 1.5, 0.5]))


def test_each_group_is_brought_to_the_shares_by_itself() -> None:
    labels, groups = torch.tensor([0, 0, 0, 1, 0, 1]), torch.tensor([0, 0, 0, 0, 1, 1])
    weights = weigh_sources(labels, groups, torch.tensor([0.25, 0.75]))
    assert torch.allclose(weights, torch.tensor([1 / 3, 1 / 3, 1 / 3, 3.0, 0.5, 1.5]))


def test_a_group_without_a_class_keeps_its_weight() -> None:
    weights = weigh_sources(torch.tensor([1, 1, 1, 1]), ONE_GROUP, torch.tensor([0.9, 0.1]))
    assert torch.allclose(weights, torch.ones(4))


def test_estimate_is_a_clipped_moving_average_without_gradient() -> None:
    shares = TargetShares()
    logits = torch.tensor([[0.0, 50.0]] * 3, requires_grad=True)
    first = shares(logits)
    assert torch.allclose(first, torch.tensor([0.5 * MOMENTUM, 1 - 0.5 * MOMENTUM]))
    assert not first.requires_grad
    for _ in range(300):
        last = shares(logits)
    assert last[0].item() == pytest.approx(MIN_SHARE / (1 + MIN_SHARE), rel=1e-3)
    assert "shares" in shares.state_dict()


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \[B\]"):
        weigh_sources(torch.zeros(4, 1, dtype=torch.long), ONE_GROUP, torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize(
    ("method", "share"), [("dann", 0.15), ("dann", 0.85), ("dann_multi", 0.15), ("dann_multi", 0.85)]
)
def test_reweighting_keeps_a_rare_class_rare(
    world: Callable[..., Any],
    settings_for: Callable[..., Settings],
    train: Callable[..., Any],
    method: str,
    share: float,
) -> None:
    """Plain alignment moves common-class tiles to the other class until the target is balanced."""
    lopsided = world(0, shortcut_on_target=0.0, malignant_share=share)
    plain, reweighted = (
        train(lopsided, settings_for(method, 0, **{method: {"label_shift": label_shift}}))
        for label_shift in ("none", "reweight")
    )
    assert reweighted.target_accuracy > plain.target_accuracy + 0.05
    estimate, truth = reweighted.history[-1]["target_malignant_estimate"], share
    assert (estimate - 0.5) * (truth - 0.5) > 0
    assert "target_malignant_estimate" not in plain.history[-1]
