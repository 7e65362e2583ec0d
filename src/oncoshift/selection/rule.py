"""The rule that ranks models without target labels: a floor on source validation, then a label-free score."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SourceFlooredScore:
    """Any validator's score on the target, among models that still work on the sources.

    Attributes:
        floor: source balanced accuracy below which a model ranks under every model above it.
        lowest: the least value that the validator can take: 0 for information maximisation, −1 for entropy.
    """

    floor: float
    lowest: float = 0.0

    def __call__(self, source_accuracy: float, score: float) -> float:
        """One number to maximise: the score above the floor; below it `lowest` + source accuracy − 1, which is lower.

        Raises:
            ValueError: a score below `lowest`, which would mix the two kinds of models.
        """
        # A validator's last bits may fall below its bound.
        if score < self.lowest - 1e-9:
            raise ValueError(f"score {score} is below the validator's least value {self.lowest}; set `lowest`")
        return score if source_accuracy >= self.floor else self.lowest + source_accuracy - 1.0
