"""Communication between the ranks of distributed training; a single process exchanges nothing."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Return the number of ranks that train together; 1 in a single process."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(x: Tensor) -> Tensor:
    """Gather the rows [N, …] of all ranks, in the order of ranks, to [world · N, …] on each.

    The shapes must be equal on all ranks. Every rank can then compute the loss of the whole batch.
    Its gradient with respect to a rank's rows is the sum over ranks of equal gradients, world times
    the true one; DDP's mean of the parameters' gradients over ranks makes it exact. Heads that see
    gathered rows have equal gradients on all ranks, which the mean does not change.
    """
    if world_size() == 1:
        return x
    gathered: Tensor = _Gather.apply(x)
    return gathered


# An operator of its own, because torch 2.11 compiles collectives in a graph to wrong gradients.
@torch.library.custom_op("oncoshift::sum_over_ranks", mutates_args=())
def sum_over_ranks(x: Tensor) -> Tensor:
    """Sum a tensor over all ranks; its gradient is the sum of the ranks' gradients."""
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


@sum_over_ranks.register_fake
def _shape_sum(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _sum_gradients(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG001 - torch's signature
    total: Tensor = sum_over_ranks(gradient)
    return total


sum_over_ranks.register_autograd(_sum_gradients)


def reduce_any(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set on at least one rank; every rank must call this."""
    if world_size() == 1:
        return flag
    flags = torch.tensor(float(flag), device=device)
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    return bool(flags > 0)


def wait_for_all() -> None:
    """Wait until every rank is here; every rank must call this."""
    if world_size() > 1:
        dist.barrier()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004 - autograd's signature
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ARG004
        total = grads[0].contiguous()
        dist.all_reduce(total)
        return total.chunk(world_size())[dist.get_rank()]
