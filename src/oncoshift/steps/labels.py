"""Steps of `oncoshift label`: propose tiles of the target, and apply the labels that they get."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from oncoshift.data.parquet import read_table
from oncoshift.data.raw import find_tile_paths
from oncoshift.data.tables import ORGAN
from oncoshift.errors import DataError
from oncoshift.files import DamagedFileError, hold_lock, read_json, write_json
from oncoshift.labels.answers import merge_answers
from oncoshift.labels.choice import choose_tiles
from oncoshift.labels.sheet import ANSWERS, Row, read_rows, write_sheet
from oncoshift.labels.table import TRAIN, read_labels, select_labels, write_labels
from oncoshift.steps.jobs import read_source_groups
from oncoshift.versioning import version_raw

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import pandas as pd

    from oncoshift.labels.answers import Merged
    from oncoshift.layout import Layout
    from oncoshift.settings import Settings
    from oncoshift.steps.jobs import ExperimentJobs

SHEET = "sheet.json"
"""File of a sheet that says of which target and experiment it is."""


@dataclass(frozen=True)
class Proposal:
    """Tiles that were proposed.

    Attributes:
        path: of the CSV to fill in.
        uses: number of tiles for each use.
        groups: number of groups for each use.
    """

    path: Path
    uses: Mapping[str, int]
    groups: Mapping[str, int]


@dataclass(frozen=True)
class Applied:
    """Labels that were applied.

    Attributes:
        target: the organ.
        path: of the target's labels.
        merged: all of them, and what is new.
        digest: DVC hash of the file; None if DVC does not version it.
    """

    target: str
    path: Path
    merged: Merged
    digest: str | None


def propose(
    jobs: ExperimentJobs,
    settings: Settings,
    counts: Mapping[str, int],
    out: Path,
    project: Path,
    say: Callable[[str], None],
) -> Proposal:
    """Choose tiles of the target's training split, and write a sheet to fill in.

    They are spread over the prediction of `few_labels.prior`, which reads no label; its training is
    a job as others, and is found again when a method reads the labels.

    Args:
        jobs: of the experiment.
        settings: of the experiment.
        counts: number of tiles for each use.
        out: folder of the sheet.
        project: the project's root.
        say: receives lines of progress.

    Raises:
        DataError: there is nothing left to label; see also `check_out` and `write_sheet`.
    """
    check_out(out, jobs.layout, settings.target)
    before = read_labels(jobs.layout.labels, settings.target)
    tiles = read_training_tiles(jobs.layout)
    # What has a tile among the sources trains every model, so it cannot judge one.
    known = dict.fromkeys(read_source_groups(jobs.layout) & set(tiles["group"]), TRAIN)
    known |= dict(zip(before["group"], before["use"], strict=True))
    prior = jobs.make_job(settings, train__method=settings.few_labels.prior)
    say(f"label: tiles are spread over the prediction of {prior.id}")
    score = jobs.predict_target(jobs.train(prior, lambda _epoch: None))
    chosen = choose_tiles(
        tiles["group"].to_numpy(np.str_),
        score,
        counts,
        known=known,
        asked=tiles["tile_id"].isin(before["tile_id"]).to_numpy(bool),
        seed=settings.seed,
    )
    if not chosen:
        raise DataError(f"{settings.target}: each of its {len(tiles)} training tiles has been labelled; add tiles")
    picked = tiles.iloc[[each.position for each in chosen]].assign(use=[each.use for each in chosen])
    columns = (picked[name].tolist() for name in ("tile_id", "group", "use", "sha256"))
    rows = [Row(tile_id, group, "", use, "", sha256) for tile_id, group, use, sha256 in zip(*columns, strict=True)]
    check_out(out, jobs.layout, settings.target)  # a page may have been open while the prior trained
    out.mkdir(parents=True, exist_ok=True)
    experiment = jobs.layout.folder.resolve().relative_to(project.resolve()).as_posix()
    write_json(out / SHEET, {"target": settings.target, "experiment": experiment})
    write_sheet(out, rows, find_tile_paths(jobs.layout, [row.tile_id for row in rows]))
    by_use = {use: picked.loc[picked["use"] == use, "group"] for use in counts}
    tiles_of, groups_of = ({use: count(of) for use, of in by_use.items()} for count in (len, lambda of: of.nunique()))
    return Proposal(out / ANSWERS, tiles_of, groups_of)


def apply(path: Path, layout: Layout, target: str, project: Path, *, correct: bool) -> Applied:
    """Check a filled-in sheet, merge it with the labels applied before, and version them with DVC.

    Args:
        path: of the CSV.
        layout: of the experiment that the sheet was made in.
        target: the organ.
        project: the project's root.
        correct: whether a label may replace an earlier one.

    Raises:
        DataError: what is wrong, by line; nothing is written then.
        DvcError: the labels were written, and DVC could not version them; apply again.
    """
    rows = read_rows(path)
    folder = layout.labels
    folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(folder):
        before = read_labels(folder, target)
        merged = merge_answers(path, rows, read_training_tiles(layout), before, correct=correct)
        if merged.table.empty:
            raise DataError(f"{path}: no row has a label yet; write benign, malignant or skip into column label")
        kept = write_labels(folder, target, merged.table)
        return Applied(target, kept, merged, version_raw(project, kept))


def read_sheet(path: Path) -> tuple[str, str]:
    """Read of which target and experiment a sheet is, by the path of its CSV.

    Returns:
        The target, and the experiment's folder relative to the project.

    Raises:
        DataError: the file that says so is not beside the CSV, or damaged.
    """
    try:
        values = read_json(path.parent / SHEET, "target", "experiment")
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{path}: no {SHEET} beside it; name the CSV in the folder that `oncoshift label propose` wrote"
        ) from None
    except DamagedFileError as error:
        raise DataError(f"{error}; propose again, and copy the labels into the new CSV") from None
    target = str(values["target"])
    if re.fullmatch(ORGAN, target) is None:
        raise DataError(f"{path.parent / SHEET}: target {target!r} is no name of an organ; propose again")
    return target, str(values["experiment"])


def read_training_tiles(layout: Layout) -> pd.DataFrame:
    """Read tile_id, group and sha256 of the target's training split, in its order."""
    split = read_table(layout.splits / "target_train.parquet", ("tile_id", "group"), stage="split")
    hashes = read_table(layout.tiles / "tiles.parquet", ("tile_id", "sha256"), stage="ingest")
    return split.merge(hashes, on="tile_id", how="left", validate="one_to_one")


def check_out(out: Path, layout: Layout, target: str) -> None:
    """Refuse to replace answers that were not applied, and folders that are no sheet.

    Raises:
        DataError: what is in the way, and what to do.
    """
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / SHEET).is_file()):
        raise DataError(f"--out {out}: is there, and is no sheet of tiles; name another folder")
    path = out / ANSWERS
    if not path.is_file():
        return
    applied = read_labels(layout.labels, target)
    known = dict(zip(applied["tile_id"], applied["label"], strict=True))
    lost = [row for row in read_rows(path) if row.label and row.word != known.get(row.tile_id)]
    if lost:
        raise DataError(
            f"{path}: has {len(lost)} answers that were not applied; run `oncoshift label apply {path}` first, or name "
            "another folder as --out"
        )


def summarise(table: pd.DataFrame, use: str) -> str:
    """Say in words how many labels of a use there are, by class and in how many groups."""
    chosen = select_labels(table, use)
    counts = chosen["label"].value_counts()
    named = " and ".join(f"{int(counts.get(name, 0))} {name}" for name in ("benign", "malignant"))
    return f"{len(chosen)} to {use} ({named}, of {chosen['group'].nunique()} groups)"
