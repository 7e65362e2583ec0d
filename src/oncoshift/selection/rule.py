"""The rule that ranks models without target labels: a floor on source validation, then a label-free score."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SourceFlooredScore:
    """Information maximisation on the target, among models that still work on the sources.

    Attributes:
        floor: source balanced accuracy below which a model ranks under every model above it.
    """

    floor: float

    def __call__(self, source_accuracy: float, information_maximisation: float) -> float:
        """One number to maximise: IM in [0, 1] above the floor, source accuracy − 1 in [−1, 0] below it."""
        return information_maximisation if source_accuracy >= self.floor else source_accuracy - 1.0
