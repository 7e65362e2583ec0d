"""From settings to a method around a fresh network, and what of the settings a method reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncoshift.methods.alignment import Alignment, Term
from oncoshift.methods.cdan import Cdan
from oncoshift.methods.dann import Dann
from oncoshift.methods.dann_multi import DannMulti
from oncoshift.methods.erm import Erm
from oncoshift.methods.mcc import Mcc
from oncoshift.methods.mdd import Mdd
from oncoshift.models.network import AdaptationNet

if TYPE_CHECKING:
    from oncoshift.methods.base import Method
    from oncoshift.settings import Settings

TERMS: dict[str, tuple[str, ...]] = {
    "erm": (),
    "dann": ("dann",),
    "cdan": ("cdan",),
    "mcc": ("mcc",),
    "mdd": ("mdd",),
    "dann_multi": ("dann_multi",),
    "dann_mcc": ("dann", "mcc"),
    "cdan_mcc": ("cdan", "mcc"),
}
"""The terms of each method beside the label loss; a term's settings are the section of its name."""

_BEYOND_ITS_SECTION = {"dann_multi": ("sources",)}


def method_settings(settings: Settings) -> dict[str, Any]:
    """What `train.method` reads beside `model` and `train`: its terms' sections as plain values, by name."""
    terms = TERMS[settings.train.method]
    keys = {*terms, *(key for term in terms for key in _BEYOND_ITS_SECTION.get(term, ()))}
    return settings.model_dump(mode="json", include=keys) if keys else {}


def build_method(settings: Settings) -> Method:
    """The method named by `train.method`; torch's global seed decides the random parts of its start.

    The network comes first and a term's head after it, so every method starts from one network for one seed.
    """
    return method_around(AdaptationNet(settings.model), settings)


def method_around(net: AdaptationNet, settings: Settings) -> Method:
    """The method named by `train.method` around a network that there is, with freshly drawn heads of its own."""
    terms = TERMS[settings.train.method]
    return Alignment(net, {name: _term(name, net.width, settings) for name in terms}) if terms else Erm(net)


def _term(name: str, width: int, settings: Settings) -> Term:
    epochs = settings.train.epochs
    match name:
        case "dann":
            return Dann(width, settings.dann, epochs)
        case "cdan":
            return Cdan(width, settings.cdan, epochs)
        case "dann_multi":
            return DannMulti(width, len(settings.sources), settings.dann_multi, epochs)
        case "mcc":
            return Mcc(settings.mcc)
        case "mdd":
            return Mdd(width, settings.mdd, epochs)
    raise ValueError(f"no term {name!r}")
