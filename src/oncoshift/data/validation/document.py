"""A small document of headings, text, tables and pictures, as Markdown or as one self-contained HTML file."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncoshift.data.names import visible
from oncoshift.markdown import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

_QUALITY = 78
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;margin:1rem 0;font-size:.92em}
th,td{border-bottom:1px solid #ddd;padding:.25rem .8rem .25rem 0;text-align:left;vertical-align:top}
img{max-width:100%;display:block;margin:.6rem 0}
"""


@dataclass(frozen=True)
class Heading:
    """A line above a part; level 1 is the document's title."""

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
    """A picture: Markdown names its file, HTML holds its content.

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
    """The document as Markdown; pictures are links to files beside it."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def to_html(blocks: Sequence[Block]) -> str:
    """The document as HTML that needs no other file; its first heading is the page's title."""
    title = next((block.text for block in blocks if isinstance(block, Heading)), "")
    body = "\n".join(_html(block) for block in blocks)
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{_escaped(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_plain(text)}"
        case Paragraph(text):
            return _plain(text)
        case Items(texts):
            return "\n".join(f"- {_plain(text)}" for text in texts)
        case Picture(name, alt):
            return f"![{_plain(alt)}]({name})"
        case Table(header, rows):
            lines = [tuple(map(_plain, line)) for line in (header, *rows)]
            lines.insert(1, ("---",) * len(header))
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{_escaped(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{_escaped(text)}</p>"
        case Items(texts):
            return "<ul>" + "".join(f"<li>{_escaped(text)}</li>" for text in texts) + "</ul>"
        case Picture(_, alt, image):
            return f'<img alt="{_escaped(alt)}" src="data:image/jpeg;base64,{_jpeg(image)}">'
        case Table(header, rows):
            head = "".join(f"<th>{_escaped(cell)}</th>" for cell in header)
            lines = ["".join(f"<td>{_escaped(cell)}</td>" for cell in row) for row in rows]
            return f"<table><tr>{head}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _plain(text: str) -> str:
    """A text that Markdown shows as it is: on one line, without markup of its own."""
    return escape(visible(text))


def _escaped(text: str) -> str:
    return html.escape(visible(text))


def _jpeg(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
