"""Faults of tiles: reasons for leaving one out, and those found by measuring its pixels."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from oncoshift.serving.tissue import TissueLimits, find_tissue_fault

if TYPE_CHECKING:
    from oncoshift.serving.tissue import Measurements
    from oncoshift.settings import IngestSettings

Kind = Literal[
    "missing", "outside", "not_utf8", "unreadable", "changed", "named_twice", "small", "blank", "not_he", "blurred",
    "duplicate",
]  # fmt: skip
"""Reasons for leaving a tile out. A `duplicate` is not faulty and does not count towards the
allowed share."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A reason why a tile cannot be used.

    Attributes:
        kind: one word, for counting.
        reason: one line with the value and the limit.
    """

    kind: Kind
    reason: str


def get_limits(settings: IngestSettings) -> TissueLimits:
    """Return the limits of the settings, as a served model gets them."""
    return TissueLimits(**{field.name: getattr(settings, field.name) for field in fields(TissueLimits)})


def find_fault(measured: Measurements, settings: IngestSettings) -> Fault | None:
    """Find the first fault of a tile; None for a sound one."""
    found = find_tissue_fault(measured, get_limits(settings))
    return None if found is None else Fault(found.kind, found.reason)
