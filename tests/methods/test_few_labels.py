"""A few labels correct a model: they mend a wrong one, and leave a right one as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from oncoshift.errors import SettingsError
from oncoshift.methods.few_labels import (
    BIAS_VARIANCE,
    COMPONENTS_VARIANCE,
    HEAD_VARIANCE,
    PRIOR_SPREAD,
    TRUST_VARIANCE,
    FewLabels,
    correct,
)
from oncoshift.settings import parse_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from oncoshift.methods.base import Method
    from oncoshift.settings import Settings

TILES = 400


def draw(seed: int = 0, signal: float = 2.0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw features of which eight separate the classes, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(TILES) % 2)
    features = rng.normal(0, 1, (TILES, 30))
    features[:, :8] += signal * (2 * labels - 1)[:, None]
    return features * 5 + 40, labels


def pick(labels: NDArray[np.int64], benign: int, malignant: int) -> NDArray[np.int64]:
    """Pick the first tiles of each class."""
    return np.concatenate([np.flatnonzero(labels == 0)[:benign], np.flatnonzero(labels == 1)[:malignant]])


def accuracy(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    called = probabilities > 0.5
    return float((called[labels == 1].mean() + (~called[labels == 0]).mean()) / 2)


@pytest.mark.parametrize("trend", [1.0, 0.0, -1.0])
def test_six_labels_suffice_whether_the_prior_is_right_useless_or_turned_around(trend: float) -> None:
    features, labels = draw()
    prior = trend * (2 * labels - 1) + np.random.default_rng(1).normal(0, 1, TILES)
    labelled = pick(labels, 3, 3)
    correction = correct(features, prior, labelled, labels[labelled])
    assert accuracy(correction.predict(features, prior), labels) > 0.9


def test_where_features_say_nothing_the_prior_stays() -> None:
    features, labels = draw(signal=0.0)
    prior = 2.0 * (2 * labels - 1) + np.random.default_rng(1).normal(0, 1, TILES)
    labelled = pick(labels, 3, 3)
    correction = correct(features, prior, labelled, labels[labelled])
    alone = correct(features, 0 * prior, labelled, labels[labelled])
    assert accuracy(alone.predict(features, 0 * prior), labels) < 0.65
    assert accuracy(correction.predict(features, prior), labels) > 0.75


@pytest.mark.parametrize("components", [False, True])
def test_the_solution_minimises_the_loss_of_its_definition(components: bool) -> None:
    """The loss is written out over all weights, without the reduction to the span of the tiles."""
    features, labels = draw()
    prior = np.random.default_rng(1).normal(0, 2, TILES)
    labelled = pick(labels, 2, 5)
    found = correct(features, prior, labelled, labels[labelled], components=components)
    centred = features - features.mean(axis=0)
    root = np.real(sqrtm(np.cov(centred.T))) if components else np.eye(features.shape[1])
    root /= np.sqrt(((centred @ root) ** 2).sum(axis=1).mean())
    z, p = torch.tensor(centred[labelled] @ root), torch.tensor(prior[labelled] * PRIOR_SPREAD / prior.std())
    w = torch.tensor(np.linalg.solve(root, found.weights), requires_grad=True)
    b = torch.tensor(found.bias + features.mean(axis=0) @ found.weights, requires_grad=True)
    s = torch.tensor(found.scale * prior.std() / PRIOR_SPREAD, requires_grad=True)
    y = torch.tensor(labels[labelled]).double()
    weight = torch.where(y == 1, 7 / 10, 7 / 4)
    loss = (weight * torch.nn.functional.softplus(-(2 * y - 1) * (z @ w + b + s * p))).sum()
    variance = COMPONENTS_VARIANCE if components else HEAD_VARIANCE
    loss = loss + (w @ w / variance + b**2 / BIAS_VARIANCE + (s - 1) ** 2 / TRUST_VARIANCE) / 2
    loss.backward()
    for value in (w, b, s):
        assert value.grad is not None
        assert value.grad.abs().max().item() < 1e-4


def test_the_scale_of_features_and_prior_does_not_count() -> None:
    features, labels = draw()
    prior = np.random.default_rng(1).normal(0, 2, TILES)
    labelled = pick(labels, 3, 3)
    plain = correct(features, prior, labelled, labels[labelled]).predict(features, prior)
    scaled = correct(1000 * features - 7, prior / 9, labelled, labels[labelled])
    np.testing.assert_allclose(scaled.predict(1000 * features - 7, prior / 9), plain, atol=1e-5)


def test_a_class_without_a_label_is_refused() -> None:
    features, labels = draw()
    labelled = pick(labels, 0, 4)
    with pytest.raises(ValueError, match=r"labels of both classes, 0 and 1, got \[0, 4\]"):
        correct(features, features[:, 0], labelled, labels[labelled])
    with pytest.raises(ValueError, match="expected features"):
        correct(features, features[:3, 0], labelled, labels[labelled])


def test_the_head_says_what_the_correction_says(
    settings_for: Callable[..., Settings], build: Callable[[Settings], Method]
) -> None:
    method = build(settings_for("few_labels", 0))
    assert isinstance(method, FewLabels)
    z = torch.rand(50, method.net.width)
    logits = method.net.logits(z).detach().double()
    prior = (logits[:, 1] - logits[:, 0]).numpy()
    labels = np.arange(50) % 2
    correction = correct(z.numpy(), prior, np.arange(6), labels[:6])
    method.install(correction)
    said = method.net.logits(z).double().softmax(1)[:, 1].detach().numpy()
    np.testing.assert_allclose(said, correction.predict(z.numpy(), prior), atol=1e-4)


def test_a_choice_without_labels_cannot_include_it_and_a_prior_reads_none() -> None:
    with pytest.raises(SettingsError, match=r"retrain\.methods names few_labels, which reads labels"):
        parse_settings({"retrain": {"methods": ["dann", "few_labels"]}})
    for prior in ("few_labels", "ensemble"):
        with pytest.raises(SettingsError, match=r"few_labels\.prior"):
            parse_settings({"few_labels": {"prior": prior}})


def test_what_a_prior_cannot_do_the_method_cannot() -> None:
    values = {"train": {"method": "few_labels"}, "few_labels": {"prior": "stain_aug"}, "model": {"freeze": "all"}}
    with pytest.raises(SettingsError, match="stain_aug changes tiles"):
        parse_settings(values)
    assert parse_settings({"train": {"method": "few_labels"}}).reads_anchor
    assert not parse_settings({"train": {"method": "few_labels"}, "few_labels": {"prior": "dann"}}).reads_anchor


def test_seeds_are_not_picked_by_a_figure_of_their_priors() -> None:
    values = {"train": {"method": "few_labels"}, "select": {"validator": "atc"}}
    with pytest.raises(SettingsError, match=r"select\.validator atc reads the sources, and for few_labels"):
        parse_settings(values)
    assert parse_settings({"select": {"validator": "atc"}}).select.validator == "atc"
