"""A CSV from any program is read as meant, or one error names the file, the line and the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.data_sets import open_and_scan

from oncoshift.cli import main
from oncoshift.data.source.csv_rows import read_rows
from oncoshift.errors import DataError
from oncoshift.settings import IngestSettings

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "path,organ,label,group\na.png,lung,benign,Müller\n"
BAD = {
    "latin-1": (TEXT.encode("latin-1"), r"line 2 is not UTF-8 \(byte b'\\xfc'.*save the file as UTF-8"),
    "utf-16": (TEXT.encode("utf-16"), "line 1 holds NUL bytes, as UTF-16 does; save the file as UTF-8"),
    "nul": (TEXT.encode() + b"b.png,lung,benign,g\0\n", "line 3 holds NUL bytes"),
    "quote that is not closed": (TEXT.encode() + b'"b.png,lung,benign,g\n' * 3, "line 3 is no row .* double quote"),
    "quote inside a cell": (TEXT.encode() + b'"b.png"x,lung,benign,g\n', "line 3 is no row .* double quote"),
    "comma inside a cell": (TEXT.encode() + b"b,1.png,lung,benign,g\n", "line 3 has 5 cells and the header 4"),
    "no end of line": (b"x" * 2**21, "line 1 has more than 1048576 bytes"),
    "semicolons": (TEXT.replace(",", ";").encode(), "line 1 has semicolons .* with commas"),
    "line ends of old Macs": (TEXT.replace("\n", "\r").encode(), "line 1 is no row .* line ends of Unix"),
    "column twice": (b"path,organ,label,group,group\n", "line 1 has the column group twice"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_what_is_wrong_with_the_text_is_named_with_its_line(tmp_path: Path, case: str) -> None:
    content, message = BAD[case]
    path = tmp_path / "tiles.csv"
    path.write_bytes(content)
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match=rf"tiles\.csv: {message}") as error:
        open_and_scan(IngestSettings(adapter="manifest"), tmp_path, tmp_path / "unpacked")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("case", ["latin-1", "utf-16", "nul", "quote that is not closed"])
def test_leaks_reads_a_csv_by_the_same_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    path = tmp_path / "folds.csv"
    path.write_bytes(BAD[case][0].replace(b"organ", b"split").replace(b"o\0r\0g\0a\0n", b"s\0p\0l\0i\0t"))
    assert main(["leaks", str(path), "--out", str(tmp_path / "leaks")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {path}: line ")


def test_marks_blanks_quotes_and_short_or_empty_rows_are_as_spreadsheets_write_them(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        '\ufeffpath , group,\r\n"a, 1.png", p1 ,\r\n,,\r\n\r\nb.png\r\n"c ""d"".png","x\ny",,\r\n'.encode()
    )
    assert list(read_rows(path, ("path", "group"))) == [
        (2, {"path": "a, 1.png", "group": "p1", "": ""}),
        (5, {"path": "b.png", "group": "", "": ""}),
        (6, {"path": 'c "d".png', "group": "x\ny", "": ""}),
    ]
