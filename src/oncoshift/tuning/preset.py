"""The best configuration as a preset: a YAML file for `--preset`, with its origin on top."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncoshift.settings import unflatten
from oncoshift.settings.files import dump

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def format_preset(values: Mapping[str, Any], provenance: Sequence[str]) -> str:
    """Format settings as a preset with a leading comment.

    Args:
        values: settings by dotted key.
        provenance: lines of the comment.
    """
    comment = "".join(f"# {line}\n" for line in provenance)
    return comment + dump(unflatten(values))
