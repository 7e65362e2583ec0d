"""The geometry of glands and nuclei in µm, with all that separates benign from malignant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.phantom.styles import GroupStyle, Organ

FIELD = 90.0
"""Side of a tile in µm at every size in pixels: a larger tile shows the same tissue in more
detail."""

HOLE_RADIUS = 3.6
"""Mean radius in µm of the lumens in a cribriform gland."""

_LOBES = np.array([2, 3, 5])
"""Orders of the outline's waves: oval, trefoil, ragged."""


@dataclass(frozen=True)
class Disks:
    """Round structures that make up a distance field.

    Attributes:
        centres: float [n, 2], x and y in µm.
        radii: float [n], µm.
        waves: float [n, 3], amplitudes of the outline's waves as shares of the radius; see
            `_LOBES`.
        phases: float [n, 3], radians.
    """

    centres: NDArray[np.float64]
    radii: NDArray[np.float64]
    waves: NDArray[np.float64]
    phases: NDArray[np.float64]

    def boundary(self, index: NDArray[np.intp], angle: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the radius in µm of disk `index` in direction `angle` (radians), of one shape."""
        wave = np.ones(index.shape)
        for column, lobes in enumerate(_LOBES):
            wave += self.waves[index, column] * np.cos(lobes * angle + self.phases[index, column])
        return np.asarray(self.radii[index] * wave)

    def depth(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the distance from the nearest disk's centre as a share of its radius there.

        Args:
            x: µm, of any shape.
            y: µm, of a shape that broadcasts with it.

        Returns:
            The share, of the broadcast shape: below 1 inside a disk, infinity without any disks.
        """
        shape = np.broadcast_shapes(x.shape, y.shape)
        least, nearest = np.full(shape, np.inf), np.zeros(shape, np.intp)
        for number, ((column, row), radius) in enumerate(zip(self.centres, self.radii, strict=True)):
            share = ((x - column) / radius) ** 2 + ((y - row) / radius) ** 2
            nearest[share < least] = number
            np.minimum(least, share, out=least)
        if not len(self.radii):
            return least
        dx, dy = x - self.centres[nearest, 0], y - self.centres[nearest, 1]
        return np.asarray(np.hypot(dx, dy) / self.boundary(nearest, np.arctan2(dy, dx)))


@dataclass(frozen=True)
class Ellipses:
    """Small structures that are drawn one by one: nuclei and goblet vacuoles.

    Attributes:
        centres: float [n, 2], x and y in µm.
        axes: float [n, 2], long and short half axis in µm.
        angles: float [n], direction of the long axis, radians.
        waves: float [n], amplitude of the outline's third-order wave as a share of the radius.
        darkness: float [n], haematoxylin concentration.
    """

    centres: NDArray[np.float64]
    axes: NDArray[np.float64]
    angles: NDArray[np.float64]
    waves: NDArray[np.float64]
    darkness: NDArray[np.float64]


@dataclass(frozen=True)
class Tissue:
    """A tile's content.

    Attributes:
        glands: epithelium, lumen included.
        lumen: radius of the glands' lumens as a share of their own.
        holes: lumens punched through a cribriform gland.
        vacuoles: goblet vacuoles.
        nuclei: all of them.
    """

    glands: Disks
    lumen: float
    holes: Disks
    vacuoles: Ellipses
    nuclei: Ellipses


def grow(organ: Organ, malignant: bool, style: GroupStyle, rng: np.random.Generator) -> Tissue:
    """Grow one tile's tissue.

    Benign glands are round, of one size, on a loose lattice, with one row of small even nuclei
    around a lumen. In malignant ones the outline is ragged, the lumen is lost or split into holes,
    and large, uneven, dark nuclei crowd the whole gland and stray into the stroma.
    """
    glands = _place_glands(organ, malignant, style, rng)
    lumen = organ.lumen if not malignant else 0.25 * organ.lumen
    holes = _place_holes(glands, rng) if malignant else _draw_disks(np.empty((0, 2)), 0.0, 0.0, 0.0, rng)
    if malignant:
        nuclei, above = _place_crowded_nuclei(organ, style, glands, lumen, holes, rng), np.empty((0, 2))
    else:
        nuclei, above = _place_ordered_nuclei(organ, style, glands, rng)
    above = above[rng.random(len(above)) < organ.vacuoles]
    radius = 0.13 * organ.gland_radius * style.scale
    vacuoles = _draw_ellipses(above, radius, 0.1, 1.1, rng.uniform(0, np.pi, len(above)), 0.03, 1.0, rng)
    return Tissue(glands, lumen, holes, vacuoles, nuclei)


def _draw_disks(
    centres: NDArray[np.float64], radius: float, spread: float, wave: float, rng: np.random.Generator
) -> Disks:
    count = len(centres)
    return Disks(
        centres,
        radius * np.exp(rng.normal(0, spread, count)),
        np.abs(rng.normal(0, wave, (count, 3))),
        rng.uniform(0, 2 * np.pi, (count, 3)),
    )


def _draw_lattice(spacing: float, jitter: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a rotated, shifted, jittered hexagonal lattice, float [n, 2] in µm.

    It covers the field and a margin of one spacing.
    """
    reach = np.arange(-np.ceil(FIELD / spacing), np.ceil(FIELD / spacing) + 1)
    column, row = (axis.ravel() for axis in np.meshgrid(reach, reach))
    points = spacing * np.stack([column + 0.5 * (row % 2), row * np.sqrt(3) / 2], axis=1)
    turn = rng.uniform(0, 2 * np.pi)
    points = points @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points += FIELD / 2 + rng.uniform(-spacing / 2, spacing / 2, 2) + rng.normal(0, jitter * spacing, points.shape)
    return np.asarray(points[np.all((points > -spacing) & (points < FIELD + spacing), axis=1)])


def _place_glands(organ: Organ, malignant: bool, style: GroupStyle, rng: np.random.Generator) -> Disks:
    radius = organ.gland_radius * style.scale
    spacing = 2 * radius * (1 + organ.gland_gap)
    if not malignant:
        return _draw_disks(_draw_lattice(spacing, 0.04, rng), radius, 0.06, 0.03, rng)
    return _draw_disks(_draw_lattice(spacing, 0.16, rng), 1.1 * radius, 0.2, 0.11 * style.grade, rng)


def _place_holes(glands: Disks, rng: np.random.Generator) -> Disks:
    """Place up to three small lumens in each gland, 1.35 on average."""
    owner = np.repeat(np.arange(len(glands.radii)), 3)[rng.random(3 * len(glands.radii)) < 0.45]
    angle, reach = rng.uniform(0, 2 * np.pi, len(owner)), rng.uniform(0.1, 0.6, len(owner)) * glands.radii[owner]
    offset = np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach[:, None]
    return _draw_disks(glands.centres[owner] + offset, HOLE_RADIUS, 0.3, 0.08, rng)


def _place_ordered_nuclei(
    organ: Organ, style: GroupStyle, glands: Disks, rng: np.random.Generator
) -> tuple[Ellipses, NDArray[np.float64]]:
    """Place one row of nuclei along each gland's wall and a few in the stroma.

    Also returns the position above each nucleus of the wall where a vacuole may lie.
    """
    radius = organ.nucleus_radius * style.scale
    tall = radius * np.sqrt(organ.nucleus_aspect)
    seat = 1 - (tall + 1.2) / glands.radii
    spacing = 2 * radius * organ.nucleus_spacing / style.density
    counts = np.maximum(3, np.round(2 * np.pi * seat * glands.radii / spacing)).astype(int)
    owner = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    angle = (
        2 * np.pi * (place + rng.normal(0, 0.12, len(owner))) / counts[owner] + rng.uniform(0, 6.3, len(counts))[owner]
    )
    outward = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    reach = glands.boundary(owner, angle)[:, None] * outward
    wall = glands.centres[owner] + (seat[owner] + rng.normal(0, 0.015, len(owner)))[:, None] * reach
    # Flat walls (alveoli) carry their nuclei along the wall, tall ones (columnar epithelium) across
    # it.
    lie = angle + (np.pi / 2 if organ.lumen > 0.6 else 0.0)
    inner = glands.centres[owner] + (0.5 * seat[owner] + 0.5 * organ.lumen)[:, None] * reach
    epithelium = _draw_ellipses(wall, radius, 0.06, organ.nucleus_aspect, lie, 0.02, 0.95, rng)
    return _join(epithelium, _place_stromal_nuclei(organ, style, glands, rng)), inner


def _place_crowded_nuclei(
    organ: Organ, style: GroupStyle, glands: Disks, lumen: float, holes: Disks, rng: np.random.Generator
) -> Ellipses:
    """Place large nuclei all over the glands and some in the stroma around them."""
    radius = organ.nucleus_radius * style.scale * (1 + 0.42 * style.grade)
    points = _draw_lattice(2.15 * radius / np.sqrt(style.density), 0.13, rng)
    depth, gap = glands.depth(points[:, 0], points[:, 1]), holes.depth(points[:, 0], points[:, 1])
    inside = (depth < 0.97) & (depth > lumen) & (gap > 1.25)
    strays = (depth >= 0.97) & (rng.random(len(points)) < 0.12)
    kept = points[inside | strays]
    epithelium = _draw_ellipses(
        kept, radius, 0.17, 1.3, rng.uniform(0, np.pi, len(kept)), 0.09, 0.95 + 0.2 * style.grade, rng
    )
    return _join(epithelium, _place_stromal_nuclei(organ, style, glands, rng))


def _place_stromal_nuclei(organ: Organ, style: GroupStyle, glands: Disks, rng: np.random.Generator) -> Ellipses:
    """Place fibroblasts (spindles) and lymphocytes (small, round, dark) between the glands."""
    expected = organ.stroma_cells * style.density * FIELD**2 / 1000
    points = rng.uniform(0, FIELD, (round(expected), 2))
    points = points[glands.depth(points[:, 0], points[:, 1]) > 1.08]
    aspect = np.where(rng.random(len(points)) < 0.6, 3.0, 1.05)
    return _draw_ellipses(points, 1.9 * style.scale, 0.1, aspect, rng.uniform(0, np.pi, len(points)), 0.03, 1.05, rng)


def _draw_ellipses(
    centres: NDArray[np.float64],
    radius: float,
    spread: float,
    aspect: float | NDArray[np.float64],
    angles: NDArray[np.float64],
    wave: float,
    darkness: float,
    rng: np.random.Generator,
) -> Ellipses:
    count = len(centres)
    radii = radius * np.exp(rng.normal(0, spread, count))
    stretch = np.sqrt(aspect * np.exp(rng.normal(0, spread, count)))
    return Ellipses(
        centres,
        np.stack([radii * stretch, radii / stretch], axis=1),
        angles + rng.normal(0, 0.1, count),
        np.abs(rng.normal(0, wave, count)),
        darkness * np.exp(rng.normal(0, spread, count)),
    )


def _join(first: Ellipses, second: Ellipses) -> Ellipses:
    return Ellipses(
        np.concatenate([first.centres, second.centres]),
        np.concatenate([first.axes, second.axes]),
        np.concatenate([first.angles, second.angles]),
        np.concatenate([first.waves, second.waves]),
        np.concatenate([first.darkness, second.darkness]),
    )
