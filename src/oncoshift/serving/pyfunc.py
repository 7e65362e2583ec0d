"""The registered model's script (MLflow models-from-code), run when the model is loaded."""

# No `from __future__ import annotations`: MLflow reads the types of `predict`.
from pathlib import Path
from typing import Any

import mlflow.models
import numpy as np
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from oncoshift.serving.predictor import TilePredictor

IMAGE_COLUMN, SCALE_COLUMN = "image", "um_per_pixel"
OUTPUT_COLUMNS = ("label", "probability", "shift", "abstain", "error")


class ServedTileClassifier(PythonModel):
    """A classifier of tissue tiles: images in, probabilities of malignancy out.

    Input: a DataFrame with the column `image` (or `{"image": [...]}`, or a list of `{"image":
    ...}`). Each image is the bytes of an image file, these bytes in base64 (as sent by REST), or
    uint8 RGB pixels [H, W, 3]. Without MLflow's schema (`unwrap_python_model()`), also a list of
    images, or a uint8 array [N, H, W, 3] or [H, W, 3]. A model that knows its scale also takes the
    column `um_per_pixel` and resamples images of another scale; an empty cell means unknown.

    Output: a DataFrame with one row per image, the input's index and the columns

    - label: benign or malignant; null if the model abstains
    - probability: of malignancy, calibrated, 0–1
    - shift: percentile, 0–100, of the tile's distance from the training organs
    - abstain: null, or why the model gives no label
    - error: null, or why this image could not be used; all other columns are then null
    - scale: only of a model that knows its scale: `not stated`, `as stated` or `resampled from …`
    - explanation: only with the parameter explain: a grey PNG of tile_size in base64; 128 says
      nothing, brighter speaks for malignant, darker for benign (Integrated Gradients)

    probability and shift are float64, or of type object if there are nulls.

    Params:

    - threshold: probability from which a tile is malignant; default: the model's own
    - batch_size: number of tiles that go through the network at once
    - explain: whether to explain each probability; needs torch, torchvision and safetensors, and
      says so in `error` where they are missing

    Model config, given to `mlflow.pyfunc.load_model`:

    - device: one of auto, cpu and cuda; auto is cuda where ONNX Runtime has it, which takes the
      package onnxruntime-gpu
    - threads: for one call on the CPU; 0: as many as OMP_NUM_THREADS says, or one a core
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model; MLflow calls this once."""
        config = {"device": "auto", "threads": 0} | (context.model_config or {})
        folder = Path(context.artifacts["config.json"]).parent
        self._predictor = TilePredictor.open(folder, config["device"], config["threads"])

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow recognises the signature by this name
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Predict; the class describes input and output."""
        images, index = _list_images(model_input)
        given = params or {}
        results = self._predictor.predict(images, um_per_pixel=_list_scales(model_input, len(images)), **given)
        names = (*OUTPUT_COLUMNS, "explanation") if given.get("explain") else OUTPUT_COLUMNS
        if self._predictor.config.um_per_pixel is not None:
            names = (*names, "scale")
        columns = {name: [getattr(result, name) for result in results] for name in names}
        table = pd.DataFrame(columns, index=index, dtype=object)
        # A float column would turn None into NaN, which JSON lacks.
        whole = [name for name in ("probability", "shift") if table[name].notna().all()]
        return table.astype(dict.fromkeys(whole, np.float64))


def _list_images(model_input: Any) -> tuple[list[Any], "pd.Index[Any] | None"]:
    if isinstance(model_input, pd.DataFrame):
        if IMAGE_COLUMN not in model_input.columns:
            raise ValueError(f"no column {IMAGE_COLUMN!r}; there are {[str(name) for name in model_input.columns]}")
        return _unfold(model_input[IMAGE_COLUMN].tolist(), model_input.index)
    if isinstance(model_input, dict):
        return list(model_input[IMAGE_COLUMN]), None
    if isinstance(model_input, np.ndarray) and model_input.ndim == 3:
        return [model_input], None
    return list(model_input), None


def _list_scales(model_input: Any, count: int) -> list[float | None] | None:
    """List the µm per pixel of the images, None where unknown; None without such a column."""
    if not isinstance(model_input, pd.DataFrame | dict) or SCALE_COLUMN not in model_input:
        return None
    cells = list(model_input[SCALE_COLUMN])
    if len(cells) == 1 and isinstance(cells[0], list):
        cells = cells[0]  # see `_unfold`
    if len(cells) != count:
        raise ValueError(f"column {SCALE_COLUMN}: {len(cells)} values for {count} images")
    return [None if cell is None or pd.isna(cell) else float(cell) for cell in cells]


def _unfold(cells: list[Any], index: "pd.Index[Any]") -> tuple[list[Any], "pd.Index[Any] | None"]:
    """Unpack the cell into which MLflow puts the list of `{"image": [text, …]}` (mlflow 11170)."""
    if len(cells) != 1 or not isinstance(cells[0], list):
        return cells, index
    if not cells[0]:
        raise ValueError(
            f"an empty list in the only row: MLflow makes the same of one empty image and of {{{IMAGE_COLUMN!r}: []}}; "
            "for no images send a DataFrame without rows"
        )
    return (cells[0], None) if all(isinstance(item, str) for item in cells[0]) else (cells, index)


mlflow.models.set_model(ServedTileClassifier())
