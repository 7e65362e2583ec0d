"""The appearance of each organ, and the variation between patients' slides.

Organs differ as real slides do: in hue and strength of the dyes, illumination, background eosin,
cell size and architecture. The difference between malignant and benign tissue is the same in all
organs and is in `tissue`. The four organs are the corners of a tetrahedron in stain space, so that
none lies between the others: a model trained on three has to extrapolate to the fourth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from oncoshift.errors import SettingsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class SlideStain:
    """How an organ's slides are stained and lit.

    Attributes:
        haematoxylin: direction of the dye's optical density in R, G, B; scaled to length 1 on use.
        eosin: the same of the counterstain.
        haematoxylin_strength: multiplies every haematoxylin concentration.
        eosin_strength: multiplies every eosin concentration.
        haze: haematoxylin and eosin concentration over the whole slide, lumens included, as after
            poor rinsing.
        light: transmitted light of an empty slide, 0–255 in R, G, B.
    """

    haematoxylin: RGB
    eosin: RGB
    haematoxylin_strength: float
    eosin_strength: float
    haze: tuple[float, float]
    light: RGB


@dataclass(frozen=True)
class Organ:
    """One organ's architecture (lengths in µm, of healthy tissue) and stain.

    Attributes:
        gland_radius: mean outer radius of a gland, tubule or alveolus.
        gland_gap: stroma between two glands, as a share of their diameter.
        lumen: radius of the lumen as a share of the gland's.
        nucleus_radius: mean radius of an epithelial nucleus.
        nucleus_aspect: long over short axis; above 1.3 the epithelium is columnar.
        nucleus_spacing: distance of neighbouring nuclei along the wall, in nuclear diameters.
        vacuoles: goblet vacuoles for each epithelial nucleus, 0–1.
        cytoplasm: eosin concentration of the epithelium.
        basophilia: haematoxylin concentration of the epithelium.
        stroma: eosin concentration of the stroma.
        fibres: contrast of the stroma's fibres, 0–1.
        fibre_width: wavelength of the fibres.
        stroma_cells: stromal nuclei in 1000 µm².
        stain: see `SlideStain`.
    """

    gland_radius: float
    gland_gap: float
    lumen: float
    nucleus_radius: float
    nucleus_aspect: float
    nucleus_spacing: float
    vacuoles: float
    cytoplasm: float
    basophilia: float
    stroma: float
    fibres: float
    fibre_width: float
    stroma_cells: float
    stain: SlideStain


@dataclass(frozen=True)
class GroupStyle:
    """What all tiles of one group (patient) share.

    Attributes:
        haematoxylin: added to the dye's direction, R, G, B.
        eosin: the same of the counterstain.
        strengths: factors of the haematoxylin and the eosin concentrations.
        density: factor of the number of nuclei.
        scale: factor of every length.
        grade: how far a malignant group is from benign, around 1.
        focus: weight of a pixel's neighbours in its value, 0 (sharp) to 0.5.
    """

    haematoxylin: RGB
    eosin: RGB
    strengths: tuple[float, float]
    density: float
    scale: float
    grade: float
    focus: float


ORGANS: dict[str, Organ] = {
    "lung": Organ(
        gland_radius=21,
        gland_gap=0.02,
        lumen=0.74,
        nucleus_radius=2.9,
        nucleus_aspect=1.25,
        nucleus_spacing=1.7,
        vacuoles=0,
        cytoplasm=0.55,
        basophilia=0.18,
        stroma=0.55,
        fibres=0.3,
        fibre_width=5,
        stroma_cells=4.0,
        stain=SlideStain((0.68, 0.65, 0.33), (0.30, 0.85, 0.40), 0.72, 0.46, (0.05, 0.0), (246, 246, 250)),
    ),
    "colon": Organ(
        gland_radius=23,
        gland_gap=0.22,
        lumen=0.30,
        nucleus_radius=2.7,
        nucleus_aspect=1.6,
        nucleus_spacing=1.15,
        vacuoles=0.7,
        cytoplasm=0.60,
        basophilia=0.16,
        stroma=0.50,
        fibres=0.35,
        fibre_width=6,
        stroma_cells=3.2,
        stain=SlideStain((0.56, 0.74, 0.36), (0.14, 0.90, 0.40), 0.68, 0.62, (0.0, 0.05), (247, 241, 247)),
    ),
    "breast": Organ(
        gland_radius=15,
        gland_gap=0.75,
        lumen=0.40,
        nucleus_radius=2.6,
        nucleus_aspect=1.2,
        nucleus_spacing=1.25,
        vacuoles=0,
        cytoplasm=0.40,
        basophilia=0.12,
        stroma=0.70,
        fibres=0.75,
        fibre_width=8,
        stroma_cells=1.6,
        stain=SlideStain((0.58, 0.66, 0.47), (0.14, 0.80, 0.56), 0.54, 0.42, (0.0, 0.0), (250, 247, 243)),
    ),
    "kidney": Organ(
        gland_radius=15,
        gland_gap=0.08,
        lumen=0.28,
        nucleus_radius=2.9,
        nucleus_aspect=1.05,
        nucleus_spacing=2.1,
        vacuoles=0,
        cytoplasm=0.80,
        basophilia=0.10,
        stroma=0.60,
        fibres=0.3,
        fibre_width=6,
        stroma_cells=2.0,
        stain=SlideStain((0.58, 0.68, 0.42), (0.20, 0.80, 0.56), 0.64, 0.56, (0.0, 0.06), (243, 237, 226)),
    ),
}


def find_organ(name: str) -> Organ:
    """Find the parameters of an organ.

    Raises:
        SettingsError: the phantom has no such organ.
    """
    if name not in ORGANS:
        raise SettingsError(f"phantom.organs: {name!r} is unknown; the phantom has {', '.join(ORGANS)}")
    return ORGANS[name]


def draw_style(rng: np.random.Generator) -> GroupStyle:
    """Draw the style of one patient's slide: dye lots, thickness, cellularity, grade and focus."""
    jitter: NDArray[np.float64] = rng.normal(0, 0.03, (2, 3))
    strengths = np.exp(rng.normal(0, 0.09, 2))
    return GroupStyle(
        haematoxylin=(float(jitter[0, 0]), float(jitter[0, 1]), float(jitter[0, 2])),
        eosin=(float(jitter[1, 0]), float(jitter[1, 1]), float(jitter[1, 2])),
        strengths=(float(strengths[0]), float(strengths[1])),
        density=float(np.exp(rng.normal(0, 0.08))),
        scale=float(np.exp(rng.normal(0, 0.04))),
        grade=float(np.clip(rng.normal(1, 0.15), 0.7, 1.3)),
        focus=float(rng.uniform(0.05, 0.35)),
    )
