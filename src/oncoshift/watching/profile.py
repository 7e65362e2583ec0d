"""The profile of tiles: what a model and simple measurements say of each, without labels.

A model's reference is the profile of the target's training tiles, which travels with the version
(`registry.artifacts.PROFILE`). A batch gets its profile from the same model and measurements.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from oncoshift.data.parquet import read_table
from oncoshift.errors import RegistryError
from oncoshift.parallel import map_in_order
from oncoshift.registry.artifacts import PROFILE
from oncoshift.serving.config import CONFIG, REFERENCE, ServedConfig
from oncoshift.serving.images import decode
from oncoshift.serving.limits import UnreadableImageError
from oncoshift.serving.shift import LIMIT, ShiftReference
from oncoshift.serving.tissue import Measurements, measure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from oncoshift.parallel import Progress
    from oncoshift.scoring.inputs import Tile
    from oncoshift.serving.predictor import TilePredictor

MEASURES = tuple(field.name for field in fields(Measurements))
COLUMNS = ("tile", "group", "probability", "abstain", "error", *MEASURES)

ARTIFACTS = "artifacts"
"""Folder of a registered model with its files."""

BATCH_TILES = 64


@dataclass(frozen=True)
class Profile:
    """The profile of N tiles.

    Attributes:
        tiles: a row each, with `COLUMNS`: name, number of the group, probability of malignant, the
            kind of reason to abstain and the error (empty without one), and measurements, which are
            NaN where the image cannot be decoded.
        features: float32 [N, D], of length 1; NaN where there are none.
        threshold: probability from which a tile is malignant.
    """

    tiles: pd.DataFrame
    features: NDArray[np.float32]
    threshold: float

    @property
    def groups(self) -> int:
        """Number of groups."""
        return int(self.tiles["group"].nunique())

    @property
    def usable(self) -> Profile:
        """The tiles that training would take, too: decoded, and without a fault of the tissue."""
        return self.select((self.tiles["error"] == "") & self.tiles["abstain"].isin(("", "far")))

    def select(self, chosen: pd.Series[bool]) -> Profile:
        """Select some tiles."""
        return Profile(self.tiles[chosen], self.features[chosen.to_numpy()], self.threshold)

    @property
    def abstains(self) -> NDArray[np.bool_]:
        """Whether the model gives no label to each tile, [N]."""
        return ((self.tiles["abstain"] != "") | (self.tiles["error"] != "")).to_numpy(np.bool_)

    @property
    def is_called_malignant(self) -> NDArray[np.bool_]:
        """Whether the model calls each tile malignant, [N]."""
        return self.tiles["probability"].to_numpy(np.float64) >= self.threshold


def read_reference(folder: Path) -> Profile:
    """Read the profile of the target's training tiles from a model's folder.

    Raises:
        RegistryError: the model was registered without one.
    """
    artifacts = folder / ARTIFACTS
    if not (artifacts / PROFILE).is_file():
        raise RegistryError(
            f"{folder}: was registered by an earlier version, without a profile of its training tiles; "
            "`oncoshift retrain --force` registers one that has it"
        )
    config = ServedConfig.from_json((artifacts / CONFIG).read_text(encoding="utf-8"))
    table = read_table(artifacts / PROFILE, ("organ", "group", "probability", *MEASURES), stage="register")
    reference, of_target = ShiftReference.load(artifacts / REFERENCE), table["organ"] == config.target
    groups = table["group"].to_numpy()
    features = reference.features.astype(np.float32)[of_target]
    distances = reference.measure(features, groups[of_target.to_numpy(), None] != groups[None, :])
    tiles = table[of_target].assign(tile="", abstain=np.where(distances < LIMIT, "", "far"), error="")
    return Profile(tiles[list(COLUMNS)].reset_index(drop=True), features, config.threshold)


def profile_tiles(
    predictor: TilePredictor, tiles: Sequence[Tile], groups: NDArray[np.int64], progress: Progress
) -> Profile:
    """Profile tiles with a model.

    Args:
        predictor: the model.
        tiles: with their bytes.
        groups: number of each tile's group, [N].
        progress: called with the number of tiles done and the total.
    """
    rows: list[dict[str, object]] = []
    features: list[NDArray[np.float32] | None] = []
    for start in range(0, len(tiles), BATCH_TILES):
        part = tiles[start : start + BATCH_TILES]
        images = [_read(tile) for tile in part]
        results = predictor.predict(images, um_per_pixel=[tile.um_per_pixel for tile in part])
        for tile, measured, result in zip(part, map_in_order(_measure, images), results, strict=True):
            abstain = (result.abstain or "").partition(":")[0]
            row = {"tile": tile.name, "probability": result.probability, "abstain": abstain, "error": result.error}
            rows.append(row | measured)
            features.append(result.features)
        progress(len(rows), len(tiles))
    table = pd.DataFrame(rows).assign(group=groups).reindex(columns=list(COLUMNS)).fillna({"error": ""})
    table = table.astype(dict.fromkeys(("probability", *MEASURES), np.float64))
    return Profile(table, _scale(features), predictor.config.threshold)


def _read(tile: Tile) -> bytes:
    """Read a tile; what cannot be read is empty, which the model reports as an error."""
    try:
        return tile.read()
    except UnreadableImageError:
        return b""


def _measure(image: bytes) -> dict[str, object]:
    try:
        return asdict(measure(decode(image)))
    except UnreadableImageError:
        return {}


def _scale(features: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32]:
    """Scale features to length 1, and stack them; NaN where there are none."""
    width = next((len(each) for each in features if each is not None), 1)
    nothing = np.full(width, np.nan, np.float32)
    stacked = np.stack([nothing if each is None else each for each in features])
    return np.asarray(stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-12), np.float32)
