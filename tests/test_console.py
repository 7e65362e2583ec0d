"""Without a terminal, progress is a line at every tenth of each phase."""

from __future__ import annotations

from oncoshift.console import report_tenths


def test_a_line_every_tenth_and_again_for_the_next_phase() -> None:
    lines: list[str] = []
    show = report_tenths("ingest", lines.append)
    for total in (40, 20):
        for done in range(1, total + 1):
            show(done, total)
    assert lines == [f"ingest: {4 * tenth}/40" for tenth in range(1, 11)] + [
        f"ingest: {2 * tenth}/20" for tenth in range(1, 11)
    ]
