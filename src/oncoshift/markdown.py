"""Text from outside in a Markdown document: names of organs and files, reasons that somebody typed, errors."""

from __future__ import annotations

import re

# Of brackets, those that make a link; of marks at the start, a heading's, a quotation's and a list's; of underscores,
# those that do not join words. The rest, such as an interval [0.70, 0.95], stays readable as it is.
_MARKS = re.compile(r"[\\`*|~]|\](?=[(\[:])|^(?:[#>]|[+-](?=\s))|(?<![^\W_])_|_(?![^\W_])")

_ENTITY = re.compile(r"&(?=#?\w+;)")


def escape(text: str) -> str:
    """A text as a line of Markdown that shows it as it is, without markup, links or HTML of its own."""
    plain = _ENTITY.sub("&amp;", " ".join(text.split())).replace("<", "&lt;")
    return _MARKS.sub(r"\\\g<0>", plain)
