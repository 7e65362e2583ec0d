"""The served model without its MLflow wrapper: images in, one result per tile out.

Needs torch, torchvision, safetensors, NumPy, Pillow, simplejpeg and OpenCV; with a stain reference
also numba.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from safetensors.torch import load_file

from oncoshift.serving.classifier import build_classifier, normalise
from oncoshift.serving.config import LABELS, ServedConfig
from oncoshift.serving.images import UnreadableImageError, read_tile, resize
from oncoshift.serving.stain import normalizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from oncoshift.serving.classifier import Classifier


@dataclass(frozen=True)
class TileResult:
    """The prediction for one image, or the reason why there is none.

    Attributes:
        label: benign or malignant; None if the model abstains or the image could not be used.
        probability: of malignancy, calibrated, 0–1; None if the image could not be used.
        shift: percentile, 0–100, of the tile's distance from the training organs among the
            distances of their own tiles; None if the image could not be used or the model has no
            such reference.
        abstain: why the model abstains from a label; None if it does not.
        error: why the image could not be used; None if it could.
    """

    label: str | None = None
    probability: float | None = None
    shift: float | None = None
    abstain: str | None = None
    error: str | None = None


class TilePredictor:
    """Preprocessing and classifier, ready to predict; safe to call from several threads."""

    def __init__(self, config: ServedConfig, classifier: Classifier, device: str | None = None) -> None:
        self.config = config
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._classifier = classifier.eval().to(self._device)
        self._normalize = None if config.reference is None else normalizer(config.reference)

    @classmethod
    def load(cls, config: Path, weights: Path, device: str | None = None) -> Self:
        """Load config.json and weights.safetensors; every weight must be there, and no other.

        Raises:
            ValueError: the weights do not have the digest that config.json gives.
        """
        settings = ServedConfig.from_json(config.read_text(encoding="utf-8"))
        if settings.weights_sha256 is not None:
            with weights.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != settings.weights_sha256:
                raise ValueError(f"{weights}: damaged: expected SHA-256 {settings.weights_sha256}, found {found}")
        classifier = build_classifier(settings.backbone, settings.bottleneck, settings.dropout, settings.members)
        classifier.load_state_dict(load_file(weights))
        return cls(settings, classifier, device)

    def predict(
        self, images: Sequence[object], batch_size: int = 64, threshold: float | None = None
    ) -> list[TileResult]:
        """Predict one result per image, in order; an unusable image does not affect the others.

        Args:
            images: each the bytes of an image file, these bytes in base64, or RGB pixels [H, W, 3]
                of 0–255 (a uint8 array or nested lists).
            batch_size: number of tiles decoded and classified at once.
            threshold: the probability from which a tile is malignant; default: the model's.

        Raises:
            ValueError: batch_size is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size}: must be at least 1")
        starts = range(0, len(images), batch_size)
        least = self.config.threshold if threshold is None else threshold
        return [result for start in starts for result in self._predict_batch(images[start : start + batch_size], least)]

    def prepare(self, image: object) -> NDArray[np.uint8]:
        """Return one image as the classifier sees it, uint8 [tile_size, tile_size, 3].

        Raises:
            UnreadableImageError: it is no image.
        """
        tile = _tile(image, self.config.tile_size)
        return tile if self._normalize is None else self._normalize(tile).image

    def _predict_batch(self, images: Sequence[object], threshold: float) -> list[TileResult]:
        outcomes: list[TileResult | None] = []
        tiles: list[NDArray[np.uint8]] = []
        for image in images:
            try:
                tiles.append(self.prepare(image))
                outcomes.append(None)
            except UnreadableImageError as error:
                outcomes.append(TileResult(error=str(error)))
        predicted = iter(self._classify(np.stack(tiles), threshold) if tiles else ())
        return [next(predicted) if outcome is None else outcome for outcome in outcomes]

    def _classify(self, tiles: NDArray[np.uint8], threshold: float) -> Iterator[TileResult]:
        """Classify tiles, uint8 [N, S, S, 3]; yield N results."""
        with torch.inference_mode():
            logits = self._classifier(normalise(torch.from_numpy(tiles).to(self._device)))
            malignant = (logits.double() / self.config.temperature).softmax(dim=1)[:, 1].tolist()
        for probability in malignant:
            if probability != probability:  # NaN from broken weights must not become a label
                yield TileResult(error="the model gave no finite probability")
            else:
                yield TileResult(LABELS[probability >= threshold], probability)


def _tile(image: object, side: int) -> NDArray[np.uint8]:
    if isinstance(image, np.ndarray):
        return resize(image, side)  # refuses anything but uint8 [H, W, 3]
    if isinstance(image, str):
        image = _decode_base64(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return read_tile(bytes(image), side)
    if isinstance(image, list):
        return resize(_parse_pixels(image), side)
    raise UnreadableImageError(f"expected image bytes, base64 or uint8 [H, W, 3], got {type(image).__name__}")


def _decode_base64(text: str) -> bytes:
    try:
        # Base64 may be wrapped into lines, as by the `base64` command and in MLflow's own examples.
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnreadableImageError(f"text of {len(text)} characters is not base64: {error}") from error


def _parse_pixels(image: list[object]) -> NDArray[np.uint8]:
    try:
        values = np.asarray(image)
    except ValueError as error:
        raise UnreadableImageError(f"nested lists are not an [H, W, 3] array: {error}") from error
    if values.dtype.kind not in "iu" or values.size == 0 or values.min() < 0 or values.max() > 255:
        raise UnreadableImageError("nested lists must hold whole numbers from 0 to 255")
    return values.astype(np.uint8)
