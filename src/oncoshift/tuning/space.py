"""The search space: the `Range` or `Choices` beside each setting's default, by dotted key."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from pydantic import BaseModel

from oncoshift.errors import SettingsError
from oncoshift.settings import Choices, Range, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Space = dict[str, Range | Choices]

ALL = "all"
"""Value of `tune.parameters` for every tunable setting that the method reads."""


def list_tunable(section: type[BaseModel] = Settings, prefix: str = "") -> Space:
    """List every setting that has a range or choices, by dotted key."""
    found: Space = {}
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= list_tunable(field.annotation, f"{prefix}{name}.")
        for item in field.metadata:
            if isinstance(item, Range):
                found[f"{prefix}{name}"] = item
            elif isinstance(item, Choices):
                values = item.values or get_args(field.annotation) or (False, True)
                found[f"{prefix}{name}"] = Choices(values)
    return found


def select_parameters(parameters: Iterable[str], sections: set[str], settings: Settings) -> tuple[list[str], list[str]]:
    """Select the settings to search: those that the training reads, since others have no effect.

    Args:
        parameters: `tune.parameters`.
        sections: that the method reads.
        settings: of the experiment.

    Returns:
        Dotted keys to search, and those of `parameters` that the method does not read.

    Raises:
        SettingsError: a key has neither range nor choices.
    """
    known = list_tunable()
    unknown = [key for key in parameters if key not in known and key != ALL]
    if unknown:
        raise SettingsError(
            f"tune.parameters: {', '.join(unknown)} cannot be tuned; allowed: {ALL}, {', '.join(known)}"
        )
    wanted = list(known) if ALL in parameters else list(dict.fromkeys(parameters))
    read = [key for key in wanted if key.split(".")[0] in sections]
    if ALL not in parameters:
        return read, [key for key in wanted if key not in read]
    frozen = settings.model.freeze != "none"  # features are computed once, so tiles cannot be augmented
    return [key for key in read if not (frozen and key.endswith(".stain_jitter"))], []


def build_search_space(present: Mapping[str, Any]) -> Space:
    """Build the search space of some settings, widened to include their present values.

    Args:
        present: present values by dotted key; every key must be tunable.

    Raises:
        SettingsError: a present value cannot be on the range's logarithmic scale.
    """
    known = list_tunable()
    return {key: _widen(key, known[key], value) for key, value in present.items()}


def to_distributions(space: Space) -> dict[str, BaseDistribution]:
    """Convert the space to Optuna's distributions."""
    return {
        key: CategoricalDistribution(item.values)
        if isinstance(item, Choices)
        else FloatDistribution(item.low, item.high, log=item.log)
        for key, item in space.items()
    }


def _widen(key: str, item: Range | Choices, value: Any) -> Range | Choices:
    if isinstance(item, Choices):
        return item if value in item.values else Choices((*item.values, value))
    if item.log and value <= 0:
        raise SettingsError(
            f"{key}: {value} cannot be tuned, as the range from {item.low} to {item.high} is logarithmic; "
            "set it above 0, or take it out of tune.parameters"
        )
    return replace(item, low=min(item.low, value), high=max(item.high, value))
