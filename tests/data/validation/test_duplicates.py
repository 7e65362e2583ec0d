"""Byte-identical tiles are kept once, their groups joined, and contradictions refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncoshift.data.source.adapters.base import RawTile
from oncoshift.data.validation.checks import Fault
from oncoshift.data.validation.duplicates import list_identical_groups, mark_duplicates, rename_groups
from oncoshift.data.validation.inspection import Inspected
from oncoshift.disjoint_sets import merge_names
from oncoshift.errors import DataError


def tile(
    name: str, digest: str, label: int = 0, group: str = "g", organ: str = "lung", fault: Fault | None = None
) -> Inspected:
    return Inspected(RawTile(Path(name), name, organ, label, group), digest, None, fault)


def dropped(tiles: list[Inspected]) -> dict[str, str]:
    return {one.tile.tile_id: one.fault.reason for one in mark_duplicates(tiles) if one.fault}


def test_the_first_by_name_is_kept_and_named() -> None:
    found = dropped([tile("c", "1"), tile("b", "1"), tile("d", "2"), tile("a", "1")])
    assert set(found) == {"b", "c"}
    assert all("same bytes as a," in reason for reason in found.values())


def test_a_label_is_worth_more_than_none() -> None:
    assert set(dropped([tile("a", "1", label=-1), tile("b", "1", label=1)])) == {"a"}


def test_a_bad_tile_is_no_copy() -> None:
    bad = Fault("blank", "nothing there")
    tiles = [tile("a", "1", fault=bad), tile("b", "1", label=1, fault=bad)]
    assert mark_duplicates(tiles) == tiles
    assert list_identical_groups(tiles) == []


def test_two_labels_for_the_same_bytes_are_refused_by_name() -> None:
    pairs = [one for n in range(7) for one in (tile(f"b{n}", str(n)), tile(f"m{n}", str(n), label=1))]
    with pytest.raises(DataError, match="7 pairs") as caught:
        mark_duplicates(pairs)
    message = str(caught.value)
    assert "b0 (lung, benign) = m0 (lung, malignant)" in message
    assert "b4" in message
    assert "b5" not in message
    assert "and 2 more" in message


def test_two_organs_for_the_same_bytes_are_refused() -> None:
    with pytest.raises(DataError, match=r"a \(lung, benign\) = b \(colon, benign\)"):
        mark_duplicates([tile("a", "1"), tile("b", "1", organ="colon")])


def test_groups_that_share_bytes_are_joined_for_all_their_tiles() -> None:
    tiles = [
        tile("a", "1", group="p2"),
        tile("b", "1", group="p1"),
        tile("c", "3", group="p2"),
        tile("d", "4", group="p9"),
    ]
    names = merge_names(list_identical_groups(tiles))
    assert names == {"p1": "p1", "p2": "p1"}
    assert [one.tile.group for one in rename_groups(tiles, names)] == ["p1", "p1", "p1", "p9"]


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=3), max_size=8))
def test_joining_does_not_depend_on_the_order(together: list[list[str]]) -> None:
    names = merge_names(together)
    shuffled = [members[::-1] for members in reversed(together)]
    assert merge_names(shuffled) == names
    for members in together:
        assert len({names.get(name, name) for name in members}) == 1
    for name, whole in names.items():
        assert whole == min(other for other, same in names.items() if same == whole)
        assert name >= whole
