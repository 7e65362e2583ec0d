"""Contact sheets: thumbnails of some tiles side by side, the same ones for the same data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from oncoshift.serving.images import UnreadableImageError, decode, read_image_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_TILES = 32
"""Tiles on one sheet."""

_COLUMNS = 8
_SIDE = 104
_GAP = 6
_CAPTION = 15
_HEADER = 26
_PAPER, _INK, _FAINT = (255, 255, 255), (30, 30, 30), (110, 110, 110)


@dataclass(frozen=True)
class Thumbnail:
    """One tile on a sheet.

    Attributes:
        path: its file.
        order: sort key; the content's hash, so that neither name nor label decides which are shown.
        caption: the text below it.
    """

    path: Path
    order: str
    caption: str


def draw_sheet(title: str, thumbnails: Sequence[Thumbnail]) -> Image.Image:
    """Draw the first `MAX_TILES` tiles by `order`; one that cannot be decoded is a crossed box.

    Args:
        title: the text above the tiles.
        thumbnails: at least one; the files are opened one after the other.
    """
    chosen = sorted(thumbnails, key=lambda tile: (tile.order, str(tile.path)))[:MAX_TILES]
    columns = min(_COLUMNS, max(len(chosen), 4))
    rows = -(-len(chosen) // columns)
    cell = (_SIDE + _GAP, _SIDE + _CAPTION + _GAP)
    sheet = Image.new("RGB", (columns * cell[0] + _GAP, _HEADER + rows * cell[1] + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 6), title, fill=_INK, font=ImageFont.load_default(size=13))
    small = ImageFont.load_default(size=10)
    for number, thumbnail in enumerate(chosen):
        left = _GAP + (number % columns) * cell[0]
        top = _HEADER + (number // columns) * cell[1]
        picture = _load_picture(thumbnail.path)
        if picture is None:
            draw.rectangle((left, top, left + _SIDE - 1, top + _SIDE - 1), outline=_FAINT)
            draw.line((left, top, left + _SIDE - 1, top + _SIDE - 1), fill=_FAINT)
        else:
            sheet.paste(picture, (left + (_SIDE - picture.width) // 2, top + (_SIDE - picture.height) // 2))
        draw.text((left, top + _SIDE + 2), _shorten(thumbnail.caption), fill=_FAINT, font=small)
    return sheet


def _load_picture(path: Path) -> Image.Image | None:
    try:
        picture = Image.fromarray(decode(read_image_file(path)))
    except UnreadableImageError:
        return None
    scale = _SIDE / max(picture.size)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    # Enlarged without smoothing, which would make a tiny tile look sharp.
    return picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)


def _shorten(caption: str, width: int = 17) -> str:
    """Keep the end of a long caption, where names of groups differ."""
    return caption if len(caption) <= width else f"…{caption[-(width - 1) :]}"
