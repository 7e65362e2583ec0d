"""A sheet of proposed tiles: a folder with their pictures, a contact sheet and a CSV to fill in.

Pictures are numbered, since a path may spell a label. A picture is the tile's own file, byte for
byte, so its hash says whether it is still the tile.
"""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from oncoshift.data.csv_file import write_csv
from oncoshift.data.names import as_path_cell, as_text_cell
from oncoshift.errors import DataError
from oncoshift.files import atomic, sha256_file
from oncoshift.serving.images import UnreadableImageError, decode, read_image_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ANSWERS, CONTACTS, PICTURES = "labels.csv", "sheet.png", "tiles"
"""The files and the folder of a sheet."""

COLUMNS = ("tile_id", "group", "file", "use", "label", "sha256")
"""Columns of the CSV. file: of the picture, relative to the CSV. label: empty until it is given."""

_SIDE, _GAP, _CAPTION, _PER_ROW = 224, 8, 18, 5


@dataclass(frozen=True)
class Row:
    """A row of the CSV, as texts.

    Attributes:
        tile_id: of the tile.
        group: of the tile.
        file: name of the picture, relative to the CSV.
        use: what the label is for.
        label: the label, or empty.
        sha256: of the tile's file.
        line: number of its last line in the CSV, from 1.
    """

    tile_id: str
    group: str
    file: str
    use: str
    label: str
    sha256: str
    line: int = 0

    @property
    def word(self) -> str:
        """The label as one of `table.WORDS` would be written; empty where there is none."""
        return self.label.strip().lower()


def write_sheet(folder: Path, rows: Sequence[Row], files: Sequence[Path]) -> None:
    """Write pictures, contact sheet and CSV, the CSV last.

    Args:
        folder: of the sheet; what an earlier sheet left there is replaced.
        rows: without `file`, which this function names.
        files: the tiles' files, in the order of `rows`.

    Raises:
        DataError: a tile's file is gone, or no longer the one that stage ingest read.
    """
    pictures = folder / PICTURES
    (folder / ANSWERS).unlink(missing_ok=True)
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir(parents=True)
    width = len(str(len(rows)))
    named = [
        replace(row, file=f"{PICTURES}/{number:0{width}}{file.suffix.lower()}")
        for number, (row, file) in enumerate(zip(rows, files, strict=True), start=1)
    ]
    for row, file in zip(named, files, strict=True):
        try:
            data = read_image_file(file)
        except UnreadableImageError as error:
            raise DataError(f"{file}: {error}; `dvc checkout` restores the raw tiles") from error
        (folder / row.file).write_bytes(data)
        if sha256_file(folder / row.file) != row.sha256:
            raise DataError(f"{file}: has changed since stage ingest read it; run `dvc repro`")
    with atomic(folder / CONTACTS) as temporary:
        _draw_contacts([folder / row.file for row in named]).save(temporary, format="PNG")
    write_rows(folder / ANSWERS, named)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write the CSV, whole or not at all; no cell is a formula to a spreadsheet."""
    safe = [replace(row, tile_id=as_path_cell(row.tile_id), group=as_text_cell(row.group)) for row in rows]
    write_csv(path, COLUMNS, [[getattr(row, column) for column in COLUMNS] for row in safe])


def read_rows(path: Path) -> list[Row]:
    """Read a CSV that a person has filled in, with commas or semicolons, as spreadsheets save it.

    Raises:
        DataError: it is gone or not UTF-8, lacks a column or has another, or a row has not as many
            cells.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; `oncoshift label propose` writes one") from None
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 ({error}); save it as a CSV in UTF-8") from None
    head = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text), delimiter=";" if head.count(";") > head.count(",") else ",")
    header = [cell.strip() for cell in next(reader, [])]
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise DataError(f"{path}: its first line lacks {', '.join(missing)}; it must name {', '.join(COLUMNS)}")
    strange = [column for column in header if column not in COLUMNS]
    if strange:
        raise DataError(f"{path}: column {strange[0]!r} would be lost when an answer is saved; keep it in another file")
    rows = []
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise DataError(
                f"{path}, line {reader.line_num}: {len(cells)} cells, and the first line has {len(header)}; "
                "put them right"
            )
        values = dict(zip(header, cells, strict=True))
        tile_id, group = _undo_path_cell(values["tile_id"]), _undo_text_cell(values["group"])
        file, use, label, sha256 = (values[name].strip() for name in COLUMNS[2:])
        rows.append(Row(tile_id, group, file, use, label, sha256, reader.line_num))
    return rows


def _undo_path_cell(cell: str) -> str:
    """Undo `as_path_cell`."""
    rest = cell.removeprefix("./")
    return rest if as_path_cell(rest) == cell else cell


def _undo_text_cell(cell: str) -> str:
    """Undo `as_text_cell`."""
    rest = cell.removeprefix("'")
    return rest if as_text_cell(rest) == cell else cell


def _draw_contacts(files: Sequence[Path]) -> Image.Image:
    """Draw the pictures in rows, each under its number."""
    across, down = min(_PER_ROW, len(files)), -(-len(files) // _PER_ROW)
    size = (across * (_SIDE + _GAP) + _GAP, down * (_SIDE + _CAPTION + _GAP) + _GAP)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for position, file in enumerate(files):
        left = _GAP + position % _PER_ROW * (_SIDE + _GAP)
        top = _GAP + position // _PER_ROW * (_SIDE + _CAPTION + _GAP)
        draw.text((left, top), file.stem, fill="black", font=font)
        picture = Image.fromarray(decode(read_image_file(file)))
        scale = _SIDE / max(picture.size)
        fitted = picture.resize((max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)))
        sheet.paste(fitted, (left, top + _CAPTION))
    return sheet
