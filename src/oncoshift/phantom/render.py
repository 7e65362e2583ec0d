"""Rendering of tissue: concentration maps of the two dyes, then transmitted light by Beer–Lambert.

The Beer–Lambert law for one channel is I = I₀ · 10^−(c_H · v_H + c_E · v_E), with concentrations c
and optical densities v (Ruifrok and Johnston 2001, "Quantification of histochemical staining by
color deconvolution").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from oncoshift.phantom.styles import find_organ
from oncoshift.phantom.tissue import FIELD, HOLE_RADIUS, Ellipses, Tissue, grow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.phantom.styles import GroupStyle, Organ, SlideStain

_OPTICS = 0.7
"""Width in µm over which the microscope blurs an edge."""


@dataclass(frozen=True)
class PhantomTile:
    """A rendered tile.

    Attributes:
        image: uint8 [S, S, 3], RGB.
        nuclei: bool [S, S], the pixels of which a nucleus covers at least half.
    """

    image: NDArray[np.uint8]
    nuclei: NDArray[np.bool_]


def render_tile(
    organ: str, malignant: bool, group_style: GroupStyle, rng: np.random.Generator, size: int
) -> PhantomTile:
    """Render one tile.

    Args:
        organ: a name in `organs.ORGANS`.
        malignant: whether the tissue is malignant.
        group_style: what the tile shares with its group.
        rng: consumed; the same state gives the same bytes, and the same tissue at another size.
        size: side in pixels; the field of view is `tissue.FIELD` at every size.

    Raises:
        SettingsError: the phantom has no such organ.
    """
    parameters = find_organ(organ)
    tissue = grow(parameters, malignant, group_style, rng)
    cover, darkness = _draw(tissue.nuclei, size)
    haematoxylin, eosin = _compute_concentrations(parameters, tissue, cover, darkness, size, rng)
    light = _transmit(parameters.stain, group_style, haematoxylin, eosin)
    light = _defocus(light, group_style.focus) + rng.normal(0, 1.5, (size, size, 1)).astype(np.float32)
    return PhantomTile(np.clip(np.rint(light), 0, 255).astype(np.uint8), cover >= 0.5)


def _compute_pixel_centres(size: int) -> NDArray[np.float64]:
    return (np.arange(size) + 0.5) * FIELD / size


def _compute_edge(size: int) -> float:
    return max(_OPTICS, FIELD / size)


def _draw(ellipses: Ellipses, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw ellipses over one another: their coverage 0–1 and darkness, both float32 [S, S]."""
    scale = size / FIELD
    reach = int(np.ceil(ellipses.axes.max(initial=0) * 1.3 * scale)) + 1
    side = 2 * reach + 1
    corner = np.floor(ellipses.centres * scale).astype(int) - reach
    # Canvases have a margin, so that an ellipse on the border needs no clipping.
    canvas = np.zeros((2, size + 2 * side, size + 2 * side), np.float32)
    offset = ((corner[:, :, None] + np.arange(side) + 0.5) / scale - ellipses.centres[:, :, None]).astype(np.float32)
    across, down = offset[:, 0, None, :], offset[:, 1, :, None]
    cos, sin = (f(ellipses.angles).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
    long, short = (ellipses.axes[:, axis].astype(np.float32)[:, None, None] for axis in (0, 1))
    u, v = (across * cos + down * sin) / long, (down * cos - across * sin) / short
    depth = np.sqrt(u**2 + v**2) / (1 + ellipses.waves.astype(np.float32)[:, None, None] * np.cos(3 * np.arctan2(v, u)))
    cover = np.clip((1 - depth) * np.sqrt(long * short) / np.float32(_compute_edge(size)) + 0.5, 0, 1)
    rim = 0.75 + 0.35 * np.minimum(depth, 1) ** 4  # chromatin gathers at the membrane
    dark = cover * rim * ellipses.darkness.astype(np.float32)[:, None, None]
    for (column, row), patch, shade in zip(np.clip(corner + side, 0, size + side), cover, dark, strict=True):
        window = (slice(row, row + side), slice(column, column + side))
        np.maximum(canvas[0][window], patch, out=canvas[0][window])
        canvas[1][window] = canvas[1][window] * (1 - patch) + shade
    return canvas[0, side:-side, side:-side], canvas[1, side:-side, side:-side]


def _compute_concentrations(
    organ: Organ,
    tissue: Tissue,
    nuclei: NDArray[np.float32],
    darkness: NDArray[np.float32],
    size: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute haematoxylin and eosin concentration, both float32 [S, S].

    The organ's dye strengths are not applied yet.
    """
    centres = _compute_pixel_centres(size)
    x, y = centres[None, :], centres[:, None]
    edge = _compute_edge(size)
    depth = tissue.glands.depth(x, y)
    radius = float(np.mean(tissue.glands.radii))
    inside = _within(depth, 1.0, radius / edge)
    lumen = _within(depth, tissue.lumen, radius / edge)
    lumen = np.maximum(lumen, _within(tissue.holes.depth(x, y), 1.0, HOLE_RADIUS / edge))
    vacuoles, _ = _draw(tissue.vacuoles, size)
    epithelium = inside * (1 - lumen)
    stroma = 1 - inside

    grain, cloud = _draw_noise(size, 1.6, rng), _draw_noise(size, 9.0, rng)
    fibre = _draw_fibres(organ.fibre_width, cloud, x, y, rng)
    basement = np.exp(-(((depth - 1) * radius / (0.8 * edge)) ** 2))
    eosin = epithelium * organ.cytoplasm * (1 + 0.12 * grain + 0.1 * cloud) * (1 - 0.8 * vacuoles)
    eosin += stroma * organ.stroma * (1 - organ.fibres * (1 - fibre)) + 0.12 * basement
    haematoxylin = epithelium * organ.basophilia * (1 + 0.3 * cloud) * (1 - 0.5 * vacuoles) + 0.03 * stroma
    eosin *= 1 - 0.55 * nuclei
    haematoxylin = np.maximum(haematoxylin, darkness * (1 + 0.13 * grain))
    return haematoxylin.astype(np.float32), eosin.astype(np.float32)


def _within(depth: NDArray[np.float64], limit: float, sharpness: float) -> NDArray[np.float32]:
    """Compute a mask: 1 inside, 0 outside, and a ramp one edge wide between them."""
    return np.asarray(np.clip((limit - depth) * sharpness + 0.5, 0, 1), np.float32)


def _draw_fibres(
    width: float,
    cloud: NDArray[np.float32],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Draw wavy bundles, 0–1, float32 [S, S]."""
    turn, phase = rng.uniform(0, 2 * np.pi, 2)
    along = ((np.cos(turn) * x + np.sin(turn) * y) * 2 * np.pi / width + phase).astype(np.float32) + 1.8 * cloud
    # Two incommensurate waves: one alone looks like a zebra.
    return np.asarray(0.5 + 0.3 * np.sin(along) + 0.2 * np.sin(1.73 * along + 1.3 * cloud), np.float32)


@lru_cache(maxsize=16)
def _spread(size: int, length: float) -> NDArray[np.float32]:
    """Compute Gaussian weights [S, n] from n random numbers to a smooth curve of unit variance.

    The numbers are `length` µm apart.
    """
    knots = np.arange(-1.5, FIELD / length + 1.5) * length
    weights = np.exp(-0.5 * ((_compute_pixel_centres(size)[:, None] - knots) / (0.6 * length)) ** 2)
    return np.asarray(weights / np.linalg.norm(weights, axis=1, keepdims=True), np.float32)


def _draw_noise(size: int, length: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw smooth noise of unit variance with detail of `length` µm, float32 [S, S].

    It shows the same pattern at every size.
    """
    weights = _spread(size, length)
    count = weights.shape[1]
    knots = rng.standard_normal((count, count), dtype=np.float32)
    # Not `@`: a threaded BLAS may add in another order on another machine and change the bytes.
    rows = np.einsum("sk,kc->sc", weights, knots)
    return np.asarray(np.einsum("sc,tc->st", rows, weights))


def _transmit(
    stain: SlideStain, style: GroupStyle, haematoxylin: NDArray[np.float32], eosin: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Compute the transmitted light, float32 [S, S, 3], 0–255."""
    dyes = np.array([stain.haematoxylin, stain.eosin]) + np.array([style.haematoxylin, style.eosin])
    dyes = np.maximum(dyes, 0.01)
    dyes /= np.linalg.norm(dyes, axis=1, keepdims=True)
    dyes *= np.array([[stain.haematoxylin_strength], [stain.eosin_strength]]) * np.array(style.strengths)[:, None]
    haze = np.array(stain.haze, np.float32)
    density = (haematoxylin[..., None] + haze[0]) * dyes[0].astype(np.float32)
    density += (eosin[..., None] + haze[1]) * dyes[1].astype(np.float32)
    return np.asarray(np.array(stain.light, np.float32) * np.exp(-np.log(10, dtype=np.float32) * density))


def _defocus(light: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
    """Mix each pixel with the mean of its four neighbours."""
    padded = np.pad(light, ((1, 1), (1, 1), (0, 0)), mode="edge")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return np.asarray((1 - weight) * light + np.float32(weight / 4) * around)
