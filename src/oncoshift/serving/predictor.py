"""The served model without its MLflow wrapper: images in, one result per tile out.

Needs ONNX Runtime, NumPy, Pillow, simplejpeg and OpenCV; with a stain reference also numba, and for
explanations torch.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import importlib.util
import io
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from PIL import Image

from oncoshift.serving.config import CONFIG, GRAPH, LABELS, REFERENCE, WEIGHTS, ServedConfig
from oncoshift.serving.images import UnreadableImageError, check_array, read_pixels, resize
from oncoshift.serving.scale import compute_crop, resample
from oncoshift.serving.shift import LIMIT, ShiftReference
from oncoshift.serving.stain import normalizer
from oncoshift.serving.tissue import MEASURED_SIDE, find_tissue_fault, measure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from oncoshift.serving.eager import EagerNetwork
    from oncoshift.serving.network import Network


MAX_SIDE = 2**16
"""Larger than any image; asks for a JPEG at its full size."""


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
        error: why the image could not be used, or not be explained; None if all went well.
        explanation: the attribution of the probability, if it was asked for; see `encode_map`.
        scale: whether the tile was resampled to the model's scale; None for a model without one, or
            if the image could not be used.
        features: float32 [D], the trunk's pooled features; None if the image could not be used.
    """

    label: str | None = None
    probability: float | None = None
    shift: float | None = None
    abstain: str | None = None
    error: str | None = None
    explanation: str | None = None
    scale: str | None = None
    features: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)


class PreparedTile(NamedTuple):
    """An image as the network sees it.

    Attributes:
        tile: uint8 [tile_size, tile_size, 3].
        fault: why it is no tile that the model can judge; None if it is one.
        scale: see `TileResult`.
    """

    tile: NDArray[np.uint8]
    fault: str | None
    scale: str | None = None


