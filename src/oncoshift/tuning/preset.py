"""The best configuration as a preset: a YAML file that `--preset` takes as it is, with where it comes from above."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from oncoshift.settings import nested

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def preset_text(values: Mapping[str, Any], provenance: Sequence[str]) -> str:
    """A preset's text.

    Args:
        values: settings by dotted key.
        provenance: lines of its comment.
    """
    comment = "".join(f"# {line}\n" for line in provenance)
    return comment + yaml.safe_dump(nested(values), sort_keys=False, width=110, allow_unicode=True)
