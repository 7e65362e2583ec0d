"""DANN's loss, λ, reversed gradient and shapes agree with values computed by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional as F

from oncoshift.methods.base import Batch
from oncoshift.methods.dann import domain_cross_entropy
from oncoshift.methods.factory import build_method
from oncoshift.models.reversal import compute_reversal_strength, reverse_gradient
from oncoshift.settings import parse_settings

if TYPE_CHECKING:
    from typing import Any


def test_reversal_is_identity_forward_and_minus_lambda_backward() -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = reverse_gradient(x, 0.3)
    assert torch.equal(y, x)
    (y * torch.tensor([2.0, 5.0])).sum().backward()
    assert torch.allclose(x.grad, torch.tensor([-0.6, -1.5]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("schedule", "epoch", "progress", "expected"),
    [
        ("paper", 0, 0.0, 0.0),
        ("paper", 49, 0.999, (49 / 50) ** 2),
        ("ganin", 0, 0.0, 0.0),
        ("ganin", 25, 0.5, 2 / (1 + math.exp(-5)) - 1),
        ("constant", 7, 0.2, 1.0),
    ],
)
def test_lambda_schedules(schedule: str, epoch: int, progress: float, expected: Any) -> None:
    assert compute_reversal_strength(schedule, 1.0, epoch, 50, progress) == pytest.approx(expected)
    assert compute_reversal_strength(schedule, 0.5, epoch, 50, progress) == pytest.approx(expected / 2)


@pytest.mark.parametrize(
    ("logits", "domains", "weights"), [((4, 1), (4,), None), ((4, 1), (4, 1), None), ((4,), (4,), (4, 1))]
)
def test_domain_loss_refuses_shapes_that_would_broadcast(logits: Any, domains: Any, weights: Any) -> None:
    with pytest.raises(ValueError, match=r"shape \[N\]"):
        domain_cross_entropy(
            torch.zeros(logits), torch.zeros(domains), None if weights is None else torch.zeros(weights)
        )


def test_weighted_domain_loss_by_hand() -> None:
    loss = domain_cross_entropy(torch.tensor([0.0, math.log(3)]), torch.tensor([1.0, 0.0]), torch.tensor([0.5, 2.0]))
    assert loss.item() == pytest.approx((0.5 * math.log(2) + 2.0 * math.log(4)) / 2)


@pytest.fixture
def dann() -> Any:
    torch.manual_seed(0)
    settings = parse_settings(
        {"model": {"bottleneck": 8, "dropout": 0.0}, "dann": {"schedule": "constant", "weight": 0.7}}
    )
    return build_method(settings).train()


def test_loss_by_hand(dann: Any) -> None:
    source, target = torch.randn(4, 3, 32, 32), torch.randn(6, 3, 32, 32)
    labels = torch.tensor([0, 1, 1, 0])
    loss, figures = dann(Batch(source, labels, torch.zeros(4, dtype=torch.long), target), epoch=0, progress=0.0)
    z = dann.net.features(torch.cat([source, target]))
    d = torch.sigmoid(dann.terms["dann"].head(z))[:, 0]
    domain = -(torch.log(d[:4]).sum() + torch.log(1 - d[4:]).sum()) / 10
    label = F.nll_loss(F.log_softmax(dann.net.logits(z[:4]), 1), labels)
    assert loss.item() == pytest.approx((label + 0.7 * domain).item(), rel=1e-4)
    assert figures["domain_loss"].item() == pytest.approx(domain.item(), rel=1e-4)
    right = (d[:4] > 0.5).sum() + (d[4:] <= 0.5).sum()
    assert figures["domain_accuracy"].item() == pytest.approx(right.item() / 10)


def test_domain_head_descends_and_trunk_ascends_the_domain_loss(dann: Any) -> None:
    source, target = torch.randn(8, 3, 32, 32), torch.randn(8, 3, 32, 32) + 1
    head = dann.terms["dann"].head

    def gradients(reverse: bool) -> tuple[torch.Tensor, torch.Tensor]:
        dann.zero_grad()
        z = dann.net.features(torch.cat([source, target]))
        logits = head(reverse_gradient(z, 1.0) if reverse else z)[:, 0]
        domain_cross_entropy(logits, torch.cat([torch.ones(8), torch.zeros(8)])).backward()
        return head.weight.grad.clone(), dann.net.classifier.bottleneck[0].weight.grad.clone()

    (reversed_head, trunk), (plain_head, plain_trunk) = gradients(True), gradients(False)
    assert torch.allclose(reversed_head, plain_head)
    assert torch.allclose(trunk, -plain_trunk)
    assert plain_trunk.abs().sum() > 0
