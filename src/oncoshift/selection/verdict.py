"""The verdict on an adapted model without target labels: trust, doubt or refuse, with reasons.

Ranking picks the best candidate; the verdict says whether that candidate can be trusted. A
confident model whose classes alignment inverted passes every validator of a single model, so the
verdict rests on `consensus`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from oncoshift.selection.binary import check_probabilities

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from oncoshift.selection.consensus import Consensus
    from oncoshift.settings import SelectSettings


class Kind(StrEnum):
    """The kinds of verdict, from best to worst."""

    TRUST = "trust"
    DOUBT = "doubt"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Verdict:
    """A verdict and its reasons.

    Attributes:
        kind: the worst result of the checks.
        reasons: one sentence for each check with that result, with its value and limit.
    """

    kind: Kind
    reasons: tuple[str, ...]

    @property
    def words(self) -> str:
        """The verdict in one line."""
        return f"{self.kind.value}: {'; '.join(self.reasons)}"


@dataclass(frozen=True)
class Evidence:
    """Evidence about a candidate without target labels.

    Attributes:
        source_accuracy: balanced accuracy on source validation tiles, 0 to 1.
        probabilities: of malignant, [N], of the candidate on unlabelled target tiles.
        consensus: of models adapted from each source organ alone, on the same tiles; None with one
            source organ.
    """

    source_accuracy: float
    probabilities: NDArray[np.float64]
    consensus: Consensus | None


@dataclass(frozen=True)
class ConsensusRule:
    """The rule: trust a model that works on the sources, is not constant and fits the consensus.

    A check refuses below the lower limit of a pair and doubts between the two. The limits were set
    on real tiles of two targets (`benchmarks/selection.py`). On kidney, where alignment inverts the
    classes, source organs still agreed with kappa 0.83; on lung, where it works, with 0.96, so
    trust begins midway. Below 0.1 source organs agree no better than by chance. A model that had
    failed on lung agreed with the majority with kappa 0.02, a middling one with 0.44, good ones
    with 0.95 or more. The margin is thin: a doubt calls for a few labels. The limits of trust come
    from these two targets alone; those of refusal were chosen with colon and breast as well. Five
    methods that were added later changed no limit; see docs/results.md.

    Attributes:
        source_floor: least balanced accuracy on the sources.
        least_share: least share of target tiles in the rarer predicted class; below it the model
            counts as constant.
        refuse_strength: consensus (kappa) below which source organs contradict one another.
        trust_strength: consensus from which they agree.
        refuse_agreement: kappa of the candidate with the majority below which they differ.
        trust_agreement: kappa from which they agree.
    """

    source_floor: float
    least_share: float
    refuse_strength: float
    trust_strength: float
    refuse_agreement: float
    trust_agreement: float

    @classmethod
    def from_settings(cls, settings: SelectSettings) -> Self:
        """Take the limits from section `select`, which has the defaults and checks their order."""
        return cls(**settings.model_dump(include={field.name for field in fields(cls)}))

    def __call__(self, evidence: Evidence) -> Verdict:
        """Judge one candidate."""
        found = [self._check_source(evidence), self._check_share(evidence), *self._check_consensus(evidence)]
        kind = max((kind for kind, _ in found), key=list(Kind).index)
        return Verdict(kind, tuple(reason for each, reason in found if each is kind))

    def _check_source(self, evidence: Evidence) -> tuple[Kind, str]:
        accuracy = evidence.source_accuracy
        kind = Kind.TRUST if accuracy >= self.source_floor else Kind.REFUSE
        shown = format_near_limits(accuracy, self.source_floor)
        return kind, f"balanced accuracy on the sources is {shown} (floor {self.source_floor:.2f})"

    def _check_share(self, evidence: Evidence) -> tuple[Kind, str]:
        malignant = float((check_probabilities(evidence.probabilities) > 0.5).mean())
        kind = Kind.TRUST if min(malignant, 1 - malignant) >= self.least_share else Kind.REFUSE
        return (
            kind,
            f"{malignant:.1%} of the target is called malignant (each class needs {100 * self.least_share:g}%)",
        )

    def _check_consensus(self, evidence: Evidence) -> list[tuple[Kind, str]]:
        if evidence.consensus is None:
            return [(Kind.DOUBT, "one source organ: no independent model to compare with; add a source organ")]
        strength, constant = evidence.consensus.strength, len(evidence.consensus.constant)
        agreement = evidence.consensus.agreement_with(evidence.probabilities)
        limits = (self.refuse_strength, self.trust_strength), (self.refuse_agreement, self.trust_agreement)
        count, of = len(evidence.consensus.majority), len(evidence.consensus.agreement)
        told = f"; {constant} of {of} put every tile into one class" if constant else ""
        single = f"the {count} of {of} models from single source organs that agree best{told}: kappa"
        return [
            _grade(strength, limits[0], single),
            _grade(agreement, limits[1], "the model agrees with them with kappa"),
        ]


def _grade(value: float, limits: tuple[float, float], what: str) -> tuple[Kind, str]:
    """Refuse below both limits, doubt between them, trust from the upper one on."""
    refuse, trust = limits
    kind = Kind.REFUSE if value < refuse else Kind.DOUBT if value < trust else Kind.TRUST
    shown = format_near_limits(value, *limits)
    return kind, f"{what} {shown} (refused below {refuse:.2f}, trusted from {trust:.2f})"


def format_near_limits(value: float, *limits: float) -> str:
    """Format a number with two decimals, or more if it would look equal to a limit."""
    for decimals in (2, 3, 4):
        text = f"{value:.{decimals}f}"
        if all(value == limit or text != f"{limit:.{decimals}f}" for limit in limits):
            break
    return text
