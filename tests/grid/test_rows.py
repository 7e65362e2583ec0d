"""The grid has every pool, method, variant and protocol that settings name, and no other."""

from __future__ import annotations

from collections import Counter

import pytest

from oncoshift.errors import SettingsError
from oncoshift.grid.registry import HONEST, PAPER, PROTOCOLS
from oncoshift.grid.rows import Pool, Row, is_judged, list_pools, list_rows
from oncoshift.settings import Settings, flatten, parse_settings, replace_values

SMALL = parse_settings(
    {
        "paper": {
            "pools": [["lung", "colon", "breast"], ["kidney", "lung", "colon", "breast"]],
            "methods": ["dann", "mcc"],
        }
    }
)


def test_under_honest_each_pool_has_all_methods_and_variants() -> None:
    rows = [row for row in list_rows(SMALL) if row.protocol == HONEST]
    two = Pool("lung", ("colon", "breast"))
    names = Counter((row.pool, row.variant, row.name) for row in rows)
    assert set(names.values()) == {1}
    for variant in ("none", "reinhard"):
        found = [name for pool, each, name in names if pool == two and each == variant]
        assert found == ["erm", "colon alone", "breast alone", "ensemble", "dann", "mcc"]
    assert len(rows) == 2 * (6 + 7)


def test_further_variants_are_for_each_targets_pool_with_the_fewest_sources() -> None:
    pools = [["lung", "colon", "breast", "kidney"], ["lung", "colon", "breast"], ["kidney", "lung"]]
    settings = replace_values(SMALL, {"paper.pools": pools})
    normalised = {str(row.pool) for row in list_rows(settings) if row.variant == "reinhard"}
    assert normalised == {"lung ← colon, breast", "kidney ← lung"}


def test_other_protocols_are_about_pools_of_two_sources_and_the_first_variant() -> None:
    rows = [row for row in list_rows(SMALL) if row.protocol == PAPER]
    assert {row.pool for row in rows} == {Pool("lung", ("colon", "breast"))}
    assert {row.variant for row in rows} == {"none"}
    assert [row.name for row in rows] == ["erm", "colon alone", "breast alone", "dann"]


def test_the_papers_protocol_changes_what_the_others_change_one_by_one() -> None:
    row = Row(Pool("lung", ("colon", "breast")), "dann", "none")
    made = {name: flatten(Row(row.pool, "dann", "none", name).make_settings(SMALL)) for name in PROTOCOLS}
    changed = {
        name: {(key, value) for key, value in values.items() if value != made[HONEST][key]}
        for name, values in made.items()
    }
    parts = [changed[name] for name in PROTOCOLS if name not in (HONEST, PAPER)]
    assert not changed[HONEST]
    assert all(part or SMALL.model.weights == "none" for part in parts)
    assert changed[PAPER] == set.union(*parts)
    assert made[PAPER]["split.by"] == "tile"


def test_only_adapted_honest_rows_of_the_first_variant_are_judged() -> None:
    judged = [row for row in list_rows(SMALL) if is_judged(row, SMALL)]
    assert {(row.method, row.variant, row.protocol) for row in judged} == {
        ("dann", "none", HONEST), ("mcc", "none", HONEST),
    }  # fmt: skip


def test_default_pools_hold_each_organ_out_once_from_three() -> None:
    pools = list_pools(Settings())
    of_three = [pool.target for pool in pools if len(pool.sources) == 3]
    assert sorted(of_three) == ["breast", "colon", "kidney", "lung"]
    assert all(pool.target not in pool.sources for pool in pools)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("paper.pools", [["lung"]], "is no pool"),
        ("paper.pools", [["lung", "colon", "lung"]], "is no pool"),
        ("paper.pools", [["lung", "colon"], ["lung", "colon"]], "more than once"),
        ("paper.pools", "lung", "paper.pools"),
        ("paper.methods", ["erm"], "does not adapt without labels"),
        ("paper.methods", ["few_labels"], "does not adapt without labels"),
        ("paper.protocols", ["none"], "paper.protocols"),
    ],
)
def test_what_is_no_grid_is_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        replace_values(Settings(), {key: value})
