"""Reading of params.yaml, presets and `--set` overrides into plain values, before validation.

YAML is read by the library that DVC uses: version 1.2, in which `010` is ten, and `yes` and `12:30`
are strings. A file whose aliases would expand without end is refused before it is built.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

from oncoshift.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MAX_BYTES = 100_000
MAX_DEPTH = 20
MAX_VALUES = 10_000
"""Limits of a YAML file; params.yaml has 5 kB, 2 levels and 200 values. Aliases count as what they
stand for."""

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


class _YamlError(ValueError):
    """An error in a YAML text, with its line, from 1, if known."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


def read_mapping(path: Path) -> dict[str, Any]:
    """Read the sections of a params.yaml or of a preset.

    Raises:
        SettingsError: one line with the file, the line in it, what is wrong, and what to do.
    """
    try:
        loaded = _parse(_read_text(path))
    except _YamlError as problem:
        where = str(path) if problem.line is None else f"{path}, line {problem.line}"
        raise SettingsError(f"{where}: {problem}") from None
    if loaded is None:
        raise SettingsError(f"{path}: is empty; write at least one setting, such as `seed: 0`")
    if not isinstance(loaded, dict):
        raise SettingsError(f"{path}: must be a mapping of sections, found {type(loaded).__name__}")
    return loaded


def find_preset(preset: str, project: Path, *, trusted: bool) -> Path:
    """Find the file of a preset.

    Args:
        preset: a name under `presets/`, or the path of a YAML file.
        project: the folder that has `presets/`.
        trusted: whether the caller may read any file; else it must lie in the project.

    Raises:
        SettingsError: there is no such preset, or it may not be read.
    """
    folder = project / "presets"
    is_path = preset.endswith((".yaml", ".yml"))
    base = Path() if trusted else project
    path = base / preset if is_path else folder / f"{preset}.yaml"
    if not trusted and not path.resolve().is_relative_to(project.resolve()):
        raise SettingsError(f"preset {preset}: lies outside {project}; name one of presets/, or a file in the project")
    if is_path and not path.exists():
        raise SettingsError(f"--preset {preset}: no such file; name one, or one of {folder}")
    if not is_path and not path.is_file():
        known = sorted(file.stem for file in folder.glob("*.yaml"))
        raise SettingsError(f"--preset {preset}: unknown; {folder} has {', '.join(known) or 'no presets'}")
    return path


def parse_override(override: str) -> dict[str, Any]:
    """Parse `section.key=value`, whose value is YAML, into a section.

    Raises:
        SettingsError: it is not such a pair, or it names an environment variable.
    """
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise SettingsError(f"--set {override}: expected section.key=value, for example model.backbone=resnet18")
    try:
        value = _parse(text)
    except _YamlError as problem:
        raise SettingsError(f"--set {override}: {text!r} is not a valid YAML value: {problem}") from None
    if _VARIABLE.search(str(value)):
        raise SettingsError(
            f"--set {override}: variables are replaced only in files; write {key.strip()} into params.yaml or a preset"
        )
    return unflatten({key.strip(): value})


def unflatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a mapping from dotted keys to values into nested sections; the reverse of `flatten`."""
    sections: dict[str, Any] = {}
    for key, value in values.items():
        for name in reversed(key.split(".")):
            value = {name: value}
        sections = merge(sections, value)
    return sections


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge sections; values of `over` replace those of `base`."""
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        merged[key] = merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def expand(value: Any, kept: Collection[str] = (), key: str = "") -> Any:
    """Replace `${NAME}` and `${NAME:-default}` in every string.

    Args:
        value: plain values.
        kept: dotted keys whose text stays as it is. Their variables must be set all the same.
        key: dotted key of the value.

    Raises:
        SettingsError: a variable is not set.
    """
    if isinstance(value, dict):
        return {name: expand(inner, kept, f"{key}.{name}" if key else str(name)) for name, inner in value.items()}
    if isinstance(value, list):
        return [expand(inner, kept, key) for inner in value]
    if isinstance(value, str):
        expanded = _VARIABLE.sub(_resolve_variable, value)
        return value if key in kept else expanded
    return value


