"""Building of a method from settings, and the part of settings and data that a method reads."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from oncoshift.methods.alignment import Alignment, Setup
from oncoshift.methods.registry import METHODS
from oncoshift.models.network import AdaptationNet
from oncoshift.settings import replace_values

if TYPE_CHECKING:
    from oncoshift.methods.base import Method
    from oncoshift.settings import Settings


def select_method_settings(settings: Settings) -> dict[str, Any]:
    """Select the sections that `train.method` reads beside `model` and `train`, as plain values.

    A method that corrects a prior reads those of the prior, too.
    """
    rows = [METHODS[name] for name in settings.trained_methods]
    read = {section for row in rows for section in (*row.terms, *row.also_reads)}
    return settings.model_dump(mode="json", include={*settings.trained_methods, *read})


def list_trained_organs(settings: Settings) -> tuple[str, ...]:
    """List the source organs that a method is trained on: all, or the one of `single.organ`."""
    if not METHODS[settings.train.method].one_organ:
        return settings.sources
    return (settings.single.organ or settings.sources[0],)


def count_epochs(settings: Settings) -> int:
    """Count the epochs of a training; a head in closed form has one."""
    return 1 if METHODS[settings.train.method].closed_form else settings.train.epochs


def list_member_settings(settings: Settings) -> tuple[Settings, ...]:
    """List the settings of the networks whose probabilities are averaged.

    For `ensemble` there is one `single` per source organ, for any other method one network.
    """
    member = METHODS[settings.train.method].member
    if member is None:
        return (settings,)
    return tuple(
        replace_values(settings, {"train.method": member, "single.organ": organ}) for organ in settings.sources
    )


def build_method(settings: Settings) -> Method:
    """Build the method named by `train.method` around a new network.

    Torch's global seed decides its weights. The network is drawn before the terms' heads, so for
    one seed every method starts from the same network. BatchNorm is per domain where the settings
    say so and the method reads target tiles, and always for AdaBN.
    """
    row = METHODS[settings.train.method]
    per_domain = row.per_domain or (row.uses_target and settings.model.batch_norm == "per_domain")
    return wrap_network(AdaptationNet(settings.model, per_domain=per_domain), settings)


def wrap_network(net: AdaptationNet, settings: Settings) -> Method:
    """Build the method named by `train.method` around a given network, with new heads of its own.

    Raises:
        ValueError: the method is an ensemble, which is not one network.
    """
    name = settings.train.method
    row = METHODS[name]
    if row.member is not None:
        raise ValueError(f"{name} is not a method around one network; train its members (`list_member_settings`)")
    if row.terms:
        setup = Setup(net.width, len(settings.sources), settings.train.epochs)
        made: Method = Alignment(net, {term: _instantiate(term, settings, setup) for term in row.terms})
    else:
        made = _instantiate(name, settings, net)
    made.label_smoothing = settings.train.label_smoothing
    return made


def _instantiate(name: str, settings: Settings, around: AdaptationNet | Setup) -> Any:
    """Instantiate the class of a method or term with the section of its name."""
    return resolve_name(METHODS[name].made_by)(around, getattr(settings, name, None))
