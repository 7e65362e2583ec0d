"""The optimiser and its learning rate at each step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from oncoshift.settings import TrainSettings


def build_optimizer(parameters: Iterable[torch.nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    """Build the optimiser of the settings, fused, over the trainable parameters."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            trained,
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.momentum > 0,
            weight_decay=settings.weight_decay,
            fused=True,
        )
    return torch.optim.AdamW(trained, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)


def compute_learning_rate(settings: TrainSettings, progress: float) -> float:
    """Compute the learning rate after a share of all steps.

    It rises linearly over the share `warmup`, then follows the schedule. Linear and cosine end at
    0.
    """
    if progress < settings.warmup:
        return settings.lr * progress / settings.warmup
    after = (progress - settings.warmup) / (1.0 - settings.warmup) if settings.warmup < 1.0 else 0.0
    factor = {
        "constant": 1.0,
        "linear": 1.0 - after,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * after)),
    }[settings.schedule]
    return settings.lr * factor
