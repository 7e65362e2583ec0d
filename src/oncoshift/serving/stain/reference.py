"""The result of a stain fit, and the reference that tiles are normalised to; both fit into JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

StainMethod = Literal["reinhard", "macenko", "vahadane"]
Precision = Literal["fast", "exact"]
"""fast: stains are fitted to a lattice of at least 50,000 pixels, all of a small tile; exact: to
all pixels."""

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class LabStatistics:
    """The fit of Reinhard's method, in 8-bit LAB as staintools scales it.

    Attributes:
        means: mean of L (0–100), a and b (about −128–127).
        stds: standard deviation of the same.
    """

    means: Triple
    stds: Triple


@dataclass(frozen=True)
class StainVectors:
    """The fit of Macenko's and Vahadane's methods.

    Attributes:
        stain_matrix: unit stain vectors in optical density, haematoxylin then eosin; 2 × 3.
        max_concentrations: the 99th percentile of each stain's concentration.
    """

    stain_matrix: tuple[Triple, Triple]
    max_concentrations: tuple[float, float]


GroupStain = LabStatistics | StainVectors
"""One fit for the tiles of a group."""


@dataclass(frozen=True)
class StainReference:
    """The reference of a normalisation; stored with a pack and in a registered model.

    Attributes:
        method: reinhard, macenko or vahadane.
        fit: the reference tile's own; LAB statistics for reinhard, else stain vectors.
        standardize_luminosity: whether the 95th percentile of L is first stretched to white, as
            staintools does.
        precision: of the fit of each tile or group, see `Precision`.
    """

    method: StainMethod
    fit: LabStatistics | StainVectors
    standardize_luminosity: bool = True
    precision: Precision = "exact"

    def __post_init__(self) -> None:
        if self.method not in get_args(StainMethod) or self.precision not in get_args(Precision):
            raise ValueError(f"stain reference: unknown method {self.method!r} or precision {self.precision!r}")
        if (self.method == "reinhard") != isinstance(self.fit, LabStatistics):
            raise ValueError(f"stain reference: method {self.method} does not go with a {type(self.fit).__name__}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        head = {"method": self.method, "precision": self.precision}
        return head | asdict(self.fit) | {"standardize_luminosity": self.standardize_luminosity}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote; old files without method and precision are reinhard, exact.

        Raises:
            ValueError: a figure is missing, or not a number.
        """
        method = values.get("method", "reinhard")
        try:
            fit: LabStatistics | StainVectors
            if method == "reinhard":
                fit = LabStatistics(_triple(values["means"]), _triple(values["stds"]))
            else:
                first, second = values["stain_matrix"]
                haematoxylin, eosin = values["max_concentrations"]
                fit = StainVectors((_triple(first), _triple(second)), (float(haematoxylin), float(eosin)))
            return cls(method, fit, bool(values["standardize_luminosity"]), values.get("precision", "exact"))
        except (KeyError, TypeError) as error:
            raise ValueError(f"stain reference of method {method!r}: {error} is missing or malformed") from None


def _triple(values: Any) -> Triple:
    first, second, third = values
    return float(first), float(second), float(third)
