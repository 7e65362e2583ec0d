"""The network normalises by domain, serves the target's statistics, and joins several networks."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import pytest
import torch

from oncoshift.methods.base import Batch
from oncoshift.methods.factory import build_method
from oncoshift.models.batch_norm import DomainBatchNorm2d
from oncoshift.models.network import AdaptationNet, EnsembleNet, as_one
from oncoshift.serving.classifier import TileClassifier
from oncoshift.settings import parse_settings

if TYPE_CHECKING:
    from typing import Any

MODEL = {"bottleneck": 8, "dropout": 0.0, "freeze": "layer3", "batch_norm": "per_domain"}
"""Settings that train only layer4, so that inputs are small maps."""


def maps(count: int, offset: float = 0.0) -> torch.Tensor:
    return torch.rand(count, 256, 3, 3, generator=torch.Generator().manual_seed(count)) + offset


def method_of(name: str, **model: object):  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return build_method(parse_settings({"model": {**MODEL, **model}, "train": {"method": name}}))


def norms(net: AdaptationNet) -> list[DomainBatchNorm2d]:
    return [module for module in net.modules() if isinstance(module, DomainBatchNorm2d)]


@pytest.mark.parametrize(
    ("name", "batch_norm", "expected"),
    [
        ("dann", "per_domain", True),
        ("dann", "shared", False),
        ("erm", "per_domain", False),  # sees one domain
        ("adabn", "shared", True),
    ],
)
def test_statistics_are_apart_where_a_method_sees_two_domains(name: str, batch_norm: str, expected: Any) -> None:
    method = method_of(name, batch_norm=batch_norm)
    assert bool(norms(method.net)) == method.net.per_domain == expected


def test_each_domain_is_normalised_by_itself_in_one_forward() -> None:
    """The source's values must not affect the target's result, and vice versa."""
    net = method_of("dann").net.train()
    source, target = maps(4), maps(5, offset=3.0)
    z = net.features(torch.cat([source, target]), sources=4)
    other = net.features(torch.cat([source * 7, target]), sources=4)
    torch.testing.assert_close(z[4:], other[4:])
    z_alone = net.features(source, sources=4)
    torch.testing.assert_close(z[:4], z_alone, rtol=1e-4, atol=1e-5)
    mixed = method_of("dann", batch_norm="shared").net.train().features(torch.cat([source, target]), sources=4)
    assert not torch.allclose(mixed, z, atol=1e-2)


def test_validation_of_a_domain_uses_its_running_statistics() -> None:
    method = method_of("dann").train()
    organs, labels = torch.zeros(4, dtype=torch.long), torch.tensor([0, 1, 0, 1])
    for _ in range(3):
        method(Batch(maps(4), labels, organs, maps(4, offset=3.0)), 0, 0.5)
    first = norms(method.net)[0]
    assert not torch.allclose(first.source_mean, first.running_mean)  # type: ignore[arg-type]
    net, x = method.net.eval(), maps(3)
    as_source, as_target = net.features(x, sources=3), net.features(x)
    assert not torch.allclose(as_source, as_target)
    swapped = deepcopy(net)
    for norm in norms(swapped):
        for one, two in ((norm.source_mean, norm.running_mean), (norm.source_var, norm.running_var)):
            kept = one.clone()
            one.copy_(two)  # type: ignore[arg-type]
            two.copy_(kept)
    torch.testing.assert_close(swapped.features(x), as_source)
    torch.testing.assert_close(swapped.features(x, sources=3), as_target)


def test_what_is_served_is_a_plain_classifier_with_the_targets_statistics() -> None:
    method = method_of("dann").train()
    organs, labels = torch.zeros(4, dtype=torch.long), torch.tensor([0, 1, 0, 1])
    method(Batch(maps(4), labels, organs, maps(4, offset=3.0)), 0, 0.5)
    net = method.net.eval()
    plain = TileClassifier("resnet18", 8, 0.0).eval()
    plain.load_state_dict(net.served_state())  # strict: no name may be missing or left over
    x = maps(3)
    expected = plain.head(plain.bottleneck(plain.trunk.run(x, ("layer4",))))
    torch.testing.assert_close(net.logits(net.features(x)), expected)
    assert not torch.allclose(net.logits(net.features(x, sources=3)), expected)


def test_several_networks_are_one_with_the_mean_of_their_probabilities() -> None:
    nets = [method_of("erm", batch_norm="shared").net.eval()]
    torch.manual_seed(1)
    nets.append(AdaptationNet(parse_settings({"model": {**MODEL, "batch_norm": "shared"}}).model).eval())
    together, x = as_one(nets), maps(3)
    assert isinstance(together, EnsembleNet)
    each = [net.logits(net.features(x)).softmax(1) for net in nets]
    assert (each[0] - each[1]).abs().max() > 1e-3
    z = together.features(x)
    assert z.shape == (3, together.width) == (3, 16)
    torch.testing.assert_close(together.logits(z).exp(), (each[0] + each[1]) / 2)
    tiles = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(
        together.classifier(tiles).exp(), sum(net.classifier(tiles).softmax(1) for net in nets) / 2
    )
    assert as_one(nets[:1]) is nets[0]
