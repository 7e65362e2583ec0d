"""Checks of tiles before they are split, and of splits whenever they are written or read."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from oncoshift.data.tables import LABELS, UNKNOWN
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import pandas as pd

SIDES = {
    "source_train": "training",
    "target_train": "training",
    "source_val": "source_val",
    "audit": "audit",
    "test": "test",
}
"""The side of each split; a group must be on one side only."""

MIN_GROUPS = 2
"""Least number of groups per class of a source organ: one for training, one for validation."""


def check_present(known: Collection[str], target: str, sources: Sequence[str]) -> None:
    """Refuse a target or a source without any tile.

    Raises:
        DataError: names it, and the domains that exist.
    """
    absent = [organ for organ in (target, *sources) if organ not in known]
    if absent:
        raise DataError(
            f"no tiles of {', '.join(absent)}, which target or sources names; "
            f"of domains (organs or hospitals) the data set has {', '.join(sorted(known)) or 'none'}"
        )


def check_sources(tiles: pd.DataFrame, target: str, sources: Sequence[str]) -> None:
    """Refuse organs that are absent, and sources with too few groups to train and validate on.

    Raises:
        DataError: names the organ and what it lacks.
    """
    check_present(set(tiles["organ"]), target, sources)
    for organ in sources:
        of_organ = tiles[tiles["organ"] == organ]
        for label, name in enumerate(LABELS):
            groups = of_organ.loc[of_organ["label"] == label, "group"].nunique()
            if groups < MIN_GROUPS:
                raise DataError(
                    f"source {organ} has {groups} groups with {name} tiles and needs at least {MIN_GROUPS}; "
                    f"add tiles or groups, or take {organ} out of sources"
                )
    labelled = tiles[(tiles["organ"] == target) & (tiles["label"] != UNKNOWN)]
    groups = labelled["group"].nunique()
    if groups < MIN_GROUPS:
        raise DataError(
            f"target {target} has {groups} groups with a label; without labelled groups no result can be measured on "
            "it: label a few, they are used by the audit and the test alone"
        )


def check_splits(frames: Mapping[str, pd.DataFrame], sources: Sequence[str], *, expect_test: bool) -> None:
    """Refuse splits in which an organ lacks a class.

    Args:
        frames: the labelled splits by name.
        sources: the source organs.
        expect_test: whether there should be a test split.

    Raises:
        DataError: names the split, the class it lacks, and the setting to change.
    """
    for name in ("source_train", "source_val"):
        for organ in sources:
            _require_classes(frames[name][frames[name]["organ"] == organ], f"{name} of {organ}", "split.val_share")
    _require_classes(frames["audit"], "audit", "split.audit_share")
    if expect_test:
        _require_classes(frames["test"], "test", "split.test_share")


def assert_disjoint(frames: Mapping[str, pd.DataFrame]) -> None:
    """Refuse splits that share a group across sides; see `SIDES`.

    Raises:
        DataError: names the group and the two splits.
    """
    for one, other in combinations(frames, 2):
        common = set(frames[one]["group"]) & set(frames[other]["group"])
        if common and SIDES[one] != SIDES[other]:
            raise DataError(
                f"{len(common)} groups are both in {one} and in {other}, for example {min(common)}; "
                "the splits leak: run `dvc repro --force split`"
            )


def _require_classes(frame: pd.DataFrame, where: str, knob: str) -> None:
    for label, name in enumerate(LABELS):
        if not (frame["label"] == label).any():
            raise DataError(
                f"{where} has no {name} tile ({frame['group'].nunique()} groups); "
                f"try another split.seed, a larger {knob}, or add groups"
            )
