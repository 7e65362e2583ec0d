"""Whether a challenger may become champion: every condition, with its number and its limit, on the audit set.

Floors look at the point estimate: they ask whether the model is usable at all. Gains look at the lower end of the
interval: a gain that may be none is no reason to deploy. The champion is defended by non-inferiority: the challenger
may be worse by the margin at most, at the lower end of the interval of the paired difference, because a retraining on
newer data is worth having at equal quality.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncoshift.settings import Gate

Verdict = Literal["promote", "refuse"]

MIN_GROUPS_PER_CLASS = 2
"""With one group of a class, resampling groups cannot show how that class's figures vary."""


class Interval(Protocol):
    """A point estimate and its interval, as `oncoshift.evaluation.intervals` makes them."""

    @property
    def point(self) -> float:
        """The estimate."""

    @property
    def low(self) -> float:
        """The interval's lower end."""

    @property
    def high(self) -> float:
        """The interval's upper end."""


@dataclass(frozen=True)
class GateEvidence:
    """What is known of a challenger; all figures are of the target's audit set.

    Attributes:
        balanced_accuracy: of the challenger.
        auroc: of the challenger.
        sensitivity: of the challenger.
        gain_over_control: balanced accuracy, challenger minus source-only control, paired on the same groups.
        gain_over_champion: the same against today's champion; None where there is no champion.
        groups: audit groups by class name.
        selection: the validator that picked the challenger; `oracle` has read target labels.
        phantom: whether the data are made up.
    """

    balanced_accuracy: Interval
    auroc: Interval
    sensitivity: Interval
    gain_over_control: Interval
    gain_over_champion: Interval | None
    groups: Mapping[str, int]
    selection: str
    phantom: bool = False


@dataclass(frozen=True)
class Reason:
    """One condition of the gate.

    Attributes:
        check: its name.
        passed: whether it holds.
        value: the number that was looked at; None where the condition is not about a number.
        limit: what the number must reach; None likewise.
        words: the condition and its outcome in a sentence.
    """

    check: str
    passed: bool
    value: float | None
    limit: float | None
    words: str


@dataclass(frozen=True)
class Decision:
    """The gate's answer.

    Attributes:
        promote: whether all conditions hold.
        reasons: every condition, passed or failed.
        flags: what a reader must know that is no condition, such as made-up data.
    """

    promote: bool
    reasons: tuple[Reason, ...]
    flags: tuple[str, ...] = field(default=())

    @property
    def verdict(self) -> Verdict:
        """The answer in a word, as the version's tag has it."""
        return "promote" if self.promote else "refuse"

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"verdict": self.verdict, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        reasons = tuple(Reason(**reason) for reason in values["reasons"])
        return cls(values["promote"], reasons, tuple(values["flags"]))

    def to_markdown(self) -> str:
        """As a section with a table, failed conditions first."""
        failed = sum(not reason.passed for reason in self.reasons)
        outcome = "all conditions hold" if self.promote else f"{failed} of {len(self.reasons)} conditions failed"
        ordered = sorted(self.reasons, key=lambda reason: reason.passed)
        rows = [
            f"| {'passed' if reason.passed else '**failed**'} | {reason.check} | {_cell(reason.value)} "
            f"| {_cell(reason.limit)} | {reason.words} |"
            for reason in ordered
        ]
        head = ["| | check | value | limit | |", "|---|---|---:|---:|---|"]
        notes = [f"> {flag}" for flag in self.flags]
        return "\n".join([f"**{self.verdict}**: {outcome}.", "", *head, *rows, *(["", *notes] if notes else [])]) + "\n"


def decide(settings: Gate, evidence: GateEvidence) -> Decision:
    """Hold the evidence against the settings; a number that is NaN fails its condition."""
    reasons = (
        _selection(evidence.selection),
        *_groups(settings, evidence.groups),
        _floor("balanced accuracy", evidence.balanced_accuracy, settings.min_balanced_accuracy),
        _floor("AUROC", evidence.auroc, settings.min_auroc),
        _floor("sensitivity", evidence.sensitivity, settings.min_sensitivity),
        _gain("gain over source-only", evidence.gain_over_control, settings.min_gain_over_control),
        _non_inferiority(evidence.gain_over_champion, settings.non_inferiority_margin),
    )
    flags = ("Made-up data (phantom): the figures say nothing about tissue.",) if evidence.phantom else ()
    return Decision(all(reason.passed for reason in reasons), reasons, flags)


def _selection(validator: str) -> Reason:
    passed = validator != "oracle"
    words = f"selected by {validator}, without target labels" if passed else "selected by oracle, with target labels"
    return Reason("selection", passed, None, None, words)


def _groups(settings: Gate, groups: Mapping[str, int]) -> tuple[Reason, Reason]:
    total, least = sum(groups.values()), settings.min_audit_groups
    listed = ", ".join(f"{count} {name}" for name, count in groups.items()) or "none"
    smallest = min(groups.values(), default=0) if len(groups) > 1 else 0
    return (
        Reason("audit groups", total >= least, total, least, f"labelled groups in the audit set: {listed}"),
        Reason(
            "audit groups per class",
            smallest >= MIN_GROUPS_PER_CLASS,
            smallest,
            MIN_GROUPS_PER_CLASS,
            "groups of the rarer class; fewer cannot give an interval",
        ),
    )


def _floor(name: str, interval: Interval, limit: float) -> Reason:
    passed = interval.point >= limit
    return Reason(name, passed, interval.point, limit, f"{_shown(interval)}, floor for the estimate {limit:.3f}")


def _gain(name: str, interval: Interval, limit: float) -> Reason:
    passed = interval.low > limit
    words = f"balanced accuracy {_shown(interval, signed=True)}, the lower end must exceed {limit:+.3f}"
    return Reason(name, passed, interval.low, limit, words)


def _non_inferiority(interval: Interval | None, margin: float) -> Reason:
    name = "not inferior to champion"
    if interval is None:
        return Reason(name, True, None, None, "there is no champion yet")
    words = f"balanced accuracy {_shown(interval, signed=True)}, the lower end must reach {-margin:+.3f}"
    return Reason(name, interval.low >= -margin, interval.low, -margin, words)


def _shown(interval: Interval, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{interval.point:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"
