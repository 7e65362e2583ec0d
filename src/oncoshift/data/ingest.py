"""Stage `ingest`: every image is checked, sound ones are kept, the others reported with reasons."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

import pandas as pd

from oncoshift.data.names import as_text
from oncoshift.data.parquet import write_table
from oncoshift.data.source.opening import open_data_set
from oncoshift.data.source.scan import scan
from oncoshift.data.tables import LABELS, SCALE, TILE_COLUMNS
from oncoshift.data.validation.duplicates import list_identical_groups, mark_duplicates, rename_groups
from oncoshift.data.validation.groups import warn_of_large_groups, warn_of_similar_names
from oncoshift.data.validation.inspection import inspect, mark_repeated
from oncoshift.data.validation.links import warn_of_linked_folders
from oncoshift.data.validation.near_duplicates import (
    find_near_duplicates,
    tabulate_near_duplicates,
    warn_of_changed_files,
    warn_of_contradictions,
)
from oncoshift.data.validation.quarantine import LeftOut, write_quarantine
from oncoshift.data.validation.report import MEASURES, Findings, write_report
from oncoshift.data.validation.schema import check_tiles
from oncoshift.data.validation.stains import colour_auroc
from oncoshift.data.validation.warnings import find_warnings
from oncoshift.disjoint_sets import merge_names
from oncoshift.errors import DataError
from oncoshift.files import atomic
from oncoshift.parallel import Phases, ignore_progress, map_in_order

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oncoshift.data.validation.inspection import Inspected
    from oncoshift.settings import IngestSettings

_get_measures = attrgetter(*MEASURES)
"""Getter of a tile's measurements as a tuple; a dictionary would take a kilobyte for each of
200,000 tiles."""


@dataclass(frozen=True)
class IngestReport:
    """What stage `ingest` found; the content of report.json.

    Attributes:
        adapter: which adapter read the data set.
        made_up: whether the data set is a phantom.
        tiles: number of sound tiles.
        quarantined: number of tiles that cannot be used, see quarantine.csv.
        duplicates: number of sound tiles that were dropped because another has the same bytes.
        kinds: reason for leaving tiles out (see `validation.checks.Kind`) → number of tiles.
        passed_over: suffix of files that are not tiles by name or place → number of files.
        organs: organ → label (benign, malignant, unknown) → numbers of `tiles` and `groups`.
        joined_groups: number of groups merged into another because they share an original.
        warnings: reasons to distrust results on these tiles.
    """

    adapter: str
    made_up: bool
    tiles: int
    quarantined: int
    duplicates: int
    kinds: dict[str, int]
    passed_over: dict[str, int]
    organs: dict[str, dict[str, dict[str, int]]]
    joined_groups: int
    warnings: list[str]


def ingest(
    settings: IngestSettings, root: Path, out: Path, *, base: Path, phases: Phases = ignore_progress
) -> IngestReport:
    """Check every tile of a data set; write the tables, the quarantine and the report to `out`.

    `out` gets tiles.parquet (sound tiles), measurements.parquet (every tile that could be decoded),
    near_duplicates.parquet (pairs of tiles that come from one original), quarantine.csv,
    quarantine/ (the files listed in it), report.json and report/ (for people). A bad tile is left
    out with a reason and never stops the rest. The same data set gives the same bytes. A tile is
    opened once for its checks, and a sound one again if `join_near_duplicates` is set; a warning
    names tiles that changed in between.

    Args:
        settings: section `ingest`; its `root` is already resolved into the argument `root`.
        root: the data set, as the adapter expects it.
        out: folder to write to.
        base: the experiment's folder; paths of tiles below it are written relative to it.
        phases: progress of each phase, which counts tiles; unpacking counts bytes of the archive.

    Raises:
        DataError: the data set is not laid out as the adapter expects; two tiles have the same
            bytes and contradict each other; the table breaks its schema; or the quarantined share
            is above `max_quarantine_share`, in which case everything is still written.
    """
    scanned = scan(settings, open_data_set(settings.adapter, root, out / "unpacked", phases("unpacking")))
    checked = map_in_order(lambda tile: inspect(tile, settings, scanned.root), scanned.tiles, phases("checking"))
    inspected = mark_repeated(checked)
    same_bytes = list_identical_groups(inspected)
    inspected = mark_duplicates(inspected)
    near, changed = find_near_duplicates(inspected, phases) if settings.join_near_duplicates else ([], [])
    joined = merge_names([*same_bytes, *(pair.groups for pair in near)])
    before = [one.tile.group for one in inspected if one.fault is None]
    inspected = rename_groups(inspected, joined)

    sound = [one for one in inspected if one.fault is None]
    frame = _tabulate_sound(sound, base)
    tiles = frame[[*TILE_COLUMNS, *([SCALE] if SCALE in frame else [])]]
    if sound:
        check_tiles(tiles, str(out / "tiles.parquet"))
    colour = {str(organ): colour_auroc(part) for organ, part in frame.groupby("organ", sort=True)}
    findings = Findings(
        settings=settings,
        made_up=scanned.made_up,
        tiles=frame,
        files={one.tile.tile_id: one.tile.path for one in sound},
        left_out=_list_left_out(inspected, base),
        passed_over=scanned.passed_over,
        joined=joined,
        colour=colour,
        warnings=[
            *find_warnings(frame, colour),
            *warn_of_contradictions(near),
            *warn_of_large_groups([one.tile.group for one in sound], before),
            *warn_of_similar_names([one.tile.group for one in sound], before),
            *warn_of_linked_folders(scanned.root, [one.tile for one in sound]),
            *scanned.passed_over.warnings(),
            *warn_of_changed_files(changed),
        ],
    )
    report = _build_report(settings, findings)

    write_table(tiles, out / "tiles.parquet")
    write_table(_tabulate_measurements(inspected), out / "measurements.parquet")
    write_table(tabulate_near_duplicates(near), out / "near_duplicates.parquet")
    write_quarantine(out, findings.left_out)
    write_report(out / "report", findings)
    with atomic(out / "report.json") as temporary:
        temporary.write_text(json.dumps(asdict(report), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    _refuse_too_many(settings, len(inspected), [one for one in findings.left_out if one.is_bad], out)
    return report


def _list_left_out(inspected: Sequence[Inspected], base: Path) -> list[LeftOut]:
    return [
        LeftOut(one, one.fault, as_text(_to_relative(one.tile.path, base)), _name_label(one.tile.label))
        for one in inspected
        if one.fault is not None
    ]


def _tabulate_sound(sound: Sequence[Inspected], base: Path) -> pd.DataFrame:
    """Tabulate the sound tiles: columns of tiles.parquet, the label's name and the measurements."""
    named = ("tile_id", "path", "organ", "label", "label_name", "group", "sha256")
    rows = [
        (
            one.tile.tile_id,
            _to_relative(one.tile.path, base),
            one.tile.organ,
            one.tile.label,
            _name_label(one.tile.label),
            one.tile.group,
            one.sha256,
            *_get_measures(one.measured),
        )
        for one in sound
        if one.measured is not None
    ]
    columns = list(dict.fromkeys((*TILE_COLUMNS, "label_name", *MEASURES)))
    frame = pd.DataFrame(rows, columns=[*named, *MEASURES])[columns]
    scales = pd.Series([one.tile.um_per_pixel for one in sound if one.measured is not None], dtype="float64")
    return frame if scales.isna().all() else frame.assign(**{SCALE: scales})


