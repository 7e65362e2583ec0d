"""BatchNorm per domain and over ranks equals torch's BatchNorm on each domain's whole batch."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from oncoshift.models.batch_norm import SOURCE_BUFFERS, DomainBatchNorm2d, mark_sources, replace_batch_norm

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

RANKS, CHANNELS = 2, 3
SOURCES, TARGETS = 4, 6
"""Rows of the whole batch; each rank has half of both domains."""


class Seen(NamedTuple):
    """Results of one forward and backward pass in training.

    Attributes:
        y: Outputs [N, C, h, w].
        x_grad: Gradient of Σ y · w with respect to the input.
        weight_grad: Gradient with respect to the scale [C].
        bias_grad: Gradient with respect to the shift [C].
        state: Buffers afterwards, by name.
    """

    y: Tensor
    x_grad: Tensor
    weight_grad: Tensor
    bias_grad: Tensor
    state: dict[str, Tensor]


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Make source rows, target rows on another scale, and the weights w of all outputs."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(SOURCES, CHANNELS, 2, 2, generator=generator)
    target = 3 * torch.randn(TARGETS, CHANNELS, 2, 2, generator=generator) + 5
    return source, target, torch.randn(SOURCES + TARGETS, CHANNELS, 2, 2, generator=generator)


def plain() -> nn.BatchNorm2d:
    """Make a BatchNorm whose scale, shift and statistics differ from the initial ones."""
    norm = nn.BatchNorm2d(CHANNELS, momentum=0.3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        norm.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
        norm.running_mean.copy_(torch.tensor([0.1, 0.2, 0.3]))
        norm.running_var.copy_(torch.tensor([1.0, 2.0, 3.0]))
    return norm


def ours(source: Tensor, target: Tensor, weights: Tensor, per_domain: bool) -> Seen:
    norm = DomainBatchNorm2d.like(plain(), per_domain)
    mark_sources(norm, len(source))
    x = torch.cat([source, target]).requires_grad_()
    y = norm(x)
    (y * weights).sum().backward()
    return Seen(y.detach(), x.grad, norm.weight.grad, norm.bias.grad, dict(norm.named_buffers()))  # type: ignore[arg-type]


def torchs(per_domain: bool) -> Seen:
    """Compute the same with `nn.BatchNorm2d`, either one for each domain or one for all."""
    source, target, weights = batch()
    parts = [source, target] if per_domain else [torch.cat([source, target])]
    norms, xs = [plain() for _ in parts], [part.requires_grad_() for part in parts]
    y = torch.cat([norm(x) for norm, x in zip(norms, xs, strict=True)])
    (y * weights).sum().backward()
    state = {"running_mean": norms[-1].running_mean, "running_var": norms[-1].running_var}
    if per_domain:
        state |= {"source_mean": norms[0].running_mean, "source_var": norms[0].running_var}
    weight_grad, bias_grad = (sum(getattr(norm, name).grad for norm in norms) for name in ("weight", "bias"))
    return Seen(y.detach(), torch.cat([x.grad for x in xs if x.grad is not None]), weight_grad, bias_grad, state)  # type: ignore[arg-type]


def assert_same(seen: Seen, expected: Seen) -> None:
    for name in ("y", "x_grad", "weight_grad", "bias_grad"):
        torch.testing.assert_close(getattr(seen, name), getattr(expected, name), rtol=1e-4, atol=1e-5, msg=name)
    for name, value in expected.state.items():
        torch.testing.assert_close(seen.state[name], value, msg=name)
    assert seen.state.keys() - {"num_batches_tracked"} == expected.state.keys()


@pytest.mark.parametrize("per_domain", [False, True])
def test_one_process_computes_what_torch_computes_of_each_domain(per_domain: Any) -> None:
    assert_same(ours(*batch(), per_domain), torchs(per_domain))


def _work(rank: int, folder: Path, per_domain: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    source, target, weights = batch()
    mine = [part.chunk(RANKS)[rank] for part in (source, target, weights[:SOURCES], weights[SOURCES:])]
    seen = ours(mine[0], mine[1], torch.cat(mine[2:]), per_domain)
    torch.save(tuple(seen), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("per_domain", [False, True])
def test_two_processes_compute_what_one_computes_of_the_whole_batch(tmp_path: Path, per_domain: Any) -> None:
    spawn(_work, (tmp_path, per_domain), nprocs=RANKS)
    ranks = [Seen(*torch.load(tmp_path / f"{rank}.pt", weights_only=True)) for rank in range(RANKS)]
    own = SOURCES // RANKS

    def whole(name: str) -> Tensor:
        values = [getattr(seen, name) for seen in ranks]
        return torch.cat([*(each[:own] for each in values), *(each[own:] for each in values)])

    weight_grad, bias_grad = (sum(getattr(seen, name) for seen in ranks) for name in ("weight_grad", "bias_grad"))
    for seen in ranks:
        assert_same(Seen(whole("y"), whole("x_grad"), weight_grad, bias_grad, seen.state), torchs(per_domain))


def test_in_eval_mode_each_domain_has_its_running_statistics() -> None:
    norm = DomainBatchNorm2d.like(plain(), per_domain=True).eval()
    norm.source_mean.fill_(4.0)
    norm.source_var.fill_(9.0)
    x = torch.full((2, CHANNELS, 1, 1), 7.0)
    mark_sources(norm, 1)
    y = norm(x)[:, :, 0, 0]
    scale, shift, root = norm.weight, norm.bias, torch.sqrt(norm.running_var + norm.eps)  # type: ignore[arg-type]
    torch.testing.assert_close(y[0], (7.0 - 4.0) / (9.0 + norm.eps) ** 0.5 * scale + shift)
    torch.testing.assert_close(y[1], (7.0 - norm.running_mean) / root * scale + shift)


def test_who_does_not_say_which_rows_are_sources_is_refused() -> None:
    with pytest.raises(ValueError, match="number of leading source rows"):
        DomainBatchNorm2d.like(plain(), per_domain=True)(torch.zeros(2, CHANNELS, 1, 1))


def test_what_was_frozen_stays_frozen() -> None:
    replaced = [DomainBatchNorm2d.like(plain().requires_grad_(kept), per_domain=False) for kept in (True, False)]
    assert [norm.weight.requires_grad for norm in replaced] == [True, False]
    assert [norm.bias.requires_grad for norm in replaced] == [True, False]


def test_replacing_keeps_weights_statistics_and_names() -> None:
    module = nn.Sequential(nn.Conv2d(1, CHANNELS, 1), nn.Sequential(plain(), nn.ReLU()))
    before = deepcopy(module.state_dict())
    replace_batch_norm(module, per_domain=True)
    state = module.state_dict()
    assert isinstance(module[1][0], DomainBatchNorm2d)
    assert all(torch.equal(state[name], value) for name, value in before.items())
    assert set(state.keys() - before.keys()) == {f"1.0.{name}" for name in SOURCE_BUFFERS}
    assert torch.equal(state["1.0.source_mean"], before["1.0.running_mean"])
    assert torch.equal(state["1.0.source_var"], before["1.0.running_var"])
    replaced = module[1][0]
    replace_batch_norm(module, per_domain=False)
    assert module[1][0] is replaced
