"""Measurements of one decoded tile, and its fault by limits such as those in section `ingest`.

`oncoshift ingest` and the served model use the same ones.

All measurements are taken on a copy whose longer side is at most `MEASURED_SIDE` pixels, about what
a network sees, so that sharpness does not depend on a tile's size in pixels. One 224×224 tile takes
about 1.5 ms.

The default limits come from 4,006 real H&E tiles of lung, colon, breast and kidney and the 1,280 of
the phantom; the docstring of each measurement gives their values and those of other images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEASURED_SIDE = 256
"""Longer side of the measured copy in pixels; smaller tiles are measured unchanged."""

TISSUE_LUMINOSITY = 0.8
"""Share of full luminosity (L of CIELAB) below which a pixel is tissue; the threshold of
staintools."""

STAIN_HUE = 45.0
"""Least hue of H&E in optical density; the greatest is 180°. Haematoxylin has 67°, eosin 121°."""

EOSIN_HUE = 65.0
"""Least hue of a pixel with eosin beside haematoxylin; a blue with equal red and green has 60°."""

MIN_CONTRAST = 2.0
"""Standard deviation of luminosity, in grey levels of 255, below which a tile is featureless."""

_MIN_PIXELS = 16
# Values below 16 of 255 count as 16: a clipped channel has no colour information, and its logarithm
# would dominate.
_DENSITY = -np.log(np.maximum(np.arange(256), 16) / 255).astype(np.float32)

TissueKind = Literal["small", "blank", "not_he", "blurred"]


@dataclass(frozen=True, slots=True)
class TissueFault:
    """A reason why an image is no usable tile of H&E.

    Attributes:
        kind: one word, for counting.
        reason: one line with the value and the limit.
    """

    kind: TissueKind
    reason: str


@dataclass(frozen=True, slots=True)
class TissueLimits:
    """Limits of a usable tile, by the names of section `ingest`, which has the defaults.

    Attributes:
        min_size: pixels of the shorter side.
        min_tissue: share of tissue pixels.
        min_sharpness: see `sharpness`.
        min_saturation: see `Measurements.saturation`.
        min_stain_share: see `Measurements.stain_share`.
        min_eosin_share: see `Measurements.eosin_share`.
    """

    min_size: int
    min_tissue: float
    min_sharpness: float
    min_saturation: float
    min_stain_share: float
    min_eosin_share: float


@dataclass(frozen=True, slots=True)
class Measurements:
    """Measurements of one tile, rounded so that a library's last bit does not change the tables.

    Attributes:
        width: of the tile as decoded, pixels.
        height: of the same.
        tissue: share of pixels darker than `TISSUE_LUMINOSITY`, 0 to 1.
        contrast: standard deviation of luminosity, grey levels of 255.
        sharpness: see `sharpness`.
        saturation: length of the mean colour in hue–saturation–density space (van der Laak 2000); 0
            is grey. Real tiles have at least 0.050.
        stain_share: share of tissue, weighted by chroma, with a hue between `STAIN_HUE` and 180°.
            Real tiles have at least 0.71, and at least 0.67 after staintools normalised them to a
            tile of colon, kidney or lung. A photograph of a cat has 0.00, brown DAB with
            haematoxylin 0.02, a portrait 0.22, a colour wheel 0.42. Reinhard's method with a
            greenish BreakHis tile as reference gives images below the limit, which do not look like
            H&E either.
        eosin_share: the same with a hue from `EOSIN_HUE`. Real tiles have at least 0.27, those of
            the phantom 0.13, blue images 0.00.
        hue: of the mean colour, degrees from −180 to 180.
        density_red: mean optical density of tissue, natural logarithm, of the red channel.
        density_green: of the green channel.
        density_blue: of the blue channel.
    """

    width: int
    height: int
    tissue: float
    contrast: float
    sharpness: float
    saturation: float
    stain_share: float
    eosin_share: float
    hue: float
    density_red: float
    density_green: float
    density_blue: float


def measure(image: NDArray[np.uint8]) -> Measurements:
    """Measure a tile.

    Args:
        image: RGB uint8 [H, W, 3], as decoded.
    """
    import cv2

    height, width, _ = image.shape
    small = _shrink(image)
    luminosity = np.ascontiguousarray(cv2.cvtColor(small, cv2.COLOR_RGB2LAB)[..., 0])
    stained = _select_stained_pixels(luminosity)
    red, green, blue = (_mean_density(small, channel, stained) for channel in range(3))
    saturation, hue = _chroma(red, green, blue)
    stain_share, eosin_share = _hue_shares(small, stained)
    return Measurements(
        width=width,
        height=height,
        tissue=round(cv2.countNonZero(_select_below(luminosity, TISSUE_LUMINOSITY * 255)) / luminosity.size, 4),
        contrast=round(_variance(luminosity) ** 0.5, 2),
        sharpness=round(sharpness(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)), 5),
        saturation=round(saturation, 4),
        stain_share=round(stain_share, 4),
        eosin_share=round(eosin_share, 4),
        hue=round(hue, 1),
        density_red=round(red, 4),
        density_green=round(green, 4),
        density_blue=round(blue, 4),
    )


def find_tissue_fault(measured: Measurements, limits: TissueLimits) -> TissueFault | None:
    """Find the first fault of a tile; None for a sound one."""
    width, height = measured.width, measured.height
    if min(width, height) < limits.min_size:
        return TissueFault(
            "small",
            f"{width}×{height} pixels; the shorter side must have at least {limits.min_size} (ingest.min_size)",
        )
    if measured.tissue < limits.min_tissue:
        return TissueFault(
            "blank", f"{measured.tissue:.1%} tissue; at least {limits.min_tissue:.1%} is needed (ingest.min_tissue)"
        )
    if measured.contrast < MIN_CONTRAST:
        return TissueFault(
            "blank", f"one even surface: luminosity varies by {measured.contrast:.1f} of 255 grey levels"
        )
    return _find_stain_fault(measured, limits) or _find_blur_fault(measured, limits)


def sharpness(gray: NDArray[np.uint8]) -> float:
    """Compute the variance of the Laplacian of Gaussian (σ = 1 pixel) over that of the grey levels.

    The variance of the Laplacian is the focus measure of Pech-Pacheco (2000; LAPV in Pertuz 2013).
    The Gaussian suppresses JPEG noise (Marr and Hildreth 1980), and dividing by the variance
    removes the effect of stain strength.

    On 4,006 real tiles at 224×224, medians by organ are 0.026 to 0.098 and the least value is
    0.0027. The default limit of 0.0025 flags none of them, 34 % after a blur of σ = 3 pixels, and
    91 % after σ = 4.

    Args:
        gray: uint8 [H, W].

    Returns:
        0 for a featureless tile, about 0.1 for crisp tissue.
    """
    import cv2

    values = gray.astype(np.float32)
    variance = _variance(values)
    if variance == 0:
        return 0.0
    return _variance(cv2.Laplacian(cv2.GaussianBlur(values, (0, 0), 1.0), cv2.CV_32F)) / variance


def _find_stain_fault(measured: Measurements, limits: TissueLimits) -> TissueFault | None:
    if measured.saturation < limits.min_saturation:
        return TissueFault(
            "not_he",
            f"grey: saturation {measured.saturation:.3f} in optical density; H&E has at least "
            f"{limits.min_saturation:.3f} (ingest.min_saturation)",
        )
    if measured.stain_share < limits.min_stain_share:
        return TissueFault(
            "not_he",
            f"colours of something else: {measured.stain_share:.0%} has a hue of H&E, and at least "
            f"{limits.min_stain_share:.0%} must (ingest.min_stain_share)",
        )
    if measured.eosin_share < limits.min_eosin_share:
        return TissueFault(
            "not_he",
            f"blue alone: {measured.eosin_share:.0%} is on eosin's side of haematoxylin, and at least "
            f"{limits.min_eosin_share:.0%} must be (ingest.min_eosin_share)",
        )
    return None


def _find_blur_fault(measured: Measurements, limits: TissueLimits) -> TissueFault | None:
    if measured.sharpness >= limits.min_sharpness:
        return None
    return TissueFault(
        "blurred",
        f"sharpness {measured.sharpness:.4f}; at least {limits.min_sharpness:.4f} is needed (ingest.min_sharpness)",
    )


def _shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    height, width, _ = image.shape
    scale = MEASURED_SIDE / max(height, width)
    if scale >= 1:
        return image
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _select_stained_pixels(luminosity: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Select the pixels [H, W] that are darker than the tile's own white; all if there are none.

    So dim or tinted glass does not count as stained.
    """
    import cv2

    counts = np.cumsum(cv2.calcHist([luminosity], [0], None, [256], [0, 256]))
    white = int(np.searchsorted(counts, 0.95 * counts[-1]))
    stained = _select_below(luminosity, TISSUE_LUMINOSITY * white)
    return stained if cv2.countNonZero(stained) >= _MIN_PIXELS else np.full_like(luminosity, 255)


