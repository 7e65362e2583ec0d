"""Stage `ingest`: open every image once, keep what is sound, report what is not."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import pandas as pd

from oncoshift.data.adapters import ADAPTERS
from oncoshift.data.adapters.phantom import is_made_up
from oncoshift.data.parallel import Progress, ordered_map
from oncoshift.data.parquet import write_table
from oncoshift.data.tables import LABELS, TILE_COLUMNS
from oncoshift.errors import DataError
from oncoshift.files import atomic
from oncoshift.serving.preprocess import UnreadableImageError, decode

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.data.adapters.base import RawTile
    from oncoshift.settings import Ingest


@dataclass(frozen=True)
class IngestReport:
    """What stage `ingest` found; the content of report.json.

    Attributes:
        adapter: which adapter read the data set.
        made_up: whether the data set is a phantom.
        tiles: number of sound tiles.
        quarantined: number of tiles left out, see quarantine.csv.
        organs: organ → label (benign, malignant, unknown) → numbers of `tiles` and `groups`.
    """

    adapter: str
    made_up: bool
    tiles: int
    quarantined: int
    organs: dict[str, dict[str, dict[str, int]]]


def ingest(settings: Ingest, root: Path, out: Path, *, base: Path, progress: Progress | None = None) -> IngestReport:
    """Check every tile of a data set; write tiles.parquet, quarantine.csv and report.json to `out`.

    A bad tile (unreadable, too small, not what the manifest promised, named twice) is left out with its reason and
    never stops the rest. The same data set gives the same bytes.

    Args:
        settings: section `ingest`; its `root` is already resolved into the argument `root`.
        root: the data set, as the adapter expects it.
        out: folder to write to.
        base: the experiment's folder; paths of tiles below it are written relative to it.
        progress: called with tiles done and in all.

    Raises:
        DataError: the data set is not laid out as the adapter expects, or the quarantined share is above
            `max_quarantine_share`; all three files are written nevertheless in the second case.
    """
    found = ADAPTERS[settings.adapter].scan(root)
    checked = ordered_map(lambda tile: _check(tile, settings.min_size), found, progress)
    seen: set[str] = set()
    rows: list[dict[str, object]] = []
    quarantine: list[tuple[str, str, str, str]] = []
    for tile, result in zip(found, checked, strict=True):
        if tile.tile_id in seen:
            result = _Bad("named twice in the data set; the first one is kept")
        seen.add(tile.tile_id)
        if isinstance(result, _Bad):
            quarantine.append((_below(tile.path, base), tile.organ, _label_name(tile.label), result.reason))
        else:
            rows.append(_row(tile, result, base))
    tiles = pd.DataFrame(rows, columns=list(TILE_COLUMNS))
    report = IngestReport(settings.adapter, is_made_up(root), len(rows), len(quarantine), _count(tiles))
    _write(out, tiles, quarantine, report)
    _refuse_too_many(settings, len(found), quarantine, out)
    return report


@dataclass(frozen=True)
class _Sound:
    width: int
    height: int
    sha256: str


@dataclass(frozen=True)
class _Bad:
    reason: str


def _check(tile: RawTile, min_size: int) -> _Sound | _Bad:
    try:
        data = tile.path.read_bytes()
    except OSError as error:
        return _Bad(f"cannot be read: {error.strerror}")
    digest = hashlib.sha256(data).hexdigest()
    if tile.sha256_expected is not None and digest != tile.sha256_expected:
        return _Bad(
            f"content is not what the manifest promises: sha256 {digest[:12]}…, not {tile.sha256_expected[:12]}…"
        )
    try:
        height, width, _ = decode(data).shape
    except UnreadableImageError as error:
        return _Bad(str(error))
    if min(width, height) < min_size:
        return _Bad(f"{width}×{height} pixels; the shorter side must have at least {min_size} (ingest.min_size)")
    return _Sound(width, height, digest)


def _row(tile: RawTile, sound: _Sound, base: Path) -> dict[str, object]:
    where = {"tile_id": tile.tile_id, "path": _below(tile.path, base), "organ": tile.organ}
    return {**where, "label": tile.label, "group": tile.group, **asdict(sound)}


def _below(path: Path, base: Path) -> str:
    """`path` relative to `base` where it lies below it, else absolute; so a project can move with its data."""
    path, base = path.absolute(), base.absolute()
    return (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()


def _label_name(label: int) -> str:
    return LABELS[label] if label >= 0 else "unknown"


def _count(tiles: pd.DataFrame) -> dict[str, dict[str, dict[str, int]]]:
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for organ, of_organ in tiles.groupby("organ"):
        counts[str(organ)] = {
            _label_name(label): {"tiles": len(part), "groups": part["group"].nunique()}
            for label in sorted(of_organ["label"].unique().tolist())
            for part in [of_organ[of_organ["label"] == label]]
        }
    return counts


def _write(out: Path, tiles: pd.DataFrame, quarantine: list[tuple[str, str, str, str]], report: IngestReport) -> None:
    write_table(tiles, out / "tiles.parquet")
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerows([("path", "organ", "label", "reason"), *quarantine])
    with atomic(out / "quarantine.csv") as temporary:
        temporary.write_text(lines.getvalue(), encoding="utf-8")
    with atomic(out / "report.json") as temporary:
        temporary.write_text(json.dumps(asdict(report), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _refuse_too_many(settings: Ingest, found: int, quarantine: list[tuple[str, str, str, str]], out: Path) -> None:
    share = len(quarantine) / found
    if share > settings.max_quarantine_share:
        path, _, _, reason = quarantine[0]
        raise DataError(
            f"{len(quarantine)} of {found} tiles ({share:.1%}) cannot be used, and ingest.max_quarantine_share allows "
            f"{settings.max_quarantine_share:.1%}; for example {path}: {reason}\n"
            f"see {out / 'quarantine.csv'}; mend or remove those files, or raise ingest.max_quarantine_share"
        )
