"""Folders that are made from a file once for each of its contents, and never stand half made."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STAMP = ".unpacked.json"
"""The file in such a folder that says what it was made from."""


def fill_once(target: Path, source: dict[str, str], fill: Callable[[Path], dict[str, Any] | None]) -> dict[str, Any]:
    """Make a folder from something that is known by its hashes, unless that has been done.

    Whenever the process is killed, `target` is the old folder or the new one as a whole, or it is absent.

    Args:
        target: is replaced as a whole.
        source: what the folder is made from; kept in its `STAMP`.
        fill: writes into an empty folder, and says what is to be known of it, as JSON can hold it; what it has written
            is removed if it fails.

    Returns:
        What `fill` said when the folder was made; empty if that was nothing.
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
    """A folder's stamp; empty where it is absent or damaged, for the folder can be made again."""
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) and isinstance(stamp.get("found"), dict) else {}


def discard(folder: Path) -> None:
    """Remove a folder with its stamp, if it is there.

    It is renamed first: of a folder that is removed in part, the stamp may be what is left, and vouch for the rest.
    """
    aside = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(aside, ignore_errors=True)  # a killed process's
    if folder.exists():
        folder.rename(aside)
        shutil.rmtree(aside)