def _select_below(values: NDArray[np.uint8], limit: float) -> NDArray[np.uint8]:
    """Select the pixels with a value below a limit: a mask, 255 or 0, as OpenCV takes it."""
    return (values < limit).view(np.uint8) * np.uint8(255)


def _variance(values: NDArray[Any]) -> float:
    import cv2

    return float(cv2.meanStdDev(values)[1].item()) ** 2


def _mean_density(image: NDArray[np.uint8], channel: int, stained: NDArray[np.uint8]) -> float:
    """Compute the mean optical density of a channel over the stained pixels."""
    import cv2

    counts = cv2.calcHist([image], [channel], stained, [256], [0, 256]).ravel().astype(np.float64)
    return float(counts @ _DENSITY / counts.sum())


def _chroma(red: float, green: float, blue: float) -> tuple[float, float]:
    """Compute saturation and hue (°) of an optical density (van der Laak 2000, eqs. 4 and 5)."""
    density = (red + green + blue) / 3
    if density <= 0:
        return 0.0, 0.0
    x, y = red / density - 1, (green - blue) / (np.sqrt(3) * density)
    return float(np.hypot(x, y)), float(np.degrees(np.arctan2(y, x)))


def _hue_shares(image: NDArray[np.uint8], stained: NDArray[np.uint8]) -> tuple[float, float]:
    """Compute the chroma-weighted shares of stained pixels with a hue of H&E and of eosin."""
    import cv2

    # In place, since clearing the pages of new arrays would take longer than the arithmetic. NumPy
    # multiplies and compares with numbers: OpenCV takes an image of four pixels for a number.
    red, green, blue = (cv2.LUT(plane, _DENSITY) for plane in cv2.split(image))
    # Three times x and y of eqs. 4 and 5, exactly 0 where green and blue are equal.
    y = cv2.subtract(green, blue)
    y *= np.float32(3**0.5)
    x = cv2.addWeighted(red, 2, cv2.add(green, blue, dst=green), -1, 0, dst=red)
    chroma = cv2.magnitude(x, y, magnitude=blue)
    total = _sum_where(chroma, stained)
    if total == 0:
        return 0.0, 0.0
    above = cv2.bitwise_and((y > 0).view(np.uint8), stained)
    stain, eosin = (
        _sum_where(chroma, cv2.bitwise_and(above, (y >= x * slope).view(np.uint8)))
        for slope in (np.float32(np.tan(np.radians(hue))) for hue in (STAIN_HUE, EOSIN_HUE))
    )
    return stain / total, eosin / total


def _sum_where(values: NDArray[Any], mask: NDArray[Any]) -> float:
    import cv2

    return float(cv2.sumElems(cv2.copyTo(values, mask))[0])
