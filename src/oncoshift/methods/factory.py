"""From settings to a method around a fresh network, and what of the settings and of the data a method reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncoshift.methods.adabn import AdaBn
from oncoshift.methods.alignment import Alignment, Term
from oncoshift.methods.cdan import Cdan
from oncoshift.methods.dann import Dann
from oncoshift.methods.dann_multi import DannMulti
from oncoshift.methods.erm import Erm
from oncoshift.methods.mcc import Mcc
from oncoshift.methods.mdd import Mdd
from oncoshift.methods.self_training import SelfTraining
from oncoshift.methods.stain_aug import StainAug
from oncoshift.models.network import AdaptationNet
from oncoshift.settings import with_values

if TYPE_CHECKING:
    from oncoshift.methods.base import Method
    from oncoshift.settings import Settings

TERMS: dict[str, tuple[str, ...]] = {
    "erm": (),
    "single": (),
    "stain_aug": (),
    "ensemble": (),
    "adabn": (),
    "dann": ("dann",),
    "cdan": ("cdan",),
    "mcc": ("mcc",),
    "mdd": ("mdd",),
    "dann_multi": ("dann_multi",),
    "self_training": ("self_training",),
    "dann_mcc": ("dann", "mcc"),
    "cdan_mcc": ("cdan", "mcc"),
}
"""The terms of each method beside the label loss; a term's settings are the section of its name."""

_SECTIONS = {
    "single": ("single", "sources"),
    "stain_aug": ("stain_aug",),
    "ensemble": ("sources",),
    "dann_multi": ("dann_multi", "sources"),
}
"""What methods read that is not the sections of their terms alone."""


def method_settings(settings: Settings) -> dict[str, Any]:
    """What `train.method` reads beside `model` and `train`: sections as plain values, by name."""
    method = settings.train.method
    keys = {*TERMS[method], *_SECTIONS.get(method, ())}
    return settings.model_dump(mode="json", include=keys) if keys else {}


def trained_organs(settings: Settings) -> tuple[str, ...]:
    """The source organs that a method is trained on: all, or for `single` the one."""
    if settings.train.method != "single":
        return settings.sources
    return (settings.single.organ or settings.sources[0],)


def member_settings(settings: Settings) -> tuple[Settings, ...]:
    """Settings of the networks whose mean probability counts: for `ensemble` a `single` for each source organ.

    For any other method it is the one network.
    """
    if settings.train.method != "ensemble":
        return (settings,)
    return tuple(with_values(settings, {"train.method": "single", "single.organ": organ}) for organ in settings.sources)


def build_method(settings: Settings) -> Method:
    """The method named by `train.method`; torch's global seed decides the random parts of its start.

    The network comes first and a term's head after it, so every method starts from one network for one seed. BatchNorm
    is per domain where the settings say so and the method sees two domains, and always for AdaBN.
    """
    method = settings.train.method
    both = bool(TERMS[method]) and settings.model.batch_norm == "per_domain"
    return method_around(AdaptationNet(settings.model, per_domain=both or method == "adabn"), settings)


def method_around(net: AdaptationNet, settings: Settings) -> Method:
    """The method named by `train.method` around a network that there is, with freshly drawn heads of its own.

    Raises:
        ValueError: it is an ensemble, which is not one network.
    """
    made = _around(net, settings)
    made.label_smoothing = settings.train.label_smoothing
    return made


def _around(net: AdaptationNet, settings: Settings) -> Method:
    method = settings.train.method
    if terms := TERMS[method]:
        return Alignment(net, {name: _term(name, net.width, settings) for name in terms})
    match method:
        case "erm" | "single":
            return Erm(net)
        case "stain_aug":
            return StainAug(net, settings.stain_aug)
        case "adabn":
            return AdaBn(net)
    raise ValueError(f"{method} is no method around one network; train its members (`member_settings`)")


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
        case "self_training":
            return SelfTraining(settings.self_training)
    raise ValueError(f"no term {name!r}")
