"""Domain-adversarial training of neural networks, DANN (Ganin et al. 2016, JMLR 17:59, arXiv 1505.07818).

With features z = F(x), class logits C(z), domain logit D(z) and domain d (1 source, 0 target), one step minimises

    CE(C(z_source), y) + weight · BCE(D(R_λ(z)), d)

where R_λ is the identity forward and −λ backward, so that D learns to tell the domains apart and F to hide them.
The arXiv 2601.14678 form is this with a linear D, weight 1 and λ = (epoch / epochs)², set once an epoch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from oncoshift.methods.base import Batch, Method
from oncoshift.models.reversal import reverse_gradient

if TYPE_CHECKING:
    from oncoshift.models.network import AdaptationNet
    from oncoshift.settings import Dann as DannSettings


def reversal_strength(schedule: str, max_lambda: float, epoch: int, epochs: int, progress: float) -> float:
    """λ of one step.

    Args:
        schedule: `paper` (epoch / epochs)², constant within an epoch; `ganin` 2 / (1 + exp(−10 progress)) − 1;
            `constant` 1 throughout.
        max_lambda: factor on it.
        epoch: number of the epoch, from 0.
        epochs: how many there will be.
        progress: share of all steps done, from 0 to 1.
    """
    shape = {
        "paper": (epoch / epochs) ** 2,
        "ganin": 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0,
        "constant": 1.0,
    }[schedule]
    return max_lambda * shape


class Dann(Method):
    """One forward over source and target tiles together; see the module for the loss."""

    name: ClassVar[str] = "dann"
    uses_target: ClassVar[bool] = True

    def __init__(self, net: AdaptationNet, settings: DannSettings, epochs: int) -> None:
        super().__init__(net)
        self.settings = settings
        self.epochs = epochs

    def forward(self, batch: Batch, epoch: int, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Label loss plus weighted domain loss; see `Method.forward`.

        The domain head's accuracy is logged beside its loss: a loss at ln 2 can be equilibrium or a dead head.
        """
        if batch.target is None:
            raise ValueError("dann needs target tiles in every batch")
        strength = reversal_strength(self.settings.schedule, self.settings.max_lambda, epoch, self.epochs, progress)
        sources = len(batch.source)
        z = self.net.features(torch.cat([batch.source, batch.target]))
        logits = self.net.logits(z[:sources])
        domain_logits = self.net.domain_head(reverse_gradient(z, strength)).squeeze(1)
        domains = torch.zeros(len(z), device=z.device)
        domains[:sources] = 1.0
        label_loss = F.cross_entropy(logits, batch.labels)
        domain_loss = domain_cross_entropy(domain_logits, domains)
        accuracy = (logits.detach().argmax(1) == batch.labels).float().mean()
        domain_accuracy = ((domain_logits.detach() > 0) == (domains > 0.5)).float().mean()
        return label_loss + self.settings.weight * domain_loss, {
            "label_loss": label_loss.detach(),
            "domain_loss": domain_loss.detach(),
            "source_train_accuracy": accuracy,
            "domain_accuracy": domain_accuracy,
            "lambda": torch.tensor(strength),
        }


def domain_cross_entropy(logits: Tensor, domains: Tensor) -> Tensor:
    """Binary cross-entropy of logits [N] against domains [N].

    Raises:
        ValueError: the shapes differ. [N] against [N, 1] would broadcast to [N, N] and pair every tile with every
            label, silently.
    """
    if logits.ndim != 1 or logits.shape != domains.shape:
        raise ValueError(f"expected logits and domains of shape [N], got {list(logits.shape)}, {list(domains.shape)}")
    return F.binary_cross_entropy_with_logits(logits, domains)
