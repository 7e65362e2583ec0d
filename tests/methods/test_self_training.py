"""Self-training's pseudo-labels, alignment, threshold, ramp, loss and views match hand values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from oncoshift.methods.alignment import Setup, Step, drop_channels
from oncoshift.methods.base import Batch
from oncoshift.methods.self_training import SelfTraining, assign_pseudo_labels, consistency_loss, ramp_up
from oncoshift.settings.methods import SelfTrainingSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from oncoshift.settings import Settings


def logits(*malignant: float) -> torch.Tensor:
    """Make logits [N, 2] from probabilities of malignant."""
    p = torch.tensor(malignant)
    return torch.stack([1 - p, p], 1).log()


SOURCE = logits(0.1, 0.9, 0.2, 0.8)
"""Logits of mean confidence (.9 + .9 + .8 + .8) / 4 = .85, half of each class."""


def test_pseudo_labels_count_from_a_share_of_the_sources_confidence_on() -> None:
    classes, counts = assign_pseudo_labels(SOURCE, logits(0.95, 0.7, 0.3, 0.04), threshold=0.85, align=False)
    assert classes.tolist() == [1, 1, 0, 0]
    assert counts.tolist() == [1, 0, 0, 1]  # from .85 · .85 = .7225 on
    assert assign_pseudo_labels(SOURCE, logits(0.95, 0.7), threshold=0.8, align=False)[1].tolist() == [1, 1]


def test_alignment_brings_the_proportions_to_those_of_the_sources() -> None:
    """p = (.4, .6), (.2, .8), mean (.3, .7); times (.5 / .3, .5 / .7) the first is ⅔ : 3⁄7."""
    weak = logits(0.6, 0.8)
    assert assign_pseudo_labels(SOURCE, weak, 0.5, align=False)[0].tolist() == [1, 1]
    assert assign_pseudo_labels(SOURCE, weak, 0.5, align=True)[0].tolist() == [0, 1]
    benign = (2 / 3) / (2 / 3 + 3 / 7)
    for threshold, count in ((benign / 0.85 - 0.01, 1.0), (benign / 0.85 + 0.01, 0.0)):
        assert assign_pseudo_labels(SOURCE, weak, threshold, align=True)[1][0].item() == count


def test_alignment_is_finite_where_a_class_is_never_predicted() -> None:
    classes, counts = assign_pseudo_labels(SOURCE, torch.tensor([[200.0, -200.0], [200.0, -200.0]]), 0.9, align=True)
    assert classes.tolist() == [0, 0]
    assert counts.tolist() == [1, 1]


def test_consistency_is_a_mean_over_all_target_tiles() -> None:
    loss = consistency_loss(logits(0.2, 0.5, 0.9), torch.tensor([1, 0, 0]), torch.tensor([1.0, 0.0, 1.0]))
    assert loss.item() == pytest.approx((-math.log(0.2) - math.log(0.1)) / 3, rel=1e-5)


def test_ramp_rises_over_the_first_half() -> None:
    assert [ramp_up(progress) for progress in (0.0, 0.25, 0.5, 0.75, 1.0)] == pytest.approx([0.0, 0.5, 1.0, 1.0, 1.0])


def a_step(progress: float) -> Step:
    strong = logits(0.2, 0.55, 0.9).requires_grad_()
    weak, source = logits(0.9, 0.6, 0.1).requires_grad_(), SOURCE.clone().requires_grad_()
    labels = torch.tensor([0, 1, 0, 1])
    return Step(torch.zeros(7, 3), source, weak, labels, labels, 0, progress, strong)


def test_term_by_hand_and_its_gradient_flows_through_the_strong_views_alone() -> None:
    settings = SelfTrainingSettings(weight=2.0, threshold=0.9, align=False)
    term, step = SelfTraining(Setup(width=3, organs=1, epochs=1), settings), a_step(0.25)
    loss, figures = term(step)
    by_hand = (-math.log(0.2) - math.log(0.1)) / 3
    assert figures["consistency_loss"].item() == pytest.approx(by_hand, rel=1e-5)
    assert loss.item() == pytest.approx(2.0 * 0.5 * by_hand, rel=1e-5)
    assert figures["pseudo_label_share"].item() == pytest.approx(2 / 3)
    assert figures["pseudo_malignant_share"].item() == 0.5
    assert figures["view_agreement"].item() == pytest.approx(1 / 3)
    loss.backward()
    assert step.target_logits.grad is None
    assert step.source_logits.grad is None
    expected = torch.tensor([[0.8, -0.8], [0.0, 0.0], [-0.9, 0.9]]) / 3  # (softmax − one-hot) / T, times 2 · ½
    assert torch.allclose(step.strong_logits.grad, expected, atol=1e-6)  # type: ignore[arg-type]


def test_network_sees_source_target_and_strong_views_in_this_order(
    settings_for: Callable[..., Settings], build: Callable[..., Any]
) -> None:
    method = build(settings_for("self_training", 0, self_training={"stain_jitter": 0.4})).eval()
    method.net.sees_tiles = True
    assert method.needs == (True, True, 0.0, 0.4, False)
    x = torch.randn(8, 512, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1])
    step = method._run_forward(Batch(x[:2], labels, labels, x[2:5], x[5:]), 0, 0.5)
    assert torch.allclose(step.strong_logits, method.net.classifier.head(method.net.classifier.bottleneck(x[5:])))
    assert step.z.shape == (5, 32)


def test_strong_view_of_cached_outputs_lacks_half_of_the_channels() -> None:
    torch.manual_seed(0)
    vectors, maps = drop_channels(torch.ones(50, 200)), drop_channels(torch.ones(50, 200, 3, 3))
    for values in (vectors, maps):
        assert set(values.unique().tolist()) == {0.0, 2.0}
        assert (values > 0).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert (maps == maps[:, :, :1, :1]).all(), "a channel goes as a whole"


def test_cached_outputs_are_seen_without_channels_and_tiles_as_they_are(
    settings_for: Callable[..., Settings], build: Callable[..., Any]
) -> None:
    method, seen = build(settings_for("self_training", 0)), []
    method.net.classifier.bottleneck.register_forward_hook(lambda _module, given, _out: seen.append(given[0]))
    labels, x = torch.tensor([0, 1]), torch.ones(2, 512)
    for sees_tiles in (False, True):
        method.net.sees_tiles = sees_tiles
        method(Batch(x, labels, labels, x, x), 0, 0.5)
    assert (seen[0][:4] == 1).all()
    assert set(seen[0][4:].unique().tolist()) == {0.0, 2.0}
    assert (seen[1] == 1).all()


@pytest.mark.parametrize("strong", [None, torch.zeros(3, 512)])
def test_a_batch_without_a_strong_view_of_each_tile_is_refused(
    settings_for: Callable[..., Settings], build: Callable[..., Any], strong: Any
) -> None:
    method = build(settings_for("self_training", 0))
    labels, x = torch.tensor([0, 1]), torch.zeros(2, 512)
    with pytest.raises(ValueError, match="needs a strong view of each target tile"):
        method(Batch(x, labels, labels, x, strong), 0, 0.5)


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"source logits \[B, C\]"):
        assign_pseudo_labels(torch.zeros(3, 2), torch.zeros(4, 3), 0.9, align=True)
    with pytest.raises(ValueError, match=r"logits \[T, C\]"):
        consistency_loss(torch.zeros(3, 2), torch.zeros(3, 1, dtype=torch.long), torch.zeros(3))
