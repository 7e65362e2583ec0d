"""The base of methods that read target tiles: one forward, the label loss, and terms.

The loss of a step is CE(C(z_source), y) plus the losses of one or more terms, by which methods
differ. Terms share the features and logits of one forward, so a combination such as dann + mcc only
adds the cost of its heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oncoshift.methods.base import Batch, Method, Needs, label_cross_entropy
from oncoshift.models.collective import gather

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncoshift.models.network import AdaptationNet
    from oncoshift.settings import Section


class Step(NamedTuple):
    """The results of one forward that terms read, of the whole batch in any number of processes.

    Attributes:
        z: shared features [B + T, width], source tiles first.
        source_logits: class logits [B, 2].
        target_logits: class logits [T, 2].
        labels: int64 [B], of the source tiles.
        organs: int64 [B], of the source tiles.
        epoch: number of the epoch, from 0.
        progress: share of all steps done, from 0 to 1.
        strong_logits: class logits [T, 2] of the target tiles' strong views, for a term that needs
            them; else None.
        target_anchor: float32 [T], the anchor of the target tiles, for a term that needs it; else
            None.
    """

    z: Tensor
    source_logits: Tensor
    target_logits: Tensor
    labels: Tensor
    organs: Tensor
    epoch: int
    progress: float
    strong_logits: Tensor | None = None
    target_anchor: Tensor | None = None

    @property
    def sources(self) -> int:
        """The number of source tiles, B."""
        return len(self.labels)


class Setup(NamedTuple):
    """The sizes that a term is built for.

    Attributes:
        width: width of the shared feature.
        organs: number of source organs.
        epochs: number of epochs of the training.
    """

    width: int
    organs: int
    epochs: int


class Term(nn.Module, ABC):
    """A loss beside the label loss, with a row in `oncoshift.methods.registry`.

    Args:
        setup: the sizes that it is built for.
        settings: the section of the term's name.

    Attributes:
        needs: what it requires of batches.
    """

    needs: Needs = Needs(target=True)

    def __init__(self, setup: Setup, settings: Section) -> None:
        super().__init__()
        self.setup = setup
        self.settings = settings

    @abstractmethod
    def forward(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the weighted scalar loss of one step, and detached scalars to log, by name."""


class Alignment(Method):
    """A method whose loss is the label loss plus the terms' losses.

    Attributes:
        terms: terms by name, in the order in which their losses are added.
    """

    def __init__(self, net: AdaptationNet, terms: Mapping[str, Term]) -> None:
        super().__init__(net)
        self.terms = nn.ModuleDict(terms)
        self.needs = Needs(
            target=True,
            strong=any(term.needs.strong for term in terms.values()),
            stain_jitter=max(term.needs.stain_jitter for term in terms.values()),
            strong_jitter=max(term.needs.strong_jitter for term in terms.values()),
            anchor=any(term.needs.anchor for term in terms.values()),
        )

    def forward(self, batch: Batch, epoch: int, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of one step; see `Method.forward`.

        Raises:
            ValueError: the batch has no target tiles, or not one label and organ per source tile.
        """
        step = self._run_forward(batch, epoch, progress)
        loss, figures = label_cross_entropy(step.source_logits, step.labels, self.label_smoothing)
        for term in self.terms.values():
            term_loss, term_figures = term(step)
            loss = loss + term_loss
            figures |= term_figures
        return loss, figures | compute_diagnostics(step)

    def _run_forward(self, batch: Batch, epoch: int, progress: float) -> Step:
        tiles = self._collect_tiles(batch)
        z = self.net.features(torch.cat(tiles), sources=len(batch.source))
        source, target, *strong = (gather(part) for part in torch.split(z, [len(part) for part in tiles]))
        return Step(
            z=torch.cat([source, target]),
            source_logits=self.net.logits(source),
            target_logits=self.net.logits(target),
            labels=gather(batch.labels),
            organs=gather(batch.organs),
            epoch=epoch,
            progress=progress,
            strong_logits=self.net.logits(strong[0]) if strong else None,
            target_anchor=None if batch.target_anchor is None else gather(batch.target_anchor),
        )

    def _collect_tiles(self, batch: Batch) -> list[Tensor]:
        """List the inputs of one forward: source tiles, target tiles, strong views if needed."""
        if batch.target is None or len(batch.target) == 0:
            raise ValueError(f"{' + '.join(self.terms)} needs target tiles in every batch")
        expected = (len(batch.source),)
        for name, values in (("labels", batch.labels), ("organs", batch.organs)):
            if values.shape != expected:
                raise ValueError(
                    f"expected {name} of shape {list(expected)}, one per source tile, got {list(values.shape)}"
                )
        tiles = [batch.source, batch.target]
        if self.needs.strong:
            if batch.target_strong is None or batch.target_strong.shape != batch.target.shape:
                raise ValueError(f"{' + '.join(self.terms)} needs a strong view of each target tile in every batch")
            tiles.append(batch.target_strong if self.net.sees_tiles else drop_channels(batch.target_strong))
        return tiles


def drop_channels(x: Tensor) -> Tensor:
    """Drop half of the channels of a frozen trunk's outputs [N, C, …], and double the others.

    Each channel of each tile is dropped with probability ½. The result takes the place of a strong
    view where tiles cannot change.
    """
    kept = F.dropout(x.new_ones(x.shape[:2]), 0.5)
    return x * kept.view(*kept.shape, *(1 for _ in x.shape[2:]))


def entropy(logits: Tensor) -> Tensor:
    """Compute the entropy in nats of the softmax of logits [N, C]: float32 [N], from 0 to ln C."""
    log_p = logits.float().log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)


@torch.no_grad()
def compute_diagnostics(step: Step) -> dict[str, Tensor]:
    """Compute label-free figures that reveal a constant predictor or a vanishing feature.

    Returns:
        `target_entropy`, mean entropy of the target's predictions in nats;
        `target_train_malignant_share`, the share of target tiles predicted malignant;
        `feature_norm`, the mean Euclidean length of the shared feature.
    """
    return {
        "target_entropy": entropy(step.target_logits).mean(),
        "target_train_malignant_share": step.target_logits.argmax(1).float().mean(),
        "feature_norm": step.z.float().norm(dim=1).mean(),
    }
