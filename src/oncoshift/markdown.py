"""Markdown from untrusted text: names of organs and files, typed reasons, error messages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Only brackets that form a link, heading, quotation and list marks at the start, and underscores
# that do not join words are escaped. The rest, such as an interval [0.70, 0.95], stays readable.
_MARKS = re.compile(r"[\\`*|~]|\](?=[(\[:])|^(?:[#>]|[+-](?=\s))|(?<![^\W_])_|_(?![^\W_])")

_ENTITY = re.compile(r"&(?=#?\w+;)")


def escape(text: str) -> str:
    """Escape a text into one line of Markdown that shows it literally, without links or HTML."""
    plain = _ENTITY.sub("&amp;", " ".join(text.split())).replace("<", "&lt;")
    return _MARKS.sub(r"\\\g<0>", plain)


def render_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Render a table whose cells are shown literally."""
    return "\n".join(f"| {' | '.join(map(escape, cells))} |" for cells in (header, ["---"] * len(header), *rows))
