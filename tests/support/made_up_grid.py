"""Rows of a grid that nobody trained, for tests of what is computed from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from oncoshift.evaluation.domains import evaluate_domains
from oncoshift.grid.measure import CANDIDATE
from oncoshift.grid.results import MeasuredRow, Results
from oncoshift.grid.rows import Pool, Row
from oncoshift.methods.registry import METHODS
from oncoshift.selection.choice import Candidate
from oncoshift.selection.verdict import Kind, Verdict
from oncoshift.settings import Settings, parse_settings

POOL = Pool("lung", ("colon", "breast"))
SETTINGS = parse_settings(
    {
        "paper": {"pools": [["lung", "colon", "breast"], ["lung", "colon"]], "methods": ["dann", "mcc"]},
        "evaluate": {"bootstrap": 100},
        "retrain": {"seeds": 2},
    }
)
GROUPS = 12


def predict(organ: str, right: float, seed: int) -> pd.DataFrame:
    """Predict 48 tiles of an organ, of which a share is right in each class."""
    labels = np.repeat([0, 1], 24)
    rank = np.tile(np.arange(24), 2) / 24
    called = np.where(rank < right, labels, 1 - labels)
    groups = [f"{organ}-{label}-{number % (GROUPS // 2)}" for label in (0, 1) for number in range(24)]
    return pd.DataFrame(
        {
            "tile_id": [f"{organ}/{number}" for number in range(48)],
            "organ": organ,
            "group": groups,
            "label": labels,
            "probability": np.where(called == 1, 0.9, 0.1),
            "seed": seed,
            "threshold": 0.5,
        }
    )


def measured(
    row: Row,
    target: float,
    kind: Kind | None = None,
    score: float = 0.0,
    own: float = 1.0,
    nuclei: float = 0.0,
    stain: float | None = None,
    without: tuple[str, ...] = (),
) -> MeasuredRow:
    """A row with `own` accuracy on the sources; on the target seed 1 is worse by a quarter."""
    shares = {row.pool.target: target, **dict.fromkeys(row.pool.sources, own)}
    tables = [
        predict(organ, share - (seed * 0.25 if organ == row.pool.target else 0), seed)
        for organ, share in shares.items()
        for seed in (0, 1)
    ]
    table = pd.concat(tables, ignore_index=True)
    verdict = Verdict(kind, ("made up",)) if kind is not None else None
    candidate = Candidate(
        row.method, row.variant, (0, 1), (score, score - 0.1), (nuclei, nuclei), None, stain, verdict,
        reads_anchor=METHODS[row.method].reads_anchor, without=dict.fromkeys(without, -0.5),
    )  # fmt: skip
    facts: dict[str, Any] = {
        "failure": "",
        "candidate": CANDIDATE.dump_python(candidate, mode="json") if verdict else None,
        "report": evaluate_domains(table, SETTINGS.evaluate).to_dict(),
        "jobs": ["a", "b"],
        "scores": {str(seed): {"entropy": score - seed, "source_accuracy": own} for seed in (0, 1)},
    }
    return MeasuredRow(row, f"{row.name}-{row.variant}-{row.protocol}"[:12] + "0" * 20, facts, table)


def make_results(*more: MeasuredRow, settings: Settings = SETTINGS) -> Results:
    rows = [
        measured(Row(POOL, "erm", "none"), 0.5),
        measured(Row(POOL, "single", "none", organ="colon"), 0.625, own=0.875),
        measured(Row(POOL, "dann", "none"), 0.75, Kind.DOUBT, 0.9),
        measured(Row(POOL, "mcc", "none"), 1.0, Kind.REFUSE, 0.95),
        measured(Row(POOL, "erm", "reinhard"), 0.625),
        measured(Row(POOL, "erm", "none", "paper"), 0.875),
        measured(Row(Pool("lung", ("colon",)), "erm", "none"), 1.0),
        *more,
    ]
    return Results(rows, settings, "oncoshift paper", "abc", "run")
