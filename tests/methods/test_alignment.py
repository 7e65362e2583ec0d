"""Methods with target tiles share one forward, add their terms, report, and refuse bad batches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from oncoshift.methods.alignment import entropy
from oncoshift.methods.base import Batch
from oncoshift.methods.factory import build_method, select_method_settings
from oncoshift.methods.registry import METHODS
from oncoshift.settings import Settings, replace_values

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ADAPTING = [name for name, row in METHODS.items() if row.terms]


def a_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    labels, organs = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
    source, target, strong = (torch.randn(count, 512, generator=generator) for count in (4, 6, 6))
    return Batch(source, labels, organs, target, strong, torch.randn(6, generator=generator))


@pytest.mark.parametrize("method", ADAPTING)
def test_batches_that_do_not_fit_are_refused(
    settings_for: Callable[..., Settings], build: Callable[..., Any], method: str
) -> None:
    built, batch = build(settings_for(method, 0)), a_batch()
    assert built.needs.target
    with pytest.raises(ValueError, match="needs target tiles"):
        built(batch._replace(target=None), epoch=0, progress=0.0)
    with pytest.raises(ValueError, match=r"labels of shape \[4\].*got \[4, 1\]"):
        built(batch._replace(labels=batch.labels[:, None]), epoch=0, progress=0.0)
    with pytest.raises(ValueError, match=r"organs of shape \[4\].*got \[3\]"):
        built(batch._replace(organs=batch.organs[:3]), epoch=0, progress=0.0)


@pytest.mark.parametrize("method", ADAPTING)
def test_the_batch_is_not_forwarded_twice(
    settings_for: Callable[..., Settings], build: Callable[..., Any], method: str
) -> None:
    built, seen = build(settings_for(method, 0)), []
    built.net.classifier.bottleneck.register_forward_hook(lambda _module, given, _out: seen.append(len(given[0])))
    built(a_batch(), epoch=0, progress=0.0)
    assert seen == [16 if built.needs.strong else 10]


def test_a_combination_adds_the_losses_of_its_parts(
    settings_for: Callable[..., Settings], build: Callable[..., Any]
) -> None:
    def loss(method: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return build(settings_for(method, 0))(a_batch(), 0, 0.5)

    (dann, dann_figures), (mcc, mcc_figures), (both, figures) = loss("dann"), loss("mcc"), loss("dann_mcc")
    label = dann_figures["label_loss"]
    assert both.item() == pytest.approx((dann + mcc - label).item(), rel=1e-5)
    assert figures.keys() == dann_figures.keys() | mcc_figures.keys()
    assert figures["class_confusion"].item() == mcc_figures["class_confusion"].item()


def test_diagnostics_by_hand(settings_for: Callable[..., Settings], build: Callable[..., Any]) -> None:
    built = build(settings_for("mcc", 0))
    net = built.net
    with torch.no_grad():
        net.classifier.bottleneck[0].weight.zero_()
        net.classifier.bottleneck[0].bias.fill_(2.0)
        net.classifier.head.weight.zero_()
        net.classifier.head.bias.copy_(torch.tensor([0.0, math.log(3.0)]))
    _, figures = built(a_batch(), 0, 0.0)
    assert figures["feature_norm"].item() == pytest.approx(2 * math.sqrt(32))
    assert figures["target_entropy"].item() == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert figures["target_train_malignant_share"].item() == 1.0
    assert not any(value.requires_grad for value in figures.values())


def test_entropy_is_finite_where_a_probability_is_zero() -> None:
    assert entropy(torch.tensor([[500.0, -500.0], [0.0, 0.0]])).tolist() == pytest.approx([0.0, math.log(2)])


def test_one_seed_gives_every_method_one_network(settings_for: Callable[..., Settings]) -> None:
    states = []
    for method in [name for name, row in METHODS.items() if not row.member]:
        torch.manual_seed(5)
        states.append(build_method(settings_for(method, 0, model={"freeze": "none"})).net.served_state())
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        assert all(torch.equal(state[name], states[0][name]) for name in states[0])


def test_a_method_reads_the_sections_of_its_parts_and_no_other() -> None:
    def reads(method: str, **changes: object) -> dict[str, object]:
        values = {"train.method": method, **{key.replace("__", "."): value for key, value in changes.items()}}
        return select_method_settings(replace_values(Settings(), values))

    assert reads("erm") == reads("adabn") == {}
    assert reads("single").keys() == {"single", "sources"}
    assert reads("ensemble").keys() == {"sources"}
    assert reads("stain_aug").keys() == {"stain_aug"}
    assert reads("self_training").keys() == {"self_training"}
    assert reads("dann").keys() == {"dann"}
    assert reads("dann_mcc").keys() == {"dann", "mcc"}
    assert reads("dann_multi").keys() == {"dann_multi", "sources"}
    assert reads("dann_mcc", mcc__weight=0.2) != reads("dann_mcc")
    assert reads("mcc", dann__max_lambda=0.2) == reads("mcc")


def test_erm_reads_no_target_tile(settings_for: Callable[..., Settings], build: Callable[..., Any]) -> None:
    method = build(settings_for("erm", 0))
    assert not method.needs.target
    loss, _ = method(a_batch()._replace(target=None), epoch=0, progress=0.0)
    assert torch.isfinite(loss)
