"""Stage split never cuts a group, and the training tiles do not depend on target labels."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from oncoshift.data.parquet import write_table
from oncoshift.data.split import run_split, split
from oncoshift.data.split_checks import SIDES, assert_disjoint
from oncoshift.errors import DataError
from oncoshift.layout import SPLITS, Layout
from oncoshift.settings import SplitSettings

if TYPE_CHECKING:
    from pathlib import Path

SOURCES = ("lung", "colon")
BLIND = ("source_train", "source_val", "target_train")


def table(
    groups: int = 10, tiles: int = 3, organs: tuple[str, ...] = ("lung", "colon", "kidney", "skin")
) -> pd.DataFrame:
    rows = [
        (f"{organ}/{label}/{group}_{tile}", organ, label, f"{organ}{label}{group}")
        for organ in organs
        for label in (0, 1)
        for group in range(groups)
        for tile in range(tiles)
    ]
    frame = pd.DataFrame(rows, columns=["tile_id", "organ", "label", "group"])
    return frame.assign(path=frame["tile_id"], width=32, height=32, sha256="0" * 64)


def written(frames: dict[str, pd.DataFrame], folder: Path, names: tuple[str, ...] = SPLITS) -> dict[str, bytes]:
    for name in names:
        write_table(frames[name], folder / name)
    return {name: (folder / name).read_bytes() for name in names}


def test_shares_are_shares_of_groups_in_every_organ_and_class() -> None:
    frames = split(SplitSettings(val_share=0.2, audit_share=0.2, test_share=0.3), table(), "kidney", SOURCES)
    per_class = frames["source_val"].groupby(["organ", "label"])["group"].nunique()
    assert per_class.to_dict() == {(organ, label): 2 for organ in SOURCES for label in (0, 1)}
    assert frames["target_train"]["group"].nunique() == 10
    assert abs(frames["audit"]["group"].nunique() - 4) <= 1
    assert frames["audit"]["group"].nunique() + frames["test"]["group"].nunique() == 10
    assert set(pd.concat(frames.values())["organ"]) == {"lung", "colon", "kidney"}


def test_target_train_has_no_label_column() -> None:
    frames = split(SplitSettings(), table(), "kidney", SOURCES)
    assert list(frames["target_train"].columns) == ["tile_id", "organ", "group"]
    assert all("label" in frames[name].columns for name in SPLITS if name != "target_train")


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    groups=st.lists(st.integers(0, 25), min_size=120, max_size=120),
    labels=st.lists(st.integers(-1, 1), min_size=120, max_size=120),
    shares=st.tuples(st.floats(0.1, 0.5), st.floats(0.1, 0.4), st.floats(0.0, 0.4)),
)
def test_no_group_on_two_sides(seed: int, groups: list[int], labels: list[int], shares: tuple[float, ...]) -> None:
    # Groups span organs and have mixed labels at random: the hardest data set to split.
    tiles = table(groups=10, tiles=2, organs=("lung", "colon", "kidney")).assign(
        group=[f"g{number}" for number in groups], label=labels
    )
    # Organs need groups of their own, or every tile would be used for training.
    tiles["group"] = np.where(np.arange(120) % 3 > 0, tiles["organ"].str[0] + tiles["group"], tiles["group"])
    knobs = SplitSettings(val_share=shares[0], audit_share=shares[1], test_share=shares[2], seed=seed)
    try:
        frames = split(knobs, tiles, "kidney", SOURCES)
    except DataError:
        assume(False)
    for one, other in combinations(SPLITS, 2):
        if SIDES[one] != SIDES[other]:
            assert not set(frames[one]["group"]) & set(frames[other]["group"])
    assert not pd.concat(frames.values())["tile_id"].duplicated().any()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(60)), flip=st.booleans())
def test_target_labels_cannot_move_what_is_trained_on(
    tmp_path_factory: pytest.TempPathFactory, seed: int, order: list[int], flip: bool
) -> None:
    tiles = table()
    changed = tiles.copy()
    target = np.flatnonzero(tiles["organ"] == "kidney")
    labels = tiles["label"].to_numpy()[target]
    changed.loc[target, "label"] = 1 - labels if flip else labels[order]
    try:
        one, other = (split(SplitSettings(seed=seed), frame, "kidney", SOURCES) for frame in (tiles, changed))
    except DataError:
        assume(False)
    folder = tmp_path_factory.mktemp("split")
    assert written(one, folder / "one", BLIND) == written(other, folder / "other", BLIND)


def test_unlabelled_groups_are_only_trained_on() -> None:
    tiles = table(groups=10)
    unlabelled = tiles["group"].isin([f"kidney{label}{group}" for label in (0, 1) for group in range(6)])
    tiles.loc[unlabelled, "label"] = -1
    frames = split(SplitSettings(), tiles, "kidney", SOURCES)
    assert set(tiles.loc[unlabelled, "tile_id"]) <= set(frames["target_train"]["tile_id"])
    assert set(frames["audit"]["label"]) == set(frames["test"]["label"]) == {0, 1}


def test_a_batch_without_labels_moves_nothing_that_is_judged_on(tmp_path: Path) -> None:
    tiles = table()
    batch = table(groups=30, organs=("kidney",)).assign(label=-1)
    batch["tile_id"], batch["group"] = "new/" + batch["tile_id"], "new" + batch["group"]
    before = split(SplitSettings(), tiles, "kidney", SOURCES)
    after = split(SplitSettings(), pd.concat([tiles, batch], ignore_index=True), "kidney", SOURCES)
    held = ("source_train", "source_val", "audit", "test")
    assert written(before, tmp_path / "before", held) == written(after, tmp_path / "after", held)
    added = set(after["target_train"]["tile_id"]) - set(before["target_train"]["tile_id"])
    assert added == set(batch["tile_id"])


def test_unlabelled_tiles_of_a_held_out_group_are_in_no_split() -> None:
    tiles = table()
    tiles.loc[tiles["tile_id"].str.endswith("_0"), "label"] = -1
    frames = split(SplitSettings(), tiles, "kidney", SOURCES)
    held_out = set(frames["audit"]["group"]) | set(frames["test"]["group"])
    left_out = tiles[tiles["group"].isin(held_out) & (tiles["label"] == -1)]["tile_id"]
    assert len(left_out) == 10
    assert not set(left_out) & set(pd.concat(frames.values())["tile_id"])


def test_a_group_of_source_and_target_is_trained_on() -> None:
    tiles = table()
    tiles.loc[tiles["group"].isin(["kidney00", "lung00"]), "group"] = "patient"
    for seed in range(10):
        frames = split(SplitSettings(seed=seed), tiles, "kidney", SOURCES)
        assert {name for name in SPLITS if "patient" in set(frames[name]["group"])} == {"source_train", "target_train"}


def test_another_organ_or_row_order_moves_nothing(tmp_path: Path) -> None:
    without = split(SplitSettings(), table(organs=("lung", "colon", "kidney")), "kidney", SOURCES)
    shuffled = split(SplitSettings(), table().sample(frac=1, random_state=0), "kidney", SOURCES)
    assert written(without, tmp_path / "a") == written(shuffled, tmp_path / "b")


def test_another_seed_moves_groups() -> None:
    one, other = (split(SplitSettings(seed=seed), table(), "kidney", SOURCES) for seed in (0, 1))
    for name in SPLITS:
        assert set(one[name]["group"]) != set(other[name]["group"])


def test_without_a_test_share_all_held_out_groups_are_audit() -> None:
    frames = split(SplitSettings(audit_share=0.5, test_share=0.0), table(), "kidney", SOURCES)
    assert frames["audit"]["group"].nunique() == 10
    assert frames["test"].empty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[t["organ"] != "kidney"], r"no tiles of kidney.*has colon, lung, skin"),
        (lambda t: t[t["organ"] != "lung"], "no tiles of lung"),
        (lambda t: t[(t["organ"] != "lung") | (t["label"] == 1)], "source lung has 0 groups with benign"),
        (
            lambda t: t[(t["organ"] != "colon") | ~t["group"].str.match(r"colon1[1-9]")],
            "source colon has 1 groups with malig",
        ),
        (
            lambda t: t.assign(label=np.where(t["organ"] == "kidney", -1, t["label"])),
            "target kidney has 0 groups with a label",
        ),
        (
            lambda t: t.assign(label=np.where(t["organ"] == "kidney", 1, t["label"])),
            r"audit has no benign tile.*split\.seed.*split\.audit_share",
        ),
    ],
)
def test_what_cannot_be_split_is_an_error_that_says_why(change: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split(SplitSettings(), change(table()), "kidney", SOURCES)


def test_a_class_missing_from_validation_names_the_knob() -> None:
    with pytest.raises(DataError, match=r"source_val of lung has no benign tile.*split\.val_share"):
        split(SplitSettings(val_share=0.0), table(), "kidney", SOURCES)


def test_by_tile_each_tile_is_a_group_of_its_own_and_says_so() -> None:
    frames = split(SplitSettings(by="tile"), table(), "kidney", SOURCES)
    every = pd.concat(frames.values())
    assert (every["group"] == every["tile_id"]).all()
    patients = {name: set(frame["tile_id"].str.rsplit("_").str[0]) for name, frame in frames.items()}
    assert patients["source_train"] & patients["source_val"], "which is what it is for: to show a leak"
    assert patients["target_train"] & patients["test"]


def test_leaking_splits_are_refused() -> None:
    frame = table()[["tile_id", "organ", "group"]]
    assert_disjoint({"source_train": frame, "target_train": frame})
    with pytest.raises(DataError, match="both in source_train and in audit, for example colon00"):
        assert_disjoint({"source_train": frame, "audit": frame})


def test_run_split_writes_one_file_a_split(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    with pytest.raises(DataError, match="run `oncoshift ingest`"):
        run_split(SplitSettings(), "kidney", SOURCES, layout)
    write_table(table(), layout.tiles / "tiles.parquet")
    frames = run_split(SplitSettings(), "kidney", SOURCES, layout)
    assert sorted(path.stem for path in layout.splits.iterdir()) == sorted(SPLITS)
    assert pd.read_parquet(layout.splits / "audit.parquet").equals(frames["audit"])
