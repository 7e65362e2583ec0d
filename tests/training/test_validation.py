"""A network's validation figures agree with its predictions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from oncoshift import settings
from oncoshift.errors import TrainingError
from oncoshift.methods.factory import build_method
from oncoshift.selection.bnm import batch_nuclear_norm
from oncoshift.selection.registry import VALIDATORS
from oncoshift.training.inputs import PixelInputs
from oncoshift.training.prediction import predict
from oncoshift.training.validation import validate

if TYPE_CHECKING:
    from typing import Any

    from oncoshift.data.tables import TrainingData

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def net():  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    method = build_method(settings.parse_settings({"sources": ["lung", "colon"], "model": {"bottleneck": 16}}))
    return method.net.train()


def test_every_validator_the_share_and_the_distance_are_there_and_true(net: Any, data: TrainingData) -> None:
    inputs = PixelInputs(data.source.images)
    assert "nuclei" not in validate(net, data, inputs, CPU), "the anchor was not measured"
    data = replace(data, nuclei=np.random.default_rng(0).normal(size=len(data.target.images)))
    row = validate(net, data, inputs, CPU)
    assert set(row) == {*VALIDATORS, "target_malignant_share", "proxy_a_distance"}
    target = predict(net, inputs, data.target.rows, CPU)
    assert row["target_malignant_share"] == np.mean(target > 0.5)
    assert row["bnm"] == batch_nuclear_norm(target)
    assert 0 <= row["proxy_a_distance"] <= 2
    assert net.training, "the mode is restored"
    assert validate(net, data, inputs, CPU) == row


def test_each_tile_goes_through_the_network_once(net: Any, data: TrainingData) -> None:
    seen = []
    hook = net.classifier.head.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    validate(net, data, PixelInputs(data.source.images), CPU)
    hook.remove()
    assert sum(seen) == len(data.source_val.rows) + len(data.target.rows)


def test_predictions_that_are_not_finite_are_an_error_of_training(net: Any, data: TrainingData) -> None:
    before = net.classifier.head.bias.detach().clone()
    with torch.no_grad():
        net.classifier.head.bias.fill_(torch.inf)
    with pytest.raises(TrainingError, match="not finite"):
        validate(net, data, PixelInputs(data.source.images), CPU)
    net.classifier.head.bias = nn.Parameter(before)
