"""The outcome of watching one batch: signals, estimate, and what has passed its limit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from oncoshift.markdown import escape
from oncoshift.registry.loading import ModelIdentity
from oncoshift.watching.estimate import Estimate
from oncoshift.watching.signals import Signal

ACCURACY = "balanced accuracy"


@dataclass(frozen=True)
class Outcome:
    """What was found of a batch.

    Attributes:
        model: the model that judged it.
        batch: name of the batch.
        at: when it was first looked at, ISO 8601 in UTC.
        total: number of its tiles.
        tiles: number of those that were looked at.
        groups: number of their groups; None where they are unknown.
        malignant: share of the tiles that the model calls malignant; None if it can judge none.
        abstained: share of tiles without a label.
        signals: the comparisons.
        estimate: of balanced accuracy.
        floor: balanced accuracy below which the estimate is an alarm.
        least_p: least p-value that so many groups can give.
        false_alarms: largest p-value of an alarm.
    """

    model: ModelIdentity
    batch: str
    at: str
    total: int
    tiles: int
    groups: int | None
    malignant: float | None
    abstained: float
    signals: tuple[Signal, ...]
    estimate: Estimate
    floor: float
    least_p: float
    false_alarms: float

    @property
    def alarms(self) -> tuple[str, ...]:
        """Names of what has passed its limit."""
        high = self.estimate.high
        below = (ACCURACY,) if high is not None and high < self.floor else ()
        return (*(signal.name for signal in self.signals if signal.alarm), *below)

    @property
    def words(self) -> str:
        """The outcome in a line."""
        if self.alarms:
            return f"drift: {', '.join(self.alarms)} past the limit"
        if self.blind:
            return self.blind
        far = [signal.name for signal in self.signals if abs(signal.shift) >= signal.limit]
        if far:
            return f"no drift shown: {', '.join(far)} past the limit, which may be chance by p; more groups would tell"
        return "no drift"

    @property
    def title(self) -> str:
        """The outcome in a few words, for the name of a run."""
        return ", ".join(self.alarms) or self.words.partition(":")[0]

    @property
    def blind(self) -> str:
        """Why no comparison could have been an alarm; empty if one could."""
        if self.least_p < self.false_alarms:
            return ""
        few = "groups are unknown, so the batch counts as one" if self.groups is None else "too few groups"
        return f"cannot tell: {few}, and p cannot fall below {self.least_p:.2f}; name groups in a CSV, or add more"

    @property
    def metrics(self) -> dict[str, float]:
        """Figures for MLflow."""
        values: dict[str, float | None] = {
            "watch/tiles": float(self.total),
            "watch/alarms": float(len(self.alarms)),
            "watch/malignant_share": self.malignant,
            "watch/abstain_share": self.abstained,
            "watch/balanced_accuracy": self.estimate.point,
            "watch/balanced_accuracy_low": self.estimate.low,
            "watch/balanced_accuracy_high": self.estimate.high,
        }
        for signal in self.signals:
            values |= {f"watch/{signal.name}_shift": signal.shift, f"watch/{signal.name}_p": signal.p}
        return {name: value for name, value in values.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {**asdict(self), "model": self.model._asdict(), "alarms": list(self.alarms), "words": self.words}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        known = {name: values[name] for name in cls.__dataclass_fields__}
        return cls(
            **known
            | {
                "model": ModelIdentity(**values["model"]),
                "signals": tuple(Signal(**signal) for signal in values["signals"]),
                "estimate": Estimate(**values["estimate"]),
            }
        )

    def to_markdown(self) -> str:
        """Render as Markdown: a line and a table."""
        head = ["| | shift | alarm from | p | |", "|---|---:|---:|---:|---|"]
        rows = [
            f"| {'**' * signal.alarm}{signal.name}{'**' * signal.alarm} | {signal.shift:.2f} | {signal.limit:.2f} "
            f"| {signal.p:.3f} | {escape(signal.words)} |"
            for signal in self.signals
        ]
        last = f"Balanced accuracy, estimated without labels: {escape(str(self.estimate))}."
        return "\n".join([f"**{escape(self.batch)}**: {escape(self.words)}.", "", *head, *rows, "", last]) + "\n"
