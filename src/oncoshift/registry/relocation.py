"""Locations of artifacts that an embedded store's database records.

MLflow records absolute locations. So the database of a project that was copied or moved still names
the original folder, and MLflow would read and write there. `check_location` refuses such a
database, and `relocate` makes it name the folder beside it.
"""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from oncoshift.errors import RegistryError
from oncoshift.registry.embedded import explain_lock, find_artifact_folder, open_database
from oncoshift.registry.waiting import retry_while_transient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)
"""Columns in which MLflow 3.17 keeps locations of artifacts; those of traces are among their
tags."""

_OWNER = re.compile(r"/(?:models/m-[0-9a-f]{32}|[0-9a-f]{32}|traces/tr-[0-9a-f]{32})/artifacts(?:/|$)")
"""What follows an experiment's location in that of its runs, models and traces."""


@dataclass(frozen=True)
class Relocation:
    """The changes that `relocate` made.

    Attributes:
        former: folders that the database named before.
        folder: folder that it names now.
        places: number of changed entries.
        backup: copy of the database from before.
    """

    former: tuple[Path, ...]
    folder: Path
    places: int
    backup: Path


def check_location(database: Path) -> None:
    """Check that a database does not name another project's artifacts.

    Raises:
        RegistryError: it does.
    """
    with open_database(database) as connection:
        elsewhere = _find_foreign_places(connection, database)
    for folder in elsewhere.values():
        raise RegistryError(
            f"{database}: it records its artifacts in {folder}, not in "
            f"{find_artifact_folder(database)}: the project was copied or moved; `oncoshift relocate` makes it name "
            "its own folder"
        )


def relocate(database: Path) -> Relocation | None:
    """Make a database that names another project's artifacts name the folder beside it.

    It is one transaction. Locations that somebody chose outside any project stay.

    Returns:
        The changes; None if there was nothing to do.

    Raises:
        RegistryError: the artifacts were not copied or moved with the database.
        UnavailableError: another process goes on writing to it.
    """
    return retry_while_transient(lambda: _relocate(database), lambda error: explain_lock(database, error))


def _relocate(database: Path) -> Relocation | None:
    with open_database(database) as connection, connection:
        connection.execute("BEGIN IMMEDIATE")
        elsewhere = _find_foreign_places(connection, database)
        if not elsewhere:
            return None
        folder, former = find_artifact_folder(database), tuple(dict.fromkeys(elsewhere.values()))
        if not folder.is_dir() and any(each.is_dir() for each in former):
            raise RegistryError(f"{folder}: is not there; first copy {former[0]} to it, or move it there")
        backup = back_up(database)
        places = sum(_replace_prefix(connection, root, folder.as_uri()) for root in elsewhere)
    return Relocation(former, folder, places, backup)


def rename_roots(database: Path, roots: Sequence[str], folder: Path) -> int:
    """Make a database name another folder instead of given artifact locations, in one transaction.

    Args:
        database: that no other process uses yet.
        roots: artifact locations of experiments, as the database has them.
        folder: where the files are now.

    Returns:
        The number of changed entries.
    """
    with open_database(database) as connection, connection:
        return sum(_replace_prefix(connection, root, folder.as_uri()) for root in roots if root != folder.as_uri())


def _find_foreign_places(connection: sqlite3.Connection, database: Path) -> dict[str, Path]:
    """Map the locations of another project's experiments, as recorded, to their folders."""
    within: dict[str, list[str]] = {}
    for place in _list_places(connection):
        owner = _OWNER.search(place)
        root = place[: owner.start()] if owner else place
        within.setdefault(root, []).append(place[len(root) + 1 :])
    folders = {root: parse_local_folder(root) for root in within}
    return {root: folder for root, folder in folders.items() if folder and _is_foreign(folder, within[root], database)}


def _list_places(connection: sqlite3.Connection) -> Iterator[str]:
    for table, column in _COLUMNS:
        for (place,) in connection.execute(f"SELECT DISTINCT {column} FROM {table}"):  # noqa: S608 - names of ours
            if place:
                yield place


def parse_local_folder(place: str) -> Path | None:
    """Return the folder that an artifact location means; None if it is not on this machine."""
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(place) if place.startswith("/") else None


def _is_foreign(folder: Path, within: Sequence[str], database: Path) -> bool:
    """Tell whether a folder looks like the `artifacts` of an embedded store other than this one.

    That of another store has a database beside it. A folder that is gone, as after a move, is
    recognised by its name, or by its contents that are here now; else somebody chose it, and it is
    only unavailable.
    """
    own = find_artifact_folder(database)
    if folder.name != own.name or folder == own or (own.exists() and folder.exists() and own.samefile(folder)):
        return False
    if (folder.parent / database.name).is_file():
        return True
    was_here = folder.parent.name == database.parent.name or any((own / each).exists() for each in within if each)
    return was_here and not folder.exists()


def back_up(database: Path) -> Path:
    """Copy a database to a file beside it that is named by the time, and return the copy's path."""
    path = database.with_name(f"{database.name}.{time.strftime('%Y%m%d-%H%M%S')}.bak")
    with open_database(database) as connection, closing(sqlite3.connect(path)) as backup:
        connection.backup(backup)
    return path


def _replace_prefix(connection: sqlite3.Connection, former: str, new: str) -> int:
    """Replace the prefix of a location and of all locations within it; return their number."""
    changed = 0
    for table, column in _COLUMNS:
        cursor = connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 - names of ours
            f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
            (new, len(former) + 1, former, len(former) + 1, f"{former}/"),
        )
        changed += cursor.rowcount
    return changed
