"""Read params.yaml, a preset and `--set` overrides into one validated `Settings`.

Later sources win: defaults below < params.yaml < preset < `--set`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from oncoshift.errors import SettingsError
from oncoshift.settings.files import dump, expand, find_preset, merge, parse_override, read_mapping, unflatten
from oncoshift.settings.tree import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

_EXPANDED_LATE = ("tune.storage", "tracking.uri")
"""Settings whose `${NAME}` is expanded only where they are used, since it may hold a password."""


def load_settings(
    params: Path | None = None, *, preset: str | None = None, overrides: tuple[str, ...] = (), trusted: bool = True
) -> Settings:
    """Read and validate settings.

    Args:
        params: a params.yaml; None for the defaults.
        preset: a name under `presets/` beside params.yaml, or the path of a YAML file.
        overrides: `section.key=value` strings; values are YAML. A method or variant that they name
            is trained, whatever `retrain.methods` and `retrain.variants` of a file say.
        trusted: whether the caller may read any file as a preset; else only files in the folder of
            params.yaml.

    Returns:
        The validated settings, with `${NAME:-default}` in the strings of files replaced from the
        environment, but for `tune.storage` and `tracking.uri`.

    Raises:
        SettingsError: a file is missing or not YAML, or a key or value is not allowed; the message
            has one line per problem, with the key's path, the value and what is allowed.
    """
    merged: dict[str, Any] = {}
    if params is not None:
        merged = read_mapping(params)
    if preset is not None:
        project = params.parent if params is not None else Path()
        merged = merge(merged, read_mapping(find_preset(preset, project, trusted=trusted)))
    merged = expand(merged, _EXPANDED_LATE)
    for override in overrides:
        merged = merge(merged, parse_override(override))
    named = {override.partition("=")[0].strip() for override in overrides}
    if "train.method" in named and "retrain.methods" not in named:
        merged = merge(merged, {"retrain": {"methods": []}})
        named.add("retrain.methods")
    no_method = "retrain.methods" in named and not merged["retrain"]["methods"]
    if ("train.variant" in named or no_method) and "retrain.variants" not in named:
        merged = merge(merged, {"retrain": {"variants": []}})
    return parse_settings(merged)


def parse_settings(values: dict[str, Any]) -> Settings:
    """Validate a plain mapping as `Settings`; see `load_settings` for the errors."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(problem) for problem in error.errors())) from None


def dump_settings(settings: Settings) -> str:
    """Write settings as the text of a params.yaml, which reads back as the same settings."""
    return dump(settings.model_dump(mode="json"))


def flatten(settings: Settings) -> dict[str, Any]:
    """Map dotted keys to values, for run parameters; the reverse of `unflatten`."""
    return flatten_values(settings.model_dump(mode="json"))


def flatten_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Map the dotted keys of nested values to them, for settings of any version."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = value

    walk("", values)
    return flat


def replace_values(settings: Settings, values: dict[str, Any]) -> Settings:
    """Return a validated copy with the values of some dotted keys replaced."""
    return parse_settings(merge(settings.model_dump(mode="json"), unflatten(values)))


_YAML_TERMS = {
    "valid tuple": "list",
    "valid boolean": "true or false",
    "valid dictionary or instance of": "section like",
}
"""Pydantic's term for a type → the term of YAML."""


def _explain(problem: Any) -> str:
    """Describe one pydantic problem in a line: the key's path, the value, what is allowed."""
    path = ".".join(str(part) for part in problem["loc"]) or "params.yaml"
    if problem["type"] == "extra_forbidden":
        section: Any = Settings
        for part in problem["loc"][:-1]:
            section = section.model_fields[part].annotation
        return f"{path}: unknown key; allowed here: {', '.join(section.model_fields)}"
    message: str = problem["msg"].removeprefix("Value error, ")
    for theirs, ours in _YAML_TERMS.items():
        message = message.replace(theirs, ours)
    value = list(problem["input"]) if isinstance(problem["input"], tuple) else problem["input"]
    if problem["loc"]:
        return f"{path}: {value!r} is not allowed; {message[0].lower()}{message[1:]}"
    return message
