"""Stage `split`: by group, stratified, seeded, and blind to target labels for training data.

A group is on one of four sides: training (source_train and target_train), source_val, audit or
test. With `split.by: tile` each tile is a group of its own, and is named so. Which groups of the
target are held out depends on which of them have any label, never on the labels' values. Only the
division of held-out groups between audit and test uses the values. A group that spans target and
source is always trained on.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from oncoshift.data.parquet import read_table, write_table
from oncoshift.data.split_checks import assert_disjoint, check_sources, check_splits
from oncoshift.data.tables import TILE_COLUMNS, UNKNOWN
from oncoshift.data.validation.schema import check_tiles
from oncoshift.layout import SPLITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from oncoshift.layout import Layout
    from oncoshift.settings import SplitSettings

COLUMNS = ("tile_id", "organ", "group", "label")


def run_split(settings: SplitSettings, target: str, sources: Sequence[str], layout: Layout) -> dict[str, pd.DataFrame]:
    """Read tiles.parquet, split it, and write one file for each name in `layout.SPLITS`.

    Raises:
        DataError: tiles.parquet breaks its schema; see also `split`.
    """
    table = layout.tiles / "tiles.parquet"
    tiles = read_table(table, TILE_COLUMNS, stage="ingest")
    check_tiles(tiles, str(table))
    frames = split(settings, tiles, target, sources)
    for name in SPLITS:
        write_table(frames[name], layout.splits / f"{name}.parquet")
    return frames


def split(settings: SplitSettings, tiles: pd.DataFrame, target: str, sources: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Divide tiles into the five splits.

    Args:
        settings: section `split`.
        tiles: a table with at least the columns in `COLUMNS`.
        target: the organ adapted to.
        sources: the labelled organs.

    Returns:
        A table for each name in `layout.SPLITS`, sorted by tile_id, with the columns tile_id,
        organ, group and, except target_train, label. Tiles of other organs, source tiles without a
        label, and unlabelled tiles of held-out groups are in none.

    Raises:
        DataError: an organ is not in `tiles`, an organ has one class or too few groups, or a split
            lacks a class.
    """
    check_sources(tiles, target, sources)
    if settings.by == "tile":
        tiles = tiles.assign(group=tiles["tile_id"])
    of_sources, of_target = tiles[tiles["organ"].isin(sources)], tiles[tiles["organ"] == target]
    shared = set(of_sources["group"]) & set(of_target["group"])
    source = of_sources[of_sources["label"] != UNKNOWN]
    labelled = of_target[of_target["label"] != UNKNOWN]

    validation = _draw_validation_groups(source, settings, shared)
    held_out = _draw_held_out_groups(set(of_target["group"]), set(labelled["group"]) - shared, settings)
    audit = _draw_audit_groups(labelled[labelled["group"].isin(held_out)], settings)
    test = held_out - audit
    frames = {
        "source_train": source[~source["group"].isin(validation)],
        "source_val": source[source["group"].isin(validation)],
        "target_train": of_target[~of_target["group"].isin(held_out)],
        "audit": labelled[labelled["group"].isin(audit)],
        "test": labelled[labelled["group"].isin(test)],
    }
    frames = {name: _tidy(frame, name) for name, frame in frames.items()}
    assert_disjoint(frames)
    check_splits(frames, sources, expect_test=settings.test_share > 0)
    return frames


def _draw_validation_groups(source: pd.DataFrame, settings: SplitSettings, shared: set[str]) -> set[str]:
    """Draw a share of the groups of each (organ, majority label), at least one and never all."""
    chosen: set[str] = set()
    for (organ, label), members in _stratify(source).items():
        count = _count_share(settings.val_share, len(members))
        shuffled = _shuffle(members, settings.seed, "validation", organ, str(label))
        chosen.update([group for group in shuffled if group not in shared][:count])
    return chosen


def _draw_held_out_groups(groups: set[str], eligible: set[str], settings: SplitSettings) -> set[str]:
    """Draw the target's groups to hold out, from names alone, so that no label's value decides."""
    # A share of the labelled groups: new tiles without labels must not change the held-out set.
    count = min(round((settings.audit_share + settings.test_share) * len(eligible)), len(groups) - 1)
    return set(_shuffle(sorted(eligible), settings.seed, "held out")[:count])


def _draw_audit_groups(held_out: pd.DataFrame, settings: SplitSettings) -> set[str]:
    """Draw the audit's share of the held-out groups of each majority label."""
    if settings.test_share == 0:
        return set(held_out["group"])
    share = settings.audit_share / (settings.audit_share + settings.test_share)
    chosen: set[str] = set()
    for (organ, label), members in _stratify(held_out).items():
        chosen.update(_shuffle(members, settings.seed, "audit", organ, str(label))[: _count_share(share, len(members))])
    return chosen


def _stratify(tiles: pd.DataFrame) -> dict[tuple[str, int], list[str]]:
    """Sort groups into strata by majority organ and label; ties go to the first by name."""
    strata: dict[tuple[str, int], list[str]] = {}
    for group, members in tiles.groupby("group", sort=True):
        organ, label = members["organ"].mode().iloc[0], int(members["label"].mode().iloc[0])
        strata.setdefault((organ, label), []).append(str(group))
    return dict(sorted(strata.items()))


def _count_share(share: float, count: int) -> int:
    """Round `share` of `count` groups so that, if possible, both sides get at least one group."""
    if share in (0.0, 1.0) or count < 2:
        return round(share * count)
    return min(max(round(share * count), 1), count - 1)


def _shuffle(names: Sequence[str], seed: int, *purpose: str) -> list[str]:
    """Shuffle by seed and purpose, so that one organ's data do not affect another's split."""
    digest = hashlib.sha256("/".join(purpose).encode()).digest()
    generator = np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
    return [names[i] for i in generator.permutation(len(names))]


def _tidy(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    if name == "target_train":
        # By content: paths in a folder data set contain the label, so sorting by path would sort by
        # label.
        plain = [column for column in COLUMNS if column != "label"]
        return frame.sort_values(["sha256", "tile_id"], ignore_index=True)[plain]
    return frame[list(COLUMNS)].sort_values("tile_id", ignore_index=True)
