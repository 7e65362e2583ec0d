"""The search space: the `Range` that stands beside a setting's default, by the setting's dotted key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from oncoshift.errors import SettingsError
from oncoshift.settings import Range, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from optuna import Trial


def tunable(section: type[BaseModel] = Settings, prefix: str = "") -> dict[str, Range]:
    """Every setting that has a range, by dotted key."""
    found: dict[str, Range] = {}
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= tunable(field.annotation, f"{prefix}{name}.")
        found |= {f"{prefix}{name}": item for item in field.metadata if isinstance(item, Range)}
    return found


def search_space(keys: Iterable[str]) -> dict[str, Range]:
    """The ranges of some settings.

    Raises:
        SettingsError: a key has no range.
    """
    known = tunable()
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise SettingsError(f"tune.parameters: {', '.join(unknown)} cannot be tuned; allowed: {', '.join(known)}")
    return {key: known[key] for key in keys}


def suggest(trial: Trial, space: dict[str, Range]) -> dict[str, float]:
    """A trial's values, by dotted key."""
    return {key: trial.suggest_float(key, range_.low, range_.high, log=range_.log) for key, range_ in space.items()}
