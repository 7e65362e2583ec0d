"""Step `shortcuts`: plain measures of an experiment's labelled tiles, and which of them flip.

With the target it reads labels of test tiles. A retraining runs it after the pick and its verdict,
and nothing is decided by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from oncoshift.anchors.kept import measure_once
from oncoshift.anchors.values import split_by_group
from oncoshift.evaluation.shortcuts import Shortcuts, audit_shortcuts

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from oncoshift.data.loading import LabelledSplit
    from oncoshift.data.tables import EvaluationTiles
    from oncoshift.settings import Settings
    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.steps.recorder import Recorder

TABLE, PICTURE = "shortcuts", "shortcuts.png"
"""Names of the table and of the picture."""


@dataclass(frozen=True)
class ShortcutAudit:
    """The audit of an experiment's organs.

    Attributes:
        shortcuts: the AUROC of each measure in each organ.
    """

    shortcuts: Shortcuts

    def record(self, recorder: Recorder, plots: str = "") -> None:
        """Save table and picture, the picture also in the retraining's run.

        Args:
            recorder: where to save them.
            plots: folder of the picture, ending in a slash.
        """
        recorder.save_table(TABLE, self.shortcuts.table)
        recorder.save_text(f"{TABLE}.md", self.shortcuts.to_markdown() + "\n")
        if self.shortcuts.table.empty:  # no organ has tiles of both classes
            return
        figure = self.shortcuts.draw()
        for place in (recorder, recorder.outer):
            place.save_figure(f"{plots}{PICTURE}", figure)


def run(
    jobs: ExperimentJobs,
    settings: Settings,
    *,
    with_target: bool,
    with_epithelium: bool,
    on_progress: Callable[[int, int], None],
) -> ShortcutAudit:
    """Measure the labelled tiles as they are in the pack; each organ is measured once.

    Args:
        jobs: of the experiment.
        settings: of the experiment.
        with_target: whether to add the target's test tiles, and so read their labels.
        with_epithelium: whether to use the map of `anchor.epithelium`, if there is one; it takes
            far longer than the other measures together.
        on_progress: called with groups done and groups in all.

    Raises:
        DataError: a stage has not run.
        SettingsError: `anchor.epithelium` cannot be used.
    """
    splits: list[LabelledSplit] = ["source_train", "source_val"]
    if with_target:
        splits.append("test")
    tiles = jobs.load_tiles(splits)
    groups = {str(organ): _list_groups(tiles, tiles.organs == organ) for organ in np.unique(tiles.organs)}
    epithelium = settings.anchor if with_epithelium and settings.anchor.epithelium is not None else None
    folder = jobs.layout.features.with_name("anchors")
    total, parts, before = sum(map(len, groups.values())), [], 0
    for of_organ in groups.values():

        def report(done: int, _of_organ: int, before: int = before) -> None:
            on_progress(before + done, total)

        parts.append(measure_once(tiles.images, of_organ, epithelium, folder, jobs.pack_digest, report))
        before += len(of_organ)
    return ShortcutAudit(
        audit_shortcuts(
            pd.concat(parts).loc[tiles.rows],
            tiles.organs,
            tiles.labels,
            tiles.groups,
            resamples=settings.evaluate.bootstrap,
            confidence=settings.evaluate.confidence,
        )
    )


def _list_groups(tiles: EvaluationTiles, chosen: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """List the rows of each group among the chosen tiles, in the order of the pack."""
    order = np.argsort(tiles.rows[chosen], kind="stable")
    rows, names = tiles.rows[chosen][order], tiles.groups[chosen][order]
    return [rows[positions] for positions in split_by_group(np.unique(names, return_inverse=True)[1])]
