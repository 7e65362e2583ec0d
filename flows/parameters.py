"""Parameters of flows that choose an experiment, with the types by which Prefect's form shows them.

A flow that has some of them is decorated with `validate_parameters=False`: the server refuses what
the form does not allow, and `load_chosen_settings` says in one line what is wrong.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any

from flows import PROJECT
from oncoshift.methods.registry import METHODS
from oncoshift.settings import load_settings
from oncoshift.settings.base import OneOf

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

    from oncoshift.settings import Settings


def list_presets(project: Path) -> tuple[str, ...]:
    """List what the parameter `preset` can be: the names of presets/, and the results of tuning."""
    found = (*project.glob("runs/best.yaml"), *project.glob("experiments/*/runs/best.yaml"))
    tuned = (path.relative_to(project).as_posix() for path in sorted(found))
    return (*sorted(path.stem for path in project.glob("presets/*.yaml")), *tuned)


class OneOfPresent(OneOf):
    """`OneOf` of what a project has; where it has none, any text, which settings check."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """See `OneOf`."""
        return super().__get_pydantic_core_schema__(source, handler) if self.names else handler(source)


Method = Annotated[str, OneOf(tuple(METHODS))]
Preset = Annotated[str, OneOfPresent(list_presets(PROJECT))]


def collect_overrides(
    target: str | None = None,
    sources: Iterable[str] | None = None,
    method: str | None = None,
    overrides: Iterable[str] | None = None,
) -> tuple[str, ...]:
    """Turn the parameters into `section.key=value` overrides, those given as such last."""
    named = {
        "target": target,
        "sources": None if sources is None else f"[{', '.join(sources)}]",
        "train.method": method,
    }
    return (*(f"{key}={value}" for key, value in named.items() if value is not None), *(overrides or ()))


def load_chosen_settings(parameters: Mapping[str, Any], *, trusted: bool) -> Settings:
    """Load the settings that a flow's parameters choose.

    Args:
        parameters: of any flow; those that choose no settings are ignored.
        trusted: see `oncoshift.settings.load_settings`.

    Raises:
        SettingsError: a setting is not allowed.
    """
    choices = {name: parameters.get(name) for name in inspect.signature(collect_overrides).parameters}
    return load_settings(
        PROJECT / "params.yaml",
        preset=parameters.get("preset"),
        overrides=collect_overrides(**choices),
        trusted=trusted,
    )
