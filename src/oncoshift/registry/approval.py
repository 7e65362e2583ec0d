"""A person's approval of a version that passed the gate (`gate.approval: human`), as tags of it.

So request and answer outlive the process that asked, and anybody with access to the registry can
answer.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, Self

from oncoshift.registry.times import get_time, shorten_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncoshift.registry.history import Action

State = Literal["awaited", "approved", "refused", "timed out", "overtaken"]

APPROVAL_TAG, APPROVED = "oncoshift.approval", "approved"
"""Tag of a version with the state of its approval, and the state that promotes it."""

_ACTIONS: dict[State, Action] = {
    "awaited": "await",
    "approved": "promote",
    "refused": "refuse",
    "timed out": "refuse",
    "overtaken": "refuse",
}


@dataclass(frozen=True)
class Approval:
    """A request for approval, and its answer if there is one.

    Attributes:
        state: whether it is answered, and how; overtaken by what happened since the gate.
        until: end of the time to answer, ISO 8601 in UTC.
        champion: version that was champion when the gate decided, or None.
        retraining: id of the MLflow run of the retraining that asked.
        by: who answered; empty without an answer.
        reason: reason of the answer.
        at: time of the answer, ISO 8601 in UTC.
    """

    state: State
    until: str
    champion: str | None
    retraining: str
    by: str = ""
    reason: str = ""
    at: str = ""

    @classmethod
    def read(cls, tags: Mapping[str, str]) -> Self | None:
        """Read the tags of a version; None if no approval was asked for."""
        if APPROVAL_TAG not in tags:
            return None
        names = ("until", "retraining", "by", "reason", "at")
        named = {name: tags.get(f"{APPROVAL_TAG}.{name}", "") for name in names}
        champion = tags.get(f"{APPROVAL_TAG}.champion")
        state: State = tags[APPROVAL_TAG]  # type: ignore[assignment]
        return cls(state, champion=champion, **named)

    def to_tags(self) -> dict[str, str]:
        """Return the tags of the version; the one that says the state is the last."""
        values = {key: value for key, value in asdict(self).items() if key != "state" and value}
        return {**{f"{APPROVAL_TAG}.{key}": value for key, value in values.items()}, APPROVAL_TAG: self.state}

    @property
    def action(self) -> Action:
        """What becomes of the version, for its tag."""
        return _ACTIONS[self.state]

    def is_due(self) -> bool:
        """Return whether there is something to do: an answer has come, or the time is over."""
        return self.state != "awaited" or get_time() > self.until

    @property
    def words(self) -> str:
        """The state in a sentence."""
        if self.state == "awaited":
            return f"a person must approve until {shorten_time(self.until)}"
        if self.state == "overtaken":
            return f"overtaken: {self.reason}"
        if self.state == "timed out":
            return f"nobody approved until {shorten_time(self.until)}"
        return f"{self.state} by {self.by} on {shorten_time(self.at)}: {self.reason}"
