"""Step `shortcuts`: plain measures of an experiment's labelled tiles, and which of them flip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from oncoshift.anchors.epithelium import measure_epithelium
from oncoshift.anchors.measures import measure_group
from oncoshift.anchors.values import split_by_group
from oncoshift.evaluation.shortcuts import Shortcuts, audit_shortcuts
from oncoshift.parallel import map_in_order

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from oncoshift.data.loading import LabelledSplit
    from oncoshift.data.tables import EvaluationTiles
    from oncoshift.settings import Settings
    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.steps.recorder import Recorder


@dataclass(frozen=True)
class ShortcutAudit:
    """The audit of an experiment's organs.

    Attributes:
        shortcuts: the AUROC of each measure in each organ.
    """

    shortcuts: Shortcuts

    def record(self, recorder: Recorder) -> None:
        """Save table and picture."""
        recorder.save_table("shortcuts", self.shortcuts.table)
        recorder.save_text("shortcuts.md", self.shortcuts.to_markdown() + "\n")
        recorder.save_figure("shortcuts.png", self.shortcuts.draw())


def run(
    jobs: ExperimentJobs, settings: Settings, *, with_target: bool, on_progress: Callable[[int, int], None]
) -> ShortcutAudit:
    """Measure the labelled tiles as they are in the pack.

    Args:
        jobs: of the experiment.
        settings: of the experiment.
        with_target: whether to add the target's test tiles, and so read their labels.
        on_progress: called with groups done and groups in all.

    Raises:
        DataError: a stage has not run.
        SettingsError: `anchor.epithelium` cannot be used.
    """
    splits: list[LabelledSplit] = ["source_train", "source_val"]
    if with_target:
        splits.append("test")
    tiles = jobs.load_tiles(splits)
    _, numbers = np.unique(np.char.add(np.char.add(tiles.organs, "/"), tiles.groups), return_inverse=True)
    members = split_by_group(numbers)
    parts = map_in_order(lambda positions: _measure(tiles, positions, settings), members, on_progress)
    measures = pd.concat(parts).sort_index()
    return ShortcutAudit(
        audit_shortcuts(
            measures,
            tiles.organs,
            tiles.labels,
            tiles.groups,
            resamples=settings.evaluate.bootstrap,
            confidence=settings.evaluate.confidence,
        )
    )


def _measure(tiles: EvaluationTiles, positions: NDArray[np.int64], settings: Settings) -> pd.DataFrame:
    images = np.asarray(tiles.images[tiles.rows[positions]])
    found = measure_group(images).set_index(positions)
    if settings.anchor.epithelium is not None:
        found.insert(1, "epithelium ÷ tissue", measure_epithelium(images, settings.anchor))
    return found