def drop_variables(text: str) -> str:
    """Replace each variable in a text by its default, or remove it."""
    return _VARIABLE.sub(lambda match: match.group(2) or "", text)


def dump(values: Mapping[str, Any]) -> str:
    """Write plain values as YAML 1.2, in their order."""
    writer = YAML(typ="safe")
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    writer.width = 110
    stream = io.StringIO()
    writer.dump(dict(values), stream)
    return stream.getvalue()


def _read_text(path: Path) -> str:
    """Read a file's text.

    Raises:
        _YamlError: it is not text in UTF-8, is too large, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _YamlError("no such file; run from the folder that has params.yaml, or name one with --params") from None
    except OSError as error:
        raise _YamlError(f"cannot be read: {error.strerror}; it must be a readable file") from None
    if len(data) > MAX_BYTES:
        raise _YamlError(f"has more than {MAX_BYTES} bytes; is it the right file? Settings are small")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _YamlError("is UTF-16; save it as UTF-8, for example by `iconv -f utf-16 -t utf-8`")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte, line = data[error.start], data.count(b"\n", 0, error.start) + 1
        raise _YamlError(
            f"byte 0x{byte:02x} is not UTF-8; save the file as UTF-8, for example by `iconv -f latin1 -t utf-8`", line
        ) from None


def _parse(text: str) -> Any:
    """Parse a YAML text into its value.

    Raises:
        _YamlError: it is not valid YAML, holds more than one document, or exceeds the limits.
    """
    try:
        _check_limits(text)
        return YAML(typ="safe").load(text)
    except _YamlError:
        raise
    except DuplicateKeyError as error:
        duplicate = str(error.problem).partition(" with value")[0]  # the rest is the value, which may be a section
        raise _YamlError(f"{duplicate}; merge the two, since the first would be lost", _find_line(error)) from None
    except MarkedYAMLError as error:
        problem = " ".join(str(part) for part in (error.context, error.problem) if part)
        raise _YamlError(f"not valid YAML: {' '.join(problem.split())}", _find_line(error)) from None
    except (YAMLError, ValueError) as error:
        raise _YamlError(f"not valid YAML: {str(error).splitlines()[0]}") from None


def _check_limits(text: str) -> None:
    """Count values before any is built: ten lines of aliases can expand to a thousand million.

    Raises:
        _YamlError: there are too many values or levels.
    """
    sizes: dict[str, int] = {}
    within: list[tuple[str | None, int]] = []  # the open collections: anchor, and values before
    values = 0
    for event in YAML(typ="safe").parse(text):
        if isinstance(event, CollectionEndEvent):
            anchor, before = within.pop()
            if anchor is not None:
                sizes[anchor] = values - before
            continue
        if isinstance(event, AliasEvent):
            values += sizes.get(event.anchor, 1)
        elif isinstance(event, CollectionStartEvent):
            within.append((event.anchor, values))
            if event.anchor is not None:
                sizes[event.anchor] = MAX_VALUES  # an alias to it from inside has no end
        if isinstance(event, CollectionStartEvent | ScalarEvent):
            values += 1
        if values > MAX_VALUES or len(within) > MAX_DEPTH:
            raise _YamlError(
                f"more than {MAX_VALUES} values (an alias counts as what it stands for), or {MAX_DEPTH} levels; "
                "settings have fewer",
                event.start_mark.line + 1,
            )


def _find_line(error: MarkedYAMLError) -> int | None:
    mark = error.problem_mark or error.context_mark
    return None if mark is None else mark.line + 1


def _resolve_variable(match: re.Match[str]) -> str:
    name, default = match.group(1), match.group(2)
    value = os.environ.get(name, default)
    if value is None:
        raise SettingsError(
            f"${{{name}}}: the environment variable is not set; set it, or give a default: ${{{name}:-…}}"
        )
    return value
