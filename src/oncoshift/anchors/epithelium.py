"""The share of tissue that is epithelium, by a segmentation network that the user brings.

The network is an ONNX file with one input, float [N, 3, S, S], and one output of maps, [N, C, S,
S] with C ≥ 2, one of which is epithelium where it is the largest. The input's channels are eosin,
haematoxylin and mean optical density, each scaled to 0–1 between its 1st and 99th percentile over
the group, at `anchor.epithelium_side` pixels. None travels with oncoshift: docs/anchors.md says
where to get one.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from oncoshift.anchors.stains import find_white, separate_stains, spread
from oncoshift.errors import SettingsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.settings.training import AnchorSettings

_BATCH = 16
_SCALED_TILES = 64
"""Tiles of a group, evenly spread, that decide how its channels are scaled."""


def measure_epithelium(tiles: NDArray[np.uint8], settings: AnchorSettings) -> NDArray[np.float64]:
    """Measure the share of tissue that is epithelium, of the tiles of one group.

    Args:
        tiles: uint8 [N, S, S, 3].
        settings: section `anchor`.

    Returns:
        float64 [N], 0 to 1; 0 for a tile without tissue.

    Raises:
        SettingsError: the network cannot be used.
    """
    session = open_network(Path(settings.epithelium or ""))
    white = find_white(tiles)
    low, high = _find_range(tiles, white)
    shares = []
    for first in range(0, len(tiles), _BATCH):
        part = tiles[first : first + _BATCH]
        inputs, tissue = zip(*(_prepare(tile, white) for tile in part), strict=True)
        scaled = np.clip((np.stack(inputs) - low) / (high - low), 0, 1).astype(np.float32)
        masks = _run(session, scaled, settings)
        shares += [_share(mask, where) for mask, where in zip(masks, tissue, strict=True)]
    return np.array(shares, np.float64)


def _prepare(tile: NDArray[np.uint8], white: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return eosin, haematoxylin and mean density, float32 [3, S, S], and tissue, bool [S, S]."""
    stains = separate_stains(tile, white)
    return np.stack([stains.eosin, stains.haematoxylin, stains.density / 3]), stains.tissue


def _find_range(
    tiles: NDArray[np.uint8], white: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Find the 1st and 99th percentile of each channel over a group, float32 [3, 1, 1] each."""
    values = np.stack([_prepare(tile, white)[0] for tile in spread(tiles, _SCALED_TILES)])
    low, high = np.percentile(values, (1, 99), axis=(0, 2, 3)).astype(np.float32)[..., None, None]
    return low, np.maximum(high, low + 1e-6)


def _run(session: Any, inputs: NDArray[np.float32], settings: AnchorSettings) -> NDArray[np.bool_]:
    """Run the network on inputs [N, 3, S, S]; return where it sees epithelium, [N, s, s]."""
    side, channel = settings.epithelium_side, settings.epithelium_channel
    small = [cv2.resize(each.transpose(1, 2, 0), (side, side), interpolation=cv2.INTER_AREA) for each in inputs]
    given = np.ascontiguousarray(np.stack(small).transpose(0, 3, 1, 2))
    try:
        found = session.run(None, {session.get_inputs()[0].name: given})[0]
    except Exception as error:
        first = str(error).splitlines()[0]
        raise SettingsError(f"anchor.epithelium: the network refuses float {list(given.shape)}: {first}") from None
    if found.ndim != 4 or found.shape[1] < max(channel + 1, 2):
        raise SettingsError(
            f"anchor.epithelium_channel {channel}: the network returns {list(found.shape)}, and maps [N, C, S, S] with "
            f"C ≥ {max(channel + 1, 2)} are needed; give the number of the map of epithelium"
        )
    return np.asarray(found.argmax(axis=1) == channel)


def _share(epithelium: NDArray[np.bool_], tissue: NDArray[np.bool_]) -> float:
    height, width = tissue.shape
    mask = cv2.resize(epithelium.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    return float((mask & tissue).sum() / max(int(tissue.sum()), 1))


@cache
def open_network(path: Path) -> Any:
    """Open an ONNX file, once a process; one thread, as groups are measured side by side."""
    try:
        import onnxruntime
    except ImportError:
        raise SettingsError('anchor.epithelium needs ONNX Runtime; pip install "oncoshift[platform]"') from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        first = str(error).splitlines()[0]
        raise SettingsError(
            f"anchor.epithelium {path}: no network that ONNX Runtime can open; give the path of an ONNX file: {first}"
        ) from None
