"""Faults that were caused again take their own rows of the table, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faults.__main__ import BEGIN, END, write_table

if TYPE_CHECKING:
    from pathlib import Path


def test_some_faults_leave_the_rows_of_the_others(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Faults\n\n{BEGIN}\n{END}\n\n## More\n\n| a | b |\n", encoding="utf-8")
    write_table(page, [("84 answers lost", "went on"), ("disk full", "make room"), ("two at once", "one waits")])
    whole = page.read_text(encoding="utf-8")
    write_table(page, [("91 answers lost", "waited"), ("PostgreSQL restarted", "both waited")])
    merged = whole.replace("| 84 answers lost | went on |", "| 91 answers lost | waited |")
    merged = merged.replace("| one waits |\n", "| one waits |\n| PostgreSQL restarted | both waited |\n")
    assert page.read_text(encoding="utf-8") == merged
    write_table(page, [("two at once", "refused")], replace=True)
    assert [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")] == [
        "| fault | what came of it |",
        "| two at once | refused |",
        "| a | b |",
    ]
