"""The audit of shortcuts tells a measure that flips between organs from one that points one way."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from oncoshift.evaluation.shortcuts import Shortcuts, audit_shortcuts

ORGANS = np.repeat(["lung", "kidney"], 200)
LABELS = np.tile(np.arange(200) // 100, 2)
GROUPS = np.array([f"g{number // 10}" for number in range(400)])


@pytest.fixture(scope="module")
def audited() -> Shortcuts:
    rng = np.random.default_rng(0)
    sign = np.where(ORGANS == "lung", 1, -1)
    measures = pd.DataFrame(
        {
            "nuclei": LABELS + rng.normal(0, 0.5, 400),
            "white": sign * LABELS + rng.normal(0, 0.5, 400),
            "noise": rng.normal(0, 1, 400),
        }
    )
    return audit_shortcuts(measures, ORGANS, LABELS, GROUPS, resamples=200)


def test_directions(audited: Shortcuts) -> None:
    assert audited.directions == {"nuclei": "one way", "white": "flips", "noise": "unclear"}


def test_an_auroc_has_an_interval_over_groups(audited: Shortcuts) -> None:
    rows = audited.table.set_index(["measure", "organ"]).to_dict("index")
    lung = rows["white", "lung"]
    assert (lung["tiles"], lung["groups"]) == (200, 20)
    assert 0.8 < lung["low"] < lung["auroc"] < lung["high"] <= 1
    assert rows["white", "kidney"]["high"] < 0.2


def test_table_and_picture_have_all_of_it(audited: Shortcuts) -> None:
    first, _, *rows = audited.to_markdown().splitlines()
    assert first == "| measure | kidney | lung | direction |"
    assert [row.split(" | ")[0] for row in rows] == ["| nuclei", "| white", "| noise"]
    assert rows[1].endswith("| flips |")
    (axes,) = audited.draw().axes
    assert len(axes.lines) == 3 * 2 * 2 + 1


def test_an_organ_of_one_class_is_left_out_and_few_groups_have_no_interval() -> None:
    labels, groups = np.where(ORGANS == "lung", LABELS, 0), np.where(LABELS == 1, "one", GROUPS)
    found = audit_shortcuts(pd.DataFrame({"nuclei": LABELS * 1.0}), ORGANS, labels, groups, resamples=100)
    (row,) = found.table.to_dict("records")
    assert (row["organ"], row["auroc"]) == ("lung", 1.0)
    assert np.isnan(row["low"])
    assert found.directions == {"nuclei": "unclear"}
    assert "| nuclei | 1.00 | unclear |" in found.to_markdown()
