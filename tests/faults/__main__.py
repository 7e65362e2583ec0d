"""Cause all faults, and write the table of docs/reliability.md: `python -m faults [--write PATH]`.

Run it with `tests` on PYTHONPATH. It takes about half an hour on two idle cores, needs PostgreSQL's
server programs, and, for the full disk, the right to mount a tmpfs.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from faults.damage import damage_everything, mounting_small_disk
from faults.kills import kill_in_all_stages
from faults.outages import lose_answers, lose_tracking_server, restart_postgresql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from faults.damage import Seen

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
_WHOLE = "went on; nothing lost, nothing doubled, the same weights as undisturbed"


def main() -> None:
    """Run the chosen faults, print what came of them, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m faults")
    parser.add_argument("--only", choices=tuple(_FAULTS), action="append", help="some of the faults; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="retrainings that are killed 22 times each")
    parser.add_argument("--write", type=Path, help="the document whose table is brought up to date")
    given = parser.parse_args()
    rows: list[Seen] = []
    for name in given.only or _FAULTS:
        began = time.monotonic()
        with TemporaryDirectory(prefix="oncoshift-faults-") as folder:
            for row in _FAULTS[name](Path(folder), given.rounds):
                rows.append(row)
                print(f"{name}, {time.monotonic() - began:.0f} s: {row[0]}: {row[1]}", flush=True)
    if given.write is not None:
        write_table(given.write, rows, replace=given.only is None)
    print(json.dumps({"benchmark": "faults", "figures": dict(rows)}, ensure_ascii=False))


def write_table(path: Path, rows: list[Seen], *, replace: bool = False) -> None:
    """Bring the table between the two marks of a document up to date.

    Args:
        path: of the document.
        rows: what was seen; each takes the place of the row of the same fault, whatever its
            numbers, and others are appended.
        replace: whether rows of other faults go.
    """
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    table, _, after = rest.partition(END)
    kept = [] if replace else [line for line in table.splitlines() if line.startswith("| ")][1:]
    lines = {_name_fault(line): line for line in kept}
    lines |= {_name_fault(line): line for line in (f"| {fault} | {seen} |" for fault, seen in rows)}
    new = ["| fault | what came of it |", "|---|---|", *lines.values()]
    path.write_text("\n".join([f"{before}{BEGIN}", "", *new, "", f"{END}{after}"]), encoding="utf-8")


def _name_fault(line: str) -> str:
    """Return the fault of a row without its numbers, which differ from run to run."""
    return re.sub(r"\d+", "", line.split(" | ")[0])


def _kill(folder: Path, rounds: int) -> Iterator[Seen]:
    kills = kill_in_all_stages(folder, rounds, lambda line: print(line, flush=True))
    for stage, count in kills.items():
        yield f"SIGKILL in step {stage}, {count} times", _WHOLE
    yield f"SIGKILL, {sum(kills.values())} times in {rounds} retrainings", _WHOLE


def _lose_server(folder: Path, _: int) -> Iterator[Seen]:
    for stage, seconds in lose_tracking_server(folder, 60).items():
        yield f"MLflow's server killed in step {stage}, started again after 60 s", f"waited {seconds} s, {_WHOLE}"


def _lose_answers(folder: Path, _: int) -> Iterator[Seen]:
    lost = lose_answers(folder, 0.1)
    yield f"{lost} answers of MLflow's server lost, one in ten", _WHOLE


def _restart_postgresql(folder: Path, _: int) -> Iterator[Seen]:
    for mode in ("fast", "immediate"):
        below = folder / mode
        below.mkdir()
        restart_postgresql(below, mode, 20)
        yield (
            f"PostgreSQL restarted ({mode}, 20 s) under a study's two workers, then a worker killed",
            "both waited; the study has each of its 6 trials once, none lost",
        )


def _damage(folder: Path, _: int) -> Iterator[Seen]:
    with mounting_small_disk(folder / "disk") as disk:
        for fault, words in damage_everything(folder, disk):
            yield fault, words.replace(str(folder), "").replace("|", "\\|")


_FAULTS: dict[str, Callable[[Path, int], Iterator[Seen]]] = {
    "kills": _kill,
    "server": _lose_server,
    "answers": _lose_answers,
    "postgresql": _restart_postgresql,
    "damage": _damage,
}


if __name__ == "__main__":
    main()