class TilePredictor:
    """Preprocessing and network, ready to predict; safe to call from several threads."""

    def __init__(
        self,
        config: ServedConfig,
        network: Network,
        reference: ShiftReference | None = None,
        weights: Path | None = None,
    ) -> None:
        """Put the parts of a model together.

        Args:
            config: of the model.
            network: of the model.
            reference: the training tiles that a tile's shift is measured from; None: it is not.
            weights: weights.safetensors, for explanations; None: there are none.
        """
        self.config = config
        self._network = network
        self._reference = reference
        self._weights = weights
        self._normalize = None if config.reference is None else normalizer(config.reference)

    @classmethod
    def open(cls, folder: Path, device: str = "auto", threads: int = 0) -> Self:
        """Open a folder of config.json, model.onnx and what else belongs to a model.

        Args:
            folder: `artifacts` of a registered model.
            device: auto, cpu or cuda; see `OnnxNetwork`.
            threads: see `OnnxNetwork`.

        Raises:
            ValueError: a file is not the one that config.json names, or there is no such device.
        """
        from oncoshift.serving.network import OnnxNetwork

        config = ServedConfig.from_json((folder / CONFIG).read_text(encoding="utf-8"))
        for name in (GRAPH, REFERENCE):
            _check_file(folder / name, config)
        reference = ShiftReference.load(folder / REFERENCE) if REFERENCE in config.files else None
        return cls(config, OnnxNetwork(folder / GRAPH, device, threads), reference, folder / WEIGHTS)

    @classmethod
    def load(cls, config: Path, weights: Path, device: str | None = None) -> Self:
        """Load a model from before there was model.onnx, whose own script calls this. Needs torch.

        Raises:
            ImportError: torch is not installed.
            ValueError: the weights do not have the digest that config.json gives.
        """
        from oncoshift.serving.eager import EagerNetwork

        settings = ServedConfig.from_json(config.read_text(encoding="utf-8"))
        _check_file(weights, settings)
        return cls(settings, EagerNetwork.load(settings, weights, device), weights=weights)

    def predict(
        self,
        images: Sequence[object],
        batch_size: int = 64,
        threshold: float | None = None,
        explain: bool = False,
        um_per_pixel: Sequence[float | None] | None = None,
    ) -> list[TileResult]:
        """Predict one result per image, in order; an unusable image does not affect the others.

        Args:
            images: each the bytes of an image file, these bytes in base64, or RGB pixels [H, W, 3]
                of 0–255 (a uint8 array or nested lists).
            batch_size: number of tiles decoded and classified at once.
            threshold: the probability from which a tile is malignant; default: the model's.
            explain: whether to explain each probability, which takes as long as 200 predictions.
            um_per_pixel: scale of each image, None where it is unknown. A model that has a scale
                resamples the images of another; one without a scale ignores it.

        Raises:
            ValueError: batch_size is below 1, threshold is no probability, or there are not as many
                scales as images.
        """
        if um_per_pixel is not None and len(um_per_pixel) != len(images):
            raise ValueError(f"{len(um_per_pixel)} scales of {len(images)} images")
        scaled = list(zip(images, um_per_pixel or [None] * len(images), strict=True))
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size}: must be at least 1")
        least = self.config.threshold if threshold is None else threshold
        if not 0 <= least <= 1:
            raise ValueError(f"threshold {least}: must be a probability, from 0 to 1")
        starts = range(0, len(images), batch_size)
        return [
            result
            for start in starts
            for result in self._predict_batch(scaled[start : start + batch_size], least, explain)
        ]

    def prepare(self, image: object, um_per_pixel: float | None = None) -> PreparedTile:
        """Decode, check, resize or resample, and normalise one image.

        Args:
            image: see `predict`.
            um_per_pixel: its scale, if known.

        Raises:
            UnreadableImageError: it is no image, or cannot be resampled to the model's scale.
        """
        fault = None
        pixels = _read(image, self.config.tile_size)
        if self.config.limits is not None:
            seen = pixels
            if isinstance(image, str | bytes | bytearray | memoryview) and max(pixels.shape) < MEASURED_SIDE:
                seen = _read(image, MEASURED_SIDE)  # a JPEG may have been decoded to less than is measured
            found = find_tissue_fault(measure(seen), self.config.limits)
            fault = None if found is None else f"{found.kind}: {found.reason}"
        tile, scale = self._scale(image, pixels, um_per_pixel)
        return PreparedTile(tile if self._normalize is None else self._normalize(tile).image, fault, scale)

    def _scale(
        self, image: object, pixels: NDArray[np.uint8], um_per_pixel: float | None
    ) -> tuple[NDArray[np.uint8], str | None]:
        """Bring an image to the tile's size and the model's scale, and say how."""
        side, wanted = self.config.tile_size, self.config.um_per_pixel
        if wanted is None:
            return resize(pixels, side), None
        if um_per_pixel is None:
            return resize(pixels, side), "not stated"
        whole = _read(image, MAX_SIDE)  # a JPEG may have been decoded to less
        crop = compute_crop(whole.shape[1], whole.shape[0], um_per_pixel, side, wanted)
        if crop is None:
            return resize(pixels, side), "as stated"
        return resample(whole, crop, side), f"resampled from {um_per_pixel:g} µm per pixel"

    def _predict_batch(
        self, images: Sequence[tuple[object, float | None]], threshold: float, explain: bool
    ) -> list[TileResult]:
        results: list[TileResult | None] = []
        prepared: list[PreparedTile] = []
        for image, um_per_pixel in images:
            try:
                prepared.append(self.prepare(image, um_per_pixel))
                results.append(None)
            except UnreadableImageError as error:
                results.append(TileResult(error=str(error)))
        if not prepared:
            return [result for result in results if result is not None]
        judged = list(self._judge(prepared, threshold))
        if explain:
            judged = [self._explain(result, each.tile) for result, each in zip(judged, prepared, strict=True)]
        waiting = iter(judged)
        return [next(waiting) if result is None else result for result in results]

    def _judge(self, prepared: Sequence[PreparedTile], threshold: float) -> Iterator[TileResult]:
        """Yield a result for each tile."""
        logits, features = self._network(np.stack([each.tile for each in prepared]))
        margins = (logits[:, 1] - logits[:, 0]).astype(np.float64) / self.config.temperature
        with np.errstate(invalid="ignore"):  # NaN is reported below
            probabilities = np.exp(-np.logaddexp(0.0, -margins))  # the logistic function, exact near 0
        distances = None if self._reference is None else self._reference.measure(features)
        for row, (probability, each) in enumerate(zip(probabilities.tolist(), prepared, strict=True)):
            if not np.isfinite(probability):  # NaN from broken weights must not become a label
                yield TileResult(error="the model gave no finite probability")
                continue
            shift, abstain = None, each.fault
            if self._reference is not None and distances is not None:
                shift = self._reference.rank(distances[row])
                abstain = abstain or self._find_distance_fault(float(distances[row]))
            label = LABELS[probability >= threshold] if abstain is None else None
            yield TileResult(label, probability, shift, abstain, scale=each.scale, features=features[row])

    def _find_distance_fault(self, distance: float) -> str | None:
        if distance < LIMIT:
            return None
        organs = ", ".join(dict.fromkeys((*self.config.sources, self.config.target)))
        return (
            f"far: {distance:.2f} times as far from the training tiles of {organs} as 99 % of these are from one "
            f"another; below {LIMIT} is needed"
        )

    def _explain(self, result: TileResult, tile: NDArray[np.uint8]) -> TileResult:
        if result.probability is None:
            return result
        try:
            return replace(result, explanation=encode_map(self._eager.explain(tile)))
        except ImportError as error:
            return replace(result, error=f"cannot be explained: {error}")

    @functools.cached_property
    def _eager(self) -> EagerNetwork:
        """The network in PyTorch.

        Raises:
            ImportError: PyTorch, or the model's weights for it, are not there.
        """
        missing = [name for name in ("torch", "torchvision", "safetensors") if importlib.util.find_spec(name) is None]
        if missing:
            raise ImportError(f"{', '.join(missing)} not installed; pip install {' '.join(missing)}")
        if self._weights is None:
            raise ImportError("the model came without weights.safetensors")
        from oncoshift.serving.eager import EagerNetwork

        _check_file(self._weights, self.config)
        return EagerNetwork.load(self.config, self._weights)


def encode_map(attribution: NDArray[np.float32]) -> str:
    """Encode an attribution [S, S] as a PNG in base64.

    Grey 128 is none, white the most for malignant and black the most for benign; the scale is
    the largest absolute value.
    """
    scale = float(np.abs(attribution).max()) or 1.0
    grey = np.rint(128 + 127 * attribution / scale).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _check_file(path: Path, config: ServedConfig) -> None:
    expected = config.files.get(path.name)
    if expected is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ValueError(f"{path}: damaged: expected SHA-256 {expected}, found {found}")


def _read(image: object, side: int) -> NDArray[np.uint8]:
    """Return an image's RGB pixels; a larger JPEG may be reduced, to more than `side`."""
    if isinstance(image, str):
        image = _decode_base64(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return read_pixels(bytes(image), side)
    if isinstance(image, list):
        image = _parse_pixels(image)
    if not isinstance(image, np.ndarray):
        raise UnreadableImageError(f"expected image bytes, base64 or uint8 [H, W, 3], got {type(image).__name__}")
    check_array(image)
    return image


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
