"""The anchors of a job's tiles, measured before its training."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from oncoshift.anchors.values import combine, measure_anchor, standardise
from oncoshift.methods.registry import METHODS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from oncoshift.data.tables import TrainingData
    from oncoshift.settings import Settings
    from oncoshift.training.features import FeatureCache

_VALIDATOR = "nuclei"
"""The anchor that a validator reads; it has no settings, so every job logs the same score."""


def add_anchors(data: TrainingData, settings: Settings, cache: FeatureCache) -> TrainingData:
    """Add the anchors that method and validators read to training data.

    Of the sources they are measured only where the method needs them.

    Args:
        data: that training may read.
        settings: of the experiment.
        cache: where they are kept.

    Raises:
        SettingsError: a file that the settings name cannot be used.
    """
    method, target, anchor = METHODS[settings.train.method], data.target.rows, None
    if method.reads_anchor:
        organs = [target, *(_list_source_rows(data) if method.closed_form else ())]
        anchor = _fill(data, organs, [measure_organ(data, rows, settings, cache) for rows in organs])
    nuclei = _fill(data, [target], [measure_organ(data, target, settings, cache, (_VALIDATOR,))])
    return replace(data, anchor=anchor, nuclei=nuclei)


def measure_organ(
    data: TrainingData,
    rows: NDArray[np.int64],
    settings: Settings,
    cache: FeatureCache,
    names: tuple[str, ...] | None = None,
) -> NDArray[np.float64]:
    """Measure the anchors of one organ's tiles, combined into one, float64 [N].

    Args:
        data: with the pack, and the groups of its rows.
        rows: of the organ's tiles, int64 [N].
        settings: of the experiment.
        cache: where they are kept.
        names: which anchors; None: those of `anchor.use`.
    """
    return combine(list(measure_each(data, rows, settings, cache, names or settings.anchor.use).values()))


def measure_each(
    data: TrainingData, rows: NDArray[np.int64], settings: Settings, cache: FeatureCache, names: tuple[str, ...]
) -> dict[str, NDArray[np.float64]]:
    """Measure anchors of one organ's tiles, standardised, float64 [N] by name."""
    beside = cache.folder.with_name("anchors")
    images, known = data.target.images, (settings.anchor, beside, cache.pack_digest)
    return {name: standardise(measure_anchor(name, images, data.groups, *known, rows)) for name in names}


def _list_source_rows(data: TrainingData) -> Iterator[NDArray[np.int64]]:
    """List the training rows of each source organ."""
    for organ in range(len(data.source.organ_names)):
        yield data.source.rows[data.source.organs == organ]


def _fill(
    data: TrainingData, organs: list[NDArray[np.int64]], values: list[NDArray[np.float64]]
) -> NDArray[np.float64]:
    filled = np.full(len(data.target.images), np.nan)
    for rows, each in zip(organs, values, strict=True):
        filled[rows] = each
    return filled
