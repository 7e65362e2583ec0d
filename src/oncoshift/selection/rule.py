"""The rule that ranks models without target labels: a floor on source validation, then a label-free score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncoshift.selection.registry import VALIDATORS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncoshift.settings import SelectSettings

ORACLE = "oracle"
"""The one choice of `select.validator` that is no validator: it reads target labels, for measuring alone."""


_TOLERANCE = 1e-9
"""So far a validator's score may fall below its bound."""


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
            ValueError: a score below `lowest`, which would mix the two kinds of models, or none at all (NaN).
        """
        if not score >= self.lowest - _TOLERANCE:
            raise ValueError(f"score {score} is below the validator's least value {self.lowest}; set `lowest`")
        return score if source_accuracy >= self.floor else self.lowest + source_accuracy - 1.0


def score_row(settings: SelectSettings, row: Mapping[str, float]) -> float:
    """One number to maximise: the chosen validator's score above the source floor; see `SourceFlooredScore`.

    Args:
        settings: section `select`.
        row: figures of one model by name, as training makes them after every epoch: every one of `VALIDATORS`. The
            oracle's is not among them; who reads target labels adds it.

    Raises:
        KeyError: the row lacks the validator.
    """
    return SourceFlooredScore(settings.source_floor, _lowest_score(settings))(
        row["source_accuracy"], row[settings.validator]
    )


def reaches_floor(settings: SelectSettings, score: float) -> bool:
    """Whether a number that `score_row` made is of a model that reaches the source floor."""
    return score >= _lowest_score(settings) - _TOLERANCE


def _lowest_score(settings: SelectSettings) -> float:
    return 0.0 if settings.validator == ORACLE else VALIDATORS[settings.validator].lowest