def _tabulate_measurements(inspected: Sequence[Inspected]) -> pd.DataFrame:
    """Tabulate the measurements of each decoded tile and why it was left out (empty if kept)."""
    rows = [
        (one.tile.tile_id, one.fault.kind if one.fault else "", *_get_measures(one.measured))
        for one in inspected
        if one.measured is not None
    ]
    return pd.DataFrame(rows, columns=["tile_id", "kind", *MEASURES])


def _build_report(settings: IngestSettings, findings: Findings) -> IngestReport:
    bad = sum(one.is_bad for one in findings.left_out)
    return IngestReport(
        adapter=settings.adapter,
        made_up=findings.made_up,
        tiles=len(findings.tiles),
        quarantined=bad,
        duplicates=len(findings.left_out) - bad,
        kinds=dict(sorted(Counter(str(one.fault.kind) for one in findings.left_out).items())),
        passed_over=dict(sorted(findings.passed_over.counts.items())),
        organs=_count(findings.tiles),
        joined_groups=sum(name != whole for name, whole in findings.joined.items()),
        warnings=list(findings.warnings),
    )


def _to_relative(path: Path, base: Path) -> str:
    """Make `path` relative to `base` if it is below it, else absolute.

    Relative paths let a project move together with its data.
    """
    path, base = path.absolute(), base.absolute()
    return (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()


def _name_label(label: int) -> str:
    return LABELS[label] if label >= 0 else "unknown"


def _count(tiles: pd.DataFrame) -> dict[str, dict[str, dict[str, int]]]:
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for organ, of_organ in tiles.groupby("organ"):
        counts[str(organ)] = {
            _name_label(label): {"tiles": len(part), "groups": part["group"].nunique()}
            for label in sorted(of_organ["label"].unique().tolist())
            for part in [of_organ[of_organ["label"] == label]]
        }
    return counts


def _refuse_too_many(settings: IngestSettings, found: int, bad: Sequence[LeftOut], out: Path) -> None:
    share = len(bad) / found
    if share > settings.max_quarantine_share:
        counts = sorted(Counter(one.fault.kind for one in bad).items())
        kinds = ", ".join(f"{number} {kind}" for kind, number in counts)
        raise DataError(
            f"{len(bad)} of {found} tiles ({share:.1%}) cannot be used, and ingest.max_quarantine_share allows "
            f"{settings.max_quarantine_share:.1%}: {kinds}; for example {bad[0].path}: {bad[0].fault.reason}\n"
            f"see {out / 'quarantine.csv'} and {out / 'report' / 'report.html'}; mend or remove those files, or change "
            "the limits in section ingest"
        )
