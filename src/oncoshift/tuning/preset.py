"""The best configuration as a preset: a YAML file that `--preset` takes as it is, with where it comes from above."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncoshift.settings import unflatten
from oncoshift.settings.files import dump

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def format_preset(values: Mapping[str, Any], provenance: Sequence[str]) -> str:
    """Format a preset.

    Args:
        values: settings by dotted key.
        provenance: lines of its comment.
    """
    comment = "".join(f"# {line}\n" for line in provenance)
    return comment + dump(unflatten(values))
