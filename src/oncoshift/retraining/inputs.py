"""What a retraining needs before it begins: tiles of the organs that it names, and pretrained weights.

Checked before anything is hashed, opened or trained, so that a user's mistakes are reported first.
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
    """Check that a retraining can begin.

    Args:
        project: the project's root, from where relative paths go.
        settings: of the experiment.

    Raises:
        DataError: the data set is not there, is not laid out as expected, or has no tile of an organ.
        WeightsError: pretrained weights are missing or do not fit.
    """
    if settings.ingest.adapter == "phantom":  # made, or made anew, when the retraining begins
        check_present(settings.phantom.organs, settings.target, settings.sources)
    elif (found := count_tiles_by_organ(settings.ingest, project / settings.ingest.root)) is not None:
        check_present(found, settings.target, settings.sources)
    check_weights(project, settings.model)


def count_tiles_by_organ(settings: IngestSettings, raw: Path) -> Mapping[str, int] | None:
    """Number of tiles by organ as a data set lists them, none of them opened.

    Returns:
        None where an archive must be unpacked before its tiles can be listed.

    Raises:
        DataError: the data set is not there, or is not laid out as the adapter expects.
    """
    check_root(settings.adapter, raw)
    if is_archive(raw):
        return None
    return Counter(tile.organ for tile in scan(settings, DataSet(raw, unpacked=raw)).tiles)


def check_weights(project: Path, model: ModelSettings) -> None:
    """Load pretrained weights once; torchvision's are downloaded where they are not in its cache yet.

    Raises:
        WeightsError: they are missing, or those of another network.
    """
    if model.weights == "none":
        return
    from oncoshift.models.weights import load_trunk  # torch takes seconds, which other settings need not wait for
    from oncoshift.serving.classifier import Trunk

    named = model.weights == "imagenet"
    load_trunk(Trunk(model.backbone), model.backbone, model.weights if named else str(project / model.weights))
