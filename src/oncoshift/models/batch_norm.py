"""BatchNorm with separate statistics for sources and target, and across ranks.

With shared statistics, a batch is normalised as a mixture of domains in training, while the served
network sees the target alone. With separate statistics, each domain is brought to mean 0 and
variance 1 by itself, which removes a shift of scale and offset in every channel (AdaBN: Li et al.
2016, arXiv 1603.04779; in training: Chang et al. 2019, arXiv 1906.03950, who also separate γ and β,
which are shared here).

    y = γ · (x − μ_d) / √(σ²_d + ε) + β,   d the domain of the tile
"""

from __future__ import annotations

from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oncoshift.models.collective import sum_over_ranks, world_size

SOURCE_BUFFERS = ("source_mean", "source_var")


class DomainBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over [N, C, h, w], the first `sources` rows of which may be of another domain.

    Attributes:
        sources: number of leading rows that are source tiles; None if the domains share statistics.
        source_mean: running mean of source tiles [C]; the buffers of `nn.BatchNorm2d` are the
            target's.
        source_var: running variance of source tiles [C].
    """

    source_mean: Tensor
    source_var: Tensor

    def __init__(self, channels: int, eps: float, momentum: float | None, per_domain: bool) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)
        self.sources: int | None = None
        self.per_domain = per_domain
        if per_domain:
            self.register_buffer("source_mean", torch.zeros(channels))
            self.register_buffer("source_var", torch.ones(channels))

    @classmethod
    def like(cls, norm: nn.BatchNorm2d, per_domain: bool) -> Self:
        """Make one with the weights and statistics of another, frozen if that is."""
        made = cls(norm.num_features, norm.eps, norm.momentum, per_domain)
        made.load_state_dict(norm.state_dict(), strict=False)
        if per_domain:
            made.source_mean.copy_(cast("Tensor", norm.running_mean))
            made.source_var.copy_(cast("Tensor", norm.running_var))
        made.requires_grad_(norm.weight.requires_grad)
        return made.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise source rows and target rows, each by its own statistics."""
        target_mean, target_var = cast("Tensor", self.running_mean), cast("Tensor", self.running_var)
        if not self.per_domain:
            return self._normalise(x, target_mean, target_var)
        if self.sources is None:
            raise ValueError("BatchNorm per domain: call mark_sources with the number of leading source rows first")
        parts = []
        if self.sources > 0:
            parts.append(self._normalise(x[: self.sources], self.source_mean, self.source_var))
        if self.sources < len(x):
            parts.append(self._normalise(x[self.sources :], target_mean, target_var))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _normalise(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        if self.training and world_size() > 1:
            return self._over_ranks(x, mean, var)
        momentum = 0.1 if self.momentum is None else self.momentum
        return F.batch_norm(x, mean, var, self.weight, self.bias, self.training, momentum, self.eps)

    def _over_ranks(self, x: Tensor, running_mean: Tensor, running_var: Tensor) -> Tensor:
        """Normalise by mean and variance over the rows of all ranks, equally many on each."""
        ranks, values = world_size(), x.float()
        count = ranks * values.numel() / values.shape[1]
        mean = sum_over_ranks(values.mean(dim=(0, 2, 3))) / ranks
        centred = values - mean[:, None, None]
        var = sum_over_ranks(centred.square().mean(dim=(0, 2, 3))) / ranks
        momentum = 0.1 if self.momentum is None else self.momentum
        with torch.no_grad():
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(var * (count / (count - 1)), momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        y: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return y.to(x.dtype)


def replace_batch_norm(module: nn.Module, *, per_domain: bool) -> None:
    """Replace every plain BatchNorm below a module by a `DomainBatchNorm2d`, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and not isinstance(child, DomainBatchNorm2d):
            setattr(module, name, DomainBatchNorm2d.like(child, per_domain))
        else:
            replace_batch_norm(child, per_domain=per_domain)


def mark_sources(module: nn.Module, sources: int | None) -> None:
    """Set the number of leading source rows of the next batch in every BatchNorm below a module."""
    for each in module.modules():
        if isinstance(each, DomainBatchNorm2d):
            each.sources = sources
