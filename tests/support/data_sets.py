"""Data sets as stage ingest takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.data.source.opening import open_data_set
from oncoshift.data.source.scan import Scanned, scan

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.parallel import Progress
    from oncoshift.settings import IngestSettings


def open_and_scan(settings: IngestSettings, root: Path, unpacked: Path, progress: Progress | None = None) -> Scanned:
    """Scan a data set, either a folder or an archive."""
    return scan(settings, open_data_set(settings.adapter, root, unpacked, progress))
