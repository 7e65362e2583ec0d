"""A small document of headings, text, tables and pictures, as Markdown or self-contained HTML."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from oncoshift.data.names import escape_unprintable
from oncoshift.markdown import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jinja2 import Template
    from PIL import Image

_QUALITY = 78
_TEMPLATE = Path(__file__).with_name("document.html")


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the document's title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list of plain texts."""

    texts: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows of plain texts below a header."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A picture, which Markdown links and HTML embeds.

    Attributes:
        name: the file beside the document.
        alt: what it shows, in words.
        image: the picture.
    """

    name: str
    alt: str
    image: Image.Image


Block = Heading | Paragraph | Items | Table | Picture


def to_markdown(blocks: Sequence[Block]) -> str:
    """Render the document as Markdown; pictures are links to files beside it."""
    return "\n\n".join(_to_markdown(block) for block in blocks) + "\n"


def to_html(blocks: Sequence[Block]) -> str:
    """Render the document as self-contained HTML; its first heading is the page's title."""
    title = next((block.text for block in blocks if isinstance(block, Heading)), "")
    return _load_template().render(title=title, blocks=[(type(block).__name__, block) for block in blocks])


def _to_markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_as_plain_text(text)}"
        case Paragraph(text):
            return _as_plain_text(text)
        case Items(texts):
            return "\n".join(f"- {_as_plain_text(text)}" for text in texts)
        case Picture(name, alt):
            return f"![{_as_plain_text(alt)}]({name})"
        case Table(header, rows):
            lines = [tuple(map(_as_plain_text, line)) for line in (header, *rows)]
            lines.insert(1, ("---",) * len(header))
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@cache
def _load_template() -> Template:
    # Imported here, since most stages write no report.
    from jinja2 import Environment

    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: escape_unprintable(str(value)),
    )
    environment.filters["jpeg"] = _encode_jpeg
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))


def _as_plain_text(text: str) -> str:
    """Escape a text so that Markdown shows it literally, on one line."""
    return escape(escape_unprintable(text))


def _encode_jpeg(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
