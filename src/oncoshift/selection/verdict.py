"""The verdict on an adapted model without target labels: trust, doubt or refuse, with reasons.

Ranking picks the best candidate; the verdict says whether that candidate can be trusted. A
confident model whose classes alignment inverted passes every validator of a single model, so the
verdict rests on `consensus`, on what the same training makes of other stain variants, and on what
anchors say (`anchor`). A model that was trained with anchors agrees with them anyway; it is
compared with models trained with each of them alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from oncoshift.selection.binary import check_probabilities

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from oncoshift.selection.consensus import Consensus
    from oncoshift.settings import SelectSettings


SAFE_SHARES = (0.35, 0.65)
"""Estimated shares of malignant tiles between which a head in closed form is safe; see
docs/studies.md."""

_ARTICLES = {"anchor": "another", "source organ": "a source organ"}


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
        consensus: of models adapted from each source organ alone, on the same tiles, or of models
            trained with each anchor alone; None with one source organ or anchor.
        anchors: correlation of the candidate's predictions with each anchor, −1 to 1, by name;
            empty where anchors are no witness.
        anchored: whether the candidate was trained with anchors.
        malignant_share: estimated share of malignant target tiles, 0 to 1; None: not estimated.
        stains: kappa of the candidate with the model of the same training on each other stain
            variant, by its name; None if that one cannot be trained; empty where there is none.
        left_out: source organs that were left out, as they contradict the others on the target.
    """

    source_accuracy: float
    probabilities: NDArray[np.float64]
    consensus: Consensus | None
    anchors: Mapping[str, float] = field(default_factory=dict)
    anchored: bool = False
    malignant_share: float | None = None
    stains: Mapping[str, float | None] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


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
    methods that were added later changed no limit; see docs/studies.md.

    What depends on the stain is not what the sources taught. With the four methods of preset `real`
    on lung from two organs, models that work agreed with those on the other stain variant with a
    kappa of 0.87 or more, and on breast, where all turn the classes around on one of the two, with
    0.1 or less; with DANN, which adapts less, with 0.5 to 0.75 and 0.63. The limit is above that.
    Below it there is doubt alone: one of two models that contradict may be right.
    docs/results.md has what the limit does on all targets.

    Attributes:
        source_floor: least balanced accuracy on the sources.
        least_share: least share of target tiles in the rarer predicted class; below it the model
            counts as constant.
        refuse_strength: consensus (kappa) below which source organs contradict one another.
        trust_strength: consensus from which they agree.
        refuse_agreement: kappa of the candidate with the majority below which they differ.
        trust_agreement: kappa from which they agree.
        trust_anchors: consensus of models trained with each anchor alone from which they agree.
        refuse_correlation: correlation with an anchor below which the candidate does not follow it;
            one as negative says that the classes are inverted.
        trust_correlation: correlation with every anchor from which it does.
        trust_stain: kappa with the model of every other stain variant from which they agree.
    """

    source_floor: float
    least_share: float
    refuse_strength: float
    trust_strength: float
    refuse_agreement: float
    trust_agreement: float
    trust_anchors: float
    refuse_correlation: float
    trust_correlation: float
    trust_stain: float

    @classmethod
    def from_settings(cls, settings: SelectSettings) -> Self:
        """Take the limits from section `select`, which has the defaults and checks their order."""
        return cls(**settings.model_dump(include={field.name for field in fields(cls)}))

    def __call__(self, evidence: Evidence) -> Verdict:
        """Judge one candidate."""
        found = [
            self._check_source(evidence),
            self._check_share(evidence),
            *self._check_consensus(evidence),
            *_check_left_out(evidence),
            *self._check_stains(evidence),
            *self._check_anchors(evidence),
        ]
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
        what = "anchor" if evidence.anchored else "source organ"
        if evidence.consensus is None:
            return [(Kind.DOUBT, f"one {what}: no independent model to compare with; add {_ARTICLES[what]}")]
        strength, constant = evidence.consensus.strength, len(evidence.consensus.constant)
        agreement = evidence.consensus.agreement_with(evidence.probabilities)
        trusted = self.trust_anchors if evidence.anchored else self.trust_strength
        limits = (self.refuse_strength, trusted), (self.refuse_agreement, self.trust_agreement)
        count, of = len(evidence.consensus.majority), len(evidence.consensus.agreement)
        told = f"; {constant} of {of} put every tile into one class" if constant else ""
        single = f"the {count} of {of} models from single {what}s that agree best{told}: kappa"
        return [
            _grade(strength, limits[0], single),
            _grade(agreement, limits[1], "the model agrees with them with kappa"),
        ]

    def _check_stains(self, evidence: Evidence) -> list[tuple[Kind, str]]:
        if not evidence.stains:
            return []
        missing = [name for name, kappa in evidence.stains.items() if kappa is None]
        if missing:
            return [(Kind.DOUBT, f"it cannot be trained on {missing[0]}, to see whether it depends on the stain")]
        least, name = min((kappa, name) for name, kappa in evidence.stains.items() if kappa is not None)
        kind = Kind.TRUST if least >= self.trust_stain else Kind.DOUBT
        told = "" if kind is Kind.TRUST else "it depends on the stain: "
        shown = f"{format_near_limits(least, self.trust_stain)} (trusted from {self.trust_stain:.2f})"
        return [(kind, f"{told}trained on {name}, it calls the same tiles malignant with kappa {shown}")]

    def _check_anchors(self, evidence: Evidence) -> list[tuple[Kind, str]]:
        found = []
        if evidence.anchors and not evidence.anchored:
            name, least = min(evidence.anchors.items(), key=lambda item: item[1])
            limits = self.refuse_correlation, self.trust_correlation
            told = "turned around: " if least < -abs(self.refuse_correlation) else ""
            found.append(_grade(least, limits, f"{told}its calls follow the anchor {name} with correlation"))
        share, (low, high) = evidence.malignant_share, SAFE_SHARES
        if share is not None:
            kind = Kind.TRUST if low <= share <= high else Kind.DOUBT
            found.append((kind, f"{share:.0%} of the target seems malignant (safe from {low:.0%} to {high:.0%})"))
        return found


def _check_left_out(evidence: Evidence) -> list[tuple[Kind, str]]:
    """Doubt what agrees because those that contradict were left out."""
    if not evidence.left_out:
        return []
    names = ", ".join(evidence.left_out)
    return [
        (Kind.DOUBT, f"trained without {names}, which contradicts the other source organs; at least one side is wrong")
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
