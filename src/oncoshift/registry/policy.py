"""The rules of the gate that a project may add to the floors and gains, each off by default.

A rule without a bound still records its value, so that a bound can be chosen from past decisions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oncoshift.settings import GateSettings


FAILED = "FAILED"
"""How a tag with the outcome of a failed condition begins."""


@dataclass(frozen=True)
class Reason:
    """One condition of the gate.

    Attributes:
        check: name of the condition.
        passed: whether it holds.
        value: the value that was judged; None where the condition is not about a number.
        limit: the bound that the value must reach; None likewise.
        words: the condition and its outcome in a sentence.
        listed: what was counted, a sentence each; pages give each a line.
        measured: whether there was something to judge; a condition holds without where it may.
    """

    check: str
    passed: bool
    value: float | None
    limit: float | None
    words: str
    listed: tuple[str, ...] = ()
    measured: bool = True

    @property
    def mark(self) -> Literal["passed", "recorded", "unmeasured", "failed"]:
        """The outcome in a word; a value without a bound is recorded."""
        if not self.passed:
            return "failed"
        if not self.measured:
            return "unmeasured"
        return "recorded" if self.value is not None and self.limit is None else "passed"

    @property
    def outcome(self) -> str:
        """The outcome in a line, for a tag."""
        return f"{self.mark if self.passed else FAILED}: {self.line}"

    @property
    def line(self) -> str:
        """The condition, its outcome and what was counted in one line."""
        return f"{self.words}: {'; '.join(self.listed)}" if self.listed else self.words


@dataclass(frozen=True)
class PolicyEvidence:
    """The evidence on a challenger that these rules judge.

    Attributes:
        ece: expected calibration error on the audit set.
        latency_ms: time to score one audit tile as served, in a batch of all, in milliseconds.
        worst_seed: balanced accuracy of the method's worst seed on the audit set.
        map_similarity: similarity of attribution maps to those of randomised parameters, 0 to 1;
            maps that are alike do not show what was learned. None if that was not measured.
        alarms: open findings of the training and of the data's validation.
    """

    ece: float
    latency_ms: float
    worst_seed: float
    map_similarity: float | None
    alarms: Sequence[str]


def check_policy(settings: GateSettings, evidence: PolicyEvidence) -> tuple[Reason, ...]:
    """Check the optional rules of section `gate`; a value that is NaN fails its condition."""
    alarms = _check("alarms", len(evidence.alarms), settings.max_alarms, "most", "max_alarms", " open")
    return (
        _check("calibration error", evidence.ece, settings.max_ece, "most", "max_ece"),
        _check("worst seed", evidence.worst_seed, settings.min_worst_seed, "least", "min_worst_seed"),
        _check("latency", evidence.latency_ms, settings.max_latency_ms, "most", "max_latency_ms", " ms a tile"),
        replace(alarms, listed=tuple(evidence.alarms)),
        _check_explanation(settings, evidence.map_similarity),
    )


def _check(
    name: str, value: float, bound: float | None, side: Literal["least", "most"], key: str, unit: str = ""
) -> Reason:
    shown = str(value) if isinstance(value, int) else f"{value:.3f}"
    if bound is None:
        return Reason(name, True, value, None, f"{shown}{unit}, no bound is set (gate.{key})")
    passed = value >= bound if side == "least" else value <= bound
    return Reason(name, passed, value, bound, f"{shown}{unit}, at {side} {bound:g}")


def _check_explanation(settings: GateSettings, similarity: float | None) -> Reason:
    """Check that explanations show what was learned: they change when parameters are randomised."""
    if similarity is None:
        passed, words = settings.max_map_similarity is None, "whether maps depend on the parameters was not measured"
        return Reason("explanation", passed, None, settings.max_map_similarity, words, measured=False)
    unit = " similarity to maps of randomised parameters"
    return _check("explanation", similarity, settings.max_map_similarity, "most", "max_map_similarity", unit)
