"""The section of the results' page about explanations: where the models look, by pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.grid.explained import SHOWN, WRONG
from oncoshift.grid.plots import draw_values
from oncoshift.markdown import render_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from oncoshift.evaluation.intervals import Interval
    from oncoshift.explain.nuclei import NucleiSummary
    from oncoshift.grid.explained import ExplainedPair
    from oncoshift.grid.results import Results

_TITLE = "## Where the models look"
_FEW = "(few groups)"
_MASKS = {"true": "as the data set draws them", "haematoxylin": "found by their haematoxylin"}


def render_explained(results: Results, picture: str) -> str:
    """Render the section; where nothing was explained, one line with the command that does.

    Args:
        results: all rows.
        picture: the line of Markdown that shows `draw_nuclei`.
    """
    done = {each.pool for each in results.explained}
    missing = [str(each.pool) for each in results.chosen if each.pool not in done]
    if not results.explained:
        return f"{_TITLE}\n\nNo model has been explained yet; `{results.command} --explain` does it."
    rest = f"\n\nNot explained: {'; '.join(missing)}; `{results.command} --explain` does it." if missing else ""
    header = (
        "target ← sources", "chosen without labels", "tiles, groups", "area", "on nuclei, source-only",
        "on nuclei, chosen", "difference, paired", "enrichment, source-only", "enrichment, chosen",
        "difference, paired", "converged", "run",
    )  # fmt: skip
    return f"""\
{_TITLE}

Integrated Gradients of logit(malignant) − logit(benign), of the model chosen without labels and of the source-only
model with the same seed and stain variant, on the same test tiles of the target: half of each class that the
chosen model calls, where possible, from as many groups as possible.

{render_table(header, [_list_cells(results, each) for each in results.explained])}

- *on nuclei*: mean share of |attribution| on nuclei, {_describe_masks(results)}; *area*: mean share of
  the tile that they cover, which is what attribution spread evenly would give.
- *enrichment*: ratio of the two. 1 is what chance gives.
- Differences are chosen minus source-only. Intervals are {results.settings.evaluate.confidence:.0%} bootstraps over
  groups; they do not cover the choice of the seed.
- *converged*: maps of both models that more steps would not change (`explain.tolerance`, `explain.stability`).

{picture}

A large share says where a model looks, not that it is right: compare the balanced accuracy
[above](#in-one-table).

Each pool has three galleries of the chosen model: tiles that it calls rightly and most confidently, wrongly and
most confidently, and those of which it is least certain; at most {SHOWN} each, classes and groups in turn, each
beside its map. They go by the call that is evaluated, of the calibrated probability at the model's threshold, and
by the distance from it as a share of the room on that side; captions show the network's own probability, before
calibration and called at 0.5, so the two may differ.

They are the artifacts `galleries/` of the run in the last column, and lie in `runs/galleries/` of the project,
which git ignores. They show tiles of patients, which must not be committed, so none is on this
page.{_describe_absent(results)}{rest}"""


def draw_nuclei(results: Results) -> Figure | None:
    """Draw the enrichment of both models by pool; None where no interval is known."""
    rows = [
        (str(each.pool), name, summary.interval)
        for each in results.explained
        for name, summary in (("source-only", each.comparison.first), ("chosen without labels", each.comparison.second))
        if summary.interval is not None
    ]
    label = "attribution on nuclei, as a multiple of the area that they cover"
    return draw_values(rows, label, chance=1.0) if rows else None


def _list_cells(results: Results, explained: ExplainedPair) -> tuple[str, ...]:
    found, row = explained.comparison, explained.pair.chosen.row
    converged, maps = explained.count_converged()
    return (
        str(explained.pool),
        results.name_candidate(row.method, row.variant, explained.pair.chosen.without),
        f"{found.tiles}, {found.groups}",
        _percent(found.first.area),
        _percent(found.first.share),
        _percent(found.second.share),
        _show_share(found.share),
        _show_enrichment(found.first),
        _show_enrichment(found.second),
        _FEW if found.enrichment is None else found.enrichment.format_signed(),
        f"{converged} of {maps}",
        explained.run[:8],
    )


def _describe_masks(results: Results) -> str:
    kinds = {kind for each in results.explained for kind in each.chosen["mask"]}
    return " or ".join(_MASKS[kind] for kind in sorted(kinds))


def _describe_absent(results: Results) -> str:
    """Name the pools where a gallery has no tile."""
    absent = [str(each.pool) for each in results.explained if WRONG not in each.pair.chosen.galleries]
    return f" Nothing was called wrongly in {'; '.join(absent)}." if absent else ""


def _percent(value: float) -> str:
    return f"{value:.1%}" if np.isfinite(value) else "–"


def _show_share(difference: Interval | None) -> str:
    """Show a difference of shares in percentage points."""
    if difference is None:
        return _FEW
    points = (f"{100 * value:+.1f}" for value in (difference.point, difference.low, difference.high))
    point, low, high = points
    return f"{point} [{low}, {high}] points"


def _show_enrichment(summary: NucleiSummary) -> str:
    if summary.interval is None:
        return f"{summary.enrichment:.2f}" if np.isfinite(summary.enrichment) else "–"
    return f"{summary.enrichment:.2f} [{summary.interval.low:.2f}, {summary.interval.high:.2f}]"
