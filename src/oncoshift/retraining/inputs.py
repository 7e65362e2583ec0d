"""The inputs of a retraining: tiles of the organs that it names, and pretrained weights.

They are checked before anything is hashed, opened or trained, so that mistakes are reported first.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from oncoshift.data.source.archives import is_archive
from oncoshift.data.source.opening import DataSet, check_root
from oncoshift.data.source.scan import scan
from oncoshift.data.split_checks import check_present

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from oncoshift.settings import IngestSettings, ModelSettings, Settings


def check_inputs(project: Path, settings: Settings) -> None:
    """Check that the inputs of a retraining are there.

    Args:
        project: the project's root, which relative paths start from.
        settings: of the experiment.

    Raises:
        DataError: the data set is missing, has an unexpected layout, or has no tile of an organ.
        WeightsError: pretrained weights are missing or do not fit the network.
    """
    if settings.ingest.adapter == "phantom":  # written when the retraining begins
        check_present(settings.phantom.organs, settings.target, settings.sources)
    elif (found := count_tiles_by_organ(settings.ingest, project / settings.ingest.root)) is not None:
        check_present(found, settings.target, settings.sources)
    check_weights(project, settings.model)


def count_tiles_by_organ(settings: IngestSettings, raw: Path) -> Mapping[str, int] | None:
    """Count the tiles of a data set by organ, without opening them.

    Returns:
        Number of tiles by organ; None for an archive, which must be unpacked before its tiles can
        be listed.

    Raises:
        DataError: the data set is missing, or has another layout than the adapter expects.
    """
    check_root(settings.adapter, raw)
    if is_archive(raw):
        return None
    return Counter(tile.organ for tile in scan(settings, DataSet(raw, unpacked=raw)).tiles)


def check_weights(project: Path, model: ModelSettings) -> None:
    """Load pretrained weights once, and download those of torchvision that are not in its cache.

    Raises:
        WeightsError: they are missing, or belong to another network.
    """
    if model.weights == "none":
        return
    from oncoshift.models.weights import load_trunk  # torch takes seconds to import
    from oncoshift.serving.classifier import Trunk

    named = model.weights == "imagenet"
    load_trunk(Trunk(model.backbone), model.backbone, model.weights if named else str(project / model.weights))
