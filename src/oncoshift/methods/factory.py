"""From settings to a method around a fresh network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.methods.dann import Dann
from oncoshift.methods.erm import Erm
from oncoshift.models.network import AdaptationNet

if TYPE_CHECKING:
    from oncoshift.methods.base import Method
    from oncoshift.settings import Settings


def build_method(settings: Settings) -> Method:
    """The method named by `train.method`; torch's global seed decides the random parts of its start."""
    net = AdaptationNet(settings.model, settings.dann.hidden)
    if settings.train.method == "dann":
        return Dann(net, settings.dann, settings.train.epochs)
    return Erm(net)
