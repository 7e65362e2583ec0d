"""DANN: the loss by hand, λ, the sign of the reversed gradient, shapes."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from oncoshift.methods.base import Batch
from oncoshift.methods.dann import domain_cross_entropy, reversal_strength
from oncoshift.methods.factory import build_method
from oncoshift.models.reversal import reverse_gradient
from oncoshift.settings import validate


def test_reversal_is_identity_forward_and_minus_lambda_backward():
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = reverse_gradient(x, 0.3)
    assert torch.equal(y, x)
    (y * torch.tensor([2.0, 5.0])).sum().backward()
    assert torch.allclose(x.grad, torch.tensor([-0.6, -1.5]))


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
def test_lambda_schedules(schedule, epoch, progress, expected):
    assert reversal_strength(schedule, 1.0, epoch, 50, progress) == pytest.approx(expected)
    assert reversal_strength(schedule, 0.5, epoch, 50, progress) == pytest.approx(expected / 2)


def test_domain_loss_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match=r"shape \[N\]"):
        domain_cross_entropy(torch.zeros(4, 1), torch.zeros(4))
    with pytest.raises(ValueError, match=r"shape \[N\]"):
        domain_cross_entropy(torch.zeros(4, 1), torch.zeros(4, 1))


@pytest.fixture
def dann():
    torch.manual_seed(0)
    settings = validate({"model": {"bottleneck": 8, "dropout": 0.0}, "dann": {"schedule": "constant", "weight": 0.7}})
    return build_method(settings).train()


def test_loss_by_hand(dann):
    source, target = torch.randn(4, 3, 32, 32), torch.randn(6, 3, 32, 32)
    labels = torch.tensor([0, 1, 1, 0])
    loss, figures = dann(Batch(source, labels, target), epoch=0, progress=0.0)
    z = dann.net.features(torch.cat([source, target]))
    d = torch.sigmoid(dann.net.domain_head(z))[:, 0]
    domain = -(torch.log(d[:4]).sum() + torch.log(1 - d[4:]).sum()) / 10
    label = F.nll_loss(F.log_softmax(dann.net.logits(z[:4]), 1), labels)
    assert loss.item() == pytest.approx((label + 0.7 * domain).item(), rel=1e-4)
    assert figures["domain_loss"].item() == pytest.approx(domain.item(), rel=1e-4)
    assert 0 <= figures["domain_accuracy"].item() <= 1


def test_domain_head_descends_and_trunk_ascends_the_domain_loss(dann):
    source, target = torch.randn(8, 3, 32, 32), torch.randn(8, 3, 32, 32) + 1
    batch = Batch(source, torch.zeros(8, dtype=torch.long), target)

    def gradients(reverse: bool) -> tuple[torch.Tensor, torch.Tensor]:
        dann.zero_grad()
        z = dann.net.features(torch.cat([batch.source, batch.target]))
        logits = dann.net.domain_head(reverse_gradient(z, 1.0) if reverse else z)[:, 0]
        domain_cross_entropy(logits, torch.cat([torch.ones(8), torch.zeros(8)])).backward()
        return dann.net.domain_head.weight.grad.clone(), dann.net.classifier.bottleneck[0].weight.grad.clone()

    (head, trunk), (plain_head, plain_trunk) = gradients(True), gradients(False)
    assert torch.allclose(head, plain_head)
    assert torch.allclose(trunk, -plain_trunk)
    assert plain_trunk.abs().sum() > 0


def test_erm_reads_no_target_tile():
    method = build_method(validate({"train": {"method": "erm"}, "model": {"bottleneck": 8}}))
    assert not method.uses_target
    loss, _ = method(Batch(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]), None), epoch=0, progress=0.0)
    assert torch.isfinite(loss)
