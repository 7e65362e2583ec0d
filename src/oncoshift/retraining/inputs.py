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
from oncoshift.errors import SettingsError, WeightsError
from oncoshift.serving.trunks import PARTS, TRUNKS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from oncoshift.settings import IngestSettings, Settings


def check_inputs(project: Path, settings: Settings) -> None:
    """Check that the inputs of a retraining are there.

    Args:
        project: the project's root, which relative paths start from.
        settings: of the experiment.

    Raises:
        DataError: the data set is missing, has an unexpected layout, or has no tile of an organ.
        SettingsError: the anchor's network is missing, or is none.
        WeightsError: pretrained weights are missing or do not fit the network.
    """
    if settings.ingest.adapter == "phantom":  # written when the retraining begins
        check_present(settings.phantom.organs, settings.target, settings.sources)
    elif (found := count_tiles_by_organ(settings.ingest, project / settings.ingest.root)) is not None:
        check_present(found, settings.target, settings.sources)
    check_trunk(project, settings)
    if "epithelium" in settings.anchor.use:
        from oncoshift.anchors.epithelium import open_network

        open_network(project / (settings.anchor.epithelium or ""))


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


def check_trunk(project: Path, settings: Settings) -> None:
    """Build the trunk once where it is not a plain ResNet, and load its pretrained weights once.

    What is published and not in the local cache is downloaded.

    Raises:
        SettingsError: there is no such trunk, it takes tiles of another size, it cannot be adapted
            by `model.lora`, or timm or peft is missing.
        WeightsError: weights are missing, or belong to another network.
    """
    model = settings.model
    if model.weights == "none" and model.backbone in TRUNKS:
        return
    from oncoshift.models.lora import add_lora  # torch takes seconds to import
    from oncoshift.models.network import list_frozen_parts
    from oncoshift.models.weights import ACCESS, load_trunk
    from oncoshift.serving.classifier import build_trunk

    try:
        trunk = build_trunk(model.backbone, model.pooling)
    except ImportError as error:
        raise SettingsError(f"model.backbone {model.backbone}: needs timm ({error}); pip install timm") from error
    except OSError as error:
        raise WeightsError(f"model.backbone {model.backbone}: {' '.join(str(error).split())}; {ACCESS}") from error
    except ValueError as error:
        raise SettingsError(f"model.backbone {error}") from error
    except AssertionError as error:  # timm checks some of its own settings so
        raise SettingsError(
            f"model.backbone {model.backbone}: timm cannot build it: {error}; choose a trunk that pools to one feature "
            "a channel"
        ) from error
    if trunk.side not in (None, settings.normalize.tile_size):
        raise SettingsError(
            f"normalize.tile_size {settings.normalize.tile_size}: {model.backbone} takes tiles of {trunk.side} pixels; "
            f"set it to {trunk.side}"
        )
    is_file = model.weights.endswith(".safetensors")
    load_trunk(trunk, model.backbone, str(project / model.weights) if is_file else model.weights)
    if model.lora is not None:
        add_lora(trunk, model.backbone, model.lora, PARTS[len(list_frozen_parts(model.freeze)) :])
