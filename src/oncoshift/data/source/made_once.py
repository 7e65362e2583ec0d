"""Folders derived from a file: made once for each of its contents, and never left incomplete."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STAMP = ".unpacked.json"
"""The file in such a folder that records what it was made from."""


def fill_once(target: Path, source: dict[str, str], fill: Callable[[Path], dict[str, Any] | None]) -> dict[str, Any]:
    """Make a folder from a source identified by hashes, unless it is already there.

    If the process is killed, `target` is the complete old folder, the complete new one, or absent.

    Args:
        target: the folder to replace.
        source: identifies what the folder is made from; kept in its `STAMP`.
        fill: writes into an empty folder and returns facts to keep in the stamp, as JSON; if it
            fails, the folder is removed.

    Returns:
        What `fill` returned when the folder was made; empty for None.
    """
    stamp = _read_stamp(target / STAMP)
    if stamp.get("source") == source:
        found: dict[str, Any] = stamp["found"]
        return found
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # a killed process's
    partial.mkdir(parents=True)
    try:
        found = fill(partial) or {}
        text = json.dumps({"source": source, "found": found}, indent=2, sort_keys=True)
        (partial / STAMP).write_text(text + "\n", encoding="utf-8")
        discard(target)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


def _read_stamp(path: Path) -> dict[str, Any]:
    """Read a folder's stamp; empty if it is absent or damaged, so that the folder is made again."""
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) and isinstance(stamp.get("found"), dict) else {}


def discard(folder: Path) -> None:
    """Remove a folder with its stamp, if it exists.

    It is renamed first, so that a removal that is interrupted cannot leave a stamp behind that
    vouches for missing files.
    """
    aside = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(aside, ignore_errors=True)  # a killed process's
    if folder.exists():
        folder.rename(aside)
        shutil.rmtree(aside)
