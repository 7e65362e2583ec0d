"""Names match in either form of Unicode, and are displayed without side effects."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest

from oncoshift.data.names import Finder, as_path_cell, as_text, escape_unprintable, is_hidden, is_text
from oncoshift.data.validation.groups import warn_of_similar_names

if TYPE_CHECKING:
    from pathlib import Path

COMPOSED, DECOMPOSED = "Mu\u0308ller".replace("u\u0308", "\u00fc"), "Mu\u0308ller"


@pytest.mark.parametrize("written", [COMPOSED, DECOMPOSED])
@pytest.mark.parametrize("on_disk", [COMPOSED, DECOMPOSED])
def test_a_file_is_found_in_either_form(tmp_path: Path, written: str, on_disk: str) -> None:
    (tmp_path / on_disk).mkdir()
    (tmp_path / on_disk / f"{on_disk}.png").touch()
    found = Finder()(tmp_path, PurePosixPath(written, f"{written}.png"))
    assert found is not None
    assert found.is_file()
    assert Finder()(tmp_path, PurePosixPath(written, "x\u00fc.png")) is None


def test_what_is_not_utf8_or_not_printable_is_shown_escaped() -> None:
    assert as_text("caf\udce9.png") == r"caf\xe9.png"
    assert as_text("café\t.png") == "café\t.png"
    assert not is_text("caf\udce9.png")
    assert escape_unprintable("café\x1b[0m\u202e\n") == r"café\x1b[0m\u202e\n"


@pytest.mark.parametrize(
    ("name", "hidden"),
    [(".DS_Store", True), ("._a.png", True), ("__MACOSX", True), ("@eaDir", True), ("Thumbs.db", True),
     ("lost+found", True), (".ipynb_checkpoints", True), ("lung", False), ("a.png", False), ("_a.png", False)],
)  # fmt: skip
def test_what_systems_leave_is_hidden(name: str, hidden: bool) -> None:
    assert is_hidden(name) is hidden


def test_a_path_in_a_csv_is_no_formula_and_still_the_path() -> None:
    assert [as_path_cell(path) for path in ("=1+1.png", "@a.png", "-b.png", "+c.png", "a/=1.png")] == [
        "./=1+1.png", "./@a.png", "./-b.png", "./+c.png", "a/=1.png",
    ]  # fmt: skip


def test_groups_that_only_look_alike_are_named_unless_they_became_one() -> None:
    before = ["p7", "P7", "p7 ", "p8", "q1", "Q1"]
    (warning,) = warn_of_similar_names(["p7", "P7", "p7 ", "p8", "q1", "q1"], before)
    assert warning.endswith("rename those that are one: 'P7' and 'p7' and 'p7 '")
    assert warn_of_similar_names(["a", "b"], ["a", "b"]) == []
