"""The rule that ranks models without target labels: a source floor, then a label-free score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncoshift.selection.registry import VALIDATORS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncoshift.settings import SelectSettings

ORACLE = "oracle"
"""The choice of `select.validator` that reads target labels, for measurements only."""


_TOLERANCE = 1e-9
"""Rounding error by which a score may fall below its bound."""


@dataclass(frozen=True)
class SourceFlooredScore:
    """A validator's score on the target, with models below a source floor ranked last.

    Attributes:
        floor: source balanced accuracy below which a model ranks under every model above it.
        lowest: least value of the validator: 0 for information maximisation, −1 for entropy.
    """

    floor: float
    lowest: float = 0.0

    def __call__(self, source_accuracy: float, score: float) -> float:
        """Return the number to maximise: the score, or a lower number for a model below the floor.

        Below the floor it is `lowest` + source accuracy − 1.

        Raises:
            ValueError: the score is below `lowest`, which would mix the two kinds of models, or
                NaN.
        """
        if not score >= self.lowest - _TOLERANCE:
            raise ValueError(f"score {score} is below the validator's least value {self.lowest}; set `lowest`")
        return score if source_accuracy >= self.floor else self.lowest + source_accuracy - 1.0


def score_row(settings: SelectSettings, row: Mapping[str, float]) -> float:
    """Score a model by the chosen validator above the source floor; see `SourceFlooredScore`.

    Args:
        settings: section `select`.
        row: figures of one model by name, as after every epoch of training: the score of each of
            `VALIDATORS`. The oracle's is not among them; a caller that reads target labels adds it.

    Raises:
        KeyError: the row lacks the validator.
    """
    return SourceFlooredScore(settings.source_floor, _lowest_score(settings))(
        row["source_accuracy"], row[settings.validator]
    )


def reaches_floor(settings: SelectSettings, score: float) -> bool:
    """Tell from a score of `score_row` whether the model reaches the source floor."""
    return score >= _lowest_score(settings) - _TOLERANCE


def _lowest_score(settings: SelectSettings) -> float:
    return 0.0 if settings.validator == ORACLE else VALIDATORS[settings.validator].lowest
