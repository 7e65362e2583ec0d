"""From image bytes to the uint8 tile that a classifier sees; the stage `normalize` uses the same functions.

Needs NumPy and Pillow; OpenCV only where a Reinhard reference is given.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_TISSUE = 0.05
"""Share of tissue pixels below which a tile is blank: stretching so little tissue over the reference paints glass."""

TISSUE_LUMINOSITY = 0.8
"""A pixel darker than this share of full luminosity is tissue, staintools' own threshold."""

MIN_CONTRAST = 0.5
"""Standard deviation of L, a or b below which a tile is flat: rounding to 8-bit LAB alone gives a grey tile 0.3."""

Triple = tuple[float, float, float]
"""One value for each of L, a and b."""

StainOutcome = Literal["normalised", "blank", "flat"]
"""What became of a tile: normalised; or kept as it is, for want of tissue (blank) or of any contrast (flat)."""


class UnreadableImageError(ValueError):
    """Bytes are no image that can be decoded, or an array is no uint8 RGB image."""


@dataclass(frozen=True)
class ReinhardReference:
    """Colour statistics of the reference tile (Reinhard 2001), in OpenCV's LAB as staintools scales it.

    Attributes:
        means: mean of L (0–100), a and b (about −128–127).
        stds: standard deviation of the same.
        standardize_luminosity: whether the 95th percentile of L is first stretched to white, as staintools does.
    """

    means: Triple
    stds: Triple
    standardize_luminosity: bool = True


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode an image file's bytes to RGB, uint8 [H, W, 3].

    Raises:
        UnreadableImageError: the bytes are truncated or no image, or have more than 8 bits a channel.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith(("I", "F")):
                raise UnreadableImageError(f"mode {image.mode} has more than 8 bits a channel; convert it to 8-bit RGB")
            return np.asarray(image.convert("RGB"))
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        # Pillow's own message holds a memory address, so two runs would report differently.
        raise UnreadableImageError(f"{len(data)} bytes are no image in a known format") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"cannot decode image of {len(data)} bytes: {error}") from error


def resize(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize an RGB uint8 [H, W, 3] image to [side, side, 3], bilinear with antialiasing."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UnreadableImageError(f"expected uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    if image.shape[:2] == (side, side):
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


def apply_reinhard(image: NDArray[np.uint8], reference: ReinhardReference) -> NDArray[np.uint8]:
    """Give a tile the reference's colour statistics (Reinhard 2001), as the training packs were made.

    The arithmetic and its number types follow staintools (LuminosityStandardizer, then ReinhardColorNormalizer), so
    the result equals staintools' to the bit without that package. A blank or flat tile comes back as it was.

    Args:
        image: RGB uint8 [S, S, 3], already resized; never changed.
        reference: the statistics to reach.

    Returns:
        A new uint8 [S, S, 3].
    """
    if stain_outcome(image, standardize=reference.standardize_luminosity) != "normalised":
        return image.copy()
    stretched = standardize_luminosity(image) if reference.standardize_luminosity else image
    channels = _lab(stretched)
    means, stds = lab_statistics(stretched)
    mapped = [
        (channels[..., i].astype(np.float64) - means[i]) * (reference.stds[i] / stds[i]) + reference.means[i]
        for i in range(3)
    ]
    return _rgb(mapped[0] * 2.55, mapped[1] + 128.0, mapped[2] + 128.0)


def stain_outcome(image: NDArray[np.uint8], *, standardize: bool = True) -> StainOutcome:
    """Whether a tile [H, W, 3] can be normalised, without doing it."""
    import cv2

    luminosity = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[..., 0]
    if standardize:
        if np.percentile(luminosity, 95) == 0:
            return "flat"
        image = standardize_luminosity(image)
        luminosity = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[..., 0]
    if np.mean(luminosity < TISSUE_LUMINOSITY * 255) < MIN_TISSUE:
        return "blank"
    return "normalised" if min(lab_statistics(image)[1]) >= MIN_CONTRAST else "flat"


def standardize_luminosity(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Stretch L of a tile [H, W, 3] so that its 95th percentile is white; a new array. Black tiles are not allowed."""
    import cv2

    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    luminosity = lab[..., 0].astype(np.float64)
    lab[..., 0] = np.clip(255 * luminosity / np.percentile(luminosity, 95), 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), dtype=np.uint8)


def lab_statistics(image: NDArray[np.uint8]) -> tuple[Triple, Triple]:
    """Means and standard deviations of L (0–100), a and b (−128–127) over a tile [H, W, 3]."""
    import cv2

    channels = _lab(image)
    (m0, s0), (m1, s1), (m2, s2) = (cv2.meanStdDev(np.ascontiguousarray(channels[..., i])) for i in range(3))
    return (m0.item(), m1.item(), m2.item()), (s0.item(), s1.item(), s2.item())


def _lab(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    import cv2

    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    lab[..., 0] /= 2.55
    lab[..., 1:] -= 128.0
    return np.asarray(lab)


def _rgb(*channels: NDArray[np.float64]) -> NDArray[np.uint8]:
    import cv2

    lab = np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), dtype=np.uint8)
