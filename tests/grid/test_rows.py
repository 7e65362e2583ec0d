"""The grid has every pool, method, variant and protocol that settings name, and no other."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from oncoshift.errors import SettingsError
from oncoshift.grid.recipe import check_settings
from oncoshift.grid.registry import HONEST, PAPER, PROTOCOLS
from oncoshift.grid.rows import Pool, Row, is_judged, list_pools, list_rows
from oncoshift.settings import Settings, flatten, load_settings, parse_settings, replace_values

REPOSITORY = Path(__file__).resolve().parents[2]

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


def test_candidates_come_again_without_sources_that_contradict_where_there_is_a_majority() -> None:
    settings = replace_values(SMALL, {"retrain.methods": ["mcc"], "retrain.variants": ["none", "reinhard"]})
    three = Pool("kidney", ("lung", "colon", "breast"))
    wanted = [Row(three, "mcc", variant, leaves_out=True) for variant in ("none", "reinhard")]
    assert [row for row in list_rows(settings) if row.leaves_out] == wanted
    assert wanted[0].title == "kidney ← lung+colon+breast · mcc without contradicting sources · none · honest"
    assert wanted[0].make_settings(settings, ["colon"]).sources == ("lung", "breast")
    assert not [row for row in list_rows(SMALL) if row.leaves_out], "no candidates are named"
    never = replace_values(settings, {"retrain.leave_out_below": None})
    assert not [row for row in list_rows(never) if row.leaves_out]


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


def test_the_papers_optimisation_is_that_of_the_preset() -> None:
    preset = load_settings(REPOSITORY / "params.yaml", preset="paper", overrides=())
    given = flatten(preset)
    for key, value in PROTOCOLS["paper_training"].changes.items():
        assert given[key] == value, key


def test_a_protocol_that_changes_nothing_has_no_rows() -> None:
    assert SMALL.model.weights == "none"
    assert "random_start" not in {row.protocol for row in list_rows(SMALL)}
    pretrained = replace_values(SMALL, {"model.weights": "imagenet"})
    assert "random_start" in {row.protocol for row in list_rows(pretrained)}


def test_a_frozen_trunk_has_no_random_start() -> None:
    frozen = replace_values(SMALL, {"model.weights": "imagenet", "model.freeze": "all"})
    assert {row.protocol for row in list_rows(frozen)} == {HONEST, "tile_split", "paper_training"}


def test_honest_splits_by_group_whatever_the_settings_say() -> None:
    leaking = replace_values(SMALL, {"split.by": "tile"})
    made = [row.make_settings(leaking).split.by for row in list_rows(leaking) if row.protocol == HONEST]
    assert {*made} == {"group"}


def test_a_row_is_of_one_method_and_variant_whatever_a_retraining_chooses_from() -> None:
    both = {"retrain.methods": ["cdan", "mcc"], "retrain.variants": ["none", "reinhard"]}
    settings = replace_values(SMALL, {"normalize.variants": ["none", "reinhard"], **both})
    own = Row(Pool("lung", ("colon", "breast")), "dann", "reinhard").make_settings(settings)
    assert (own.train.method, own.train.variant) == ("dann", "reinhard")
    assert (own.retrain.methods, own.retrain.variants) == ((), ())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("select.validator", "oracle", "reads target labels"),
        ("retrain.methods", ["cdan", "mcc"], "retrain.methods names cdan"),
        ("paper.protocols", ["paper"], "lacks honest"),
        ("paper.methods", ["mcc"], "lacks dann"),
        ("paper.variants", ["reinhard"], "the choice is on none"),
    ],
)
def test_what_the_page_could_not_show_is_refused_before_anything_runs(key: str, value: object, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        check_settings(replace_values(SMALL, {key: value}))


def test_only_adapted_honest_rows_are_judged() -> None:
    judged = [row for row in list_rows(SMALL) if is_judged(row)]
    assert {(row.method, row.protocol) for row in judged} == {("dann", HONEST), ("mcc", HONEST)}


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
