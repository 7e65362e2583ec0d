"""Methods with views or statistics of their own run as jobs, and resume to the same bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from oncoshift.serving.classifier import TileClassifier
from oncoshift.training.inputs import PixelInputs
from oncoshift.training.job import predict_job, train_job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

    from oncoshift.data.tables import TrainingData
    from oncoshift.training.job import Job

SHORT = {"train__epochs": 2, "train__steps_per_epoch": 2, "train__batch_size": 4}
ON_MAPS = {"model__backbone": "resnet18", "model__freeze": "layer3"}
"""Settings that train only a trunk's last part, with BatchNorm that is separated by domain."""

CASES: dict[str, dict[str, Any]] = {
    "stain_aug": {"train__method": "stain_aug"},
    "self_training": {"train__method": "self_training"},
    "adabn": {"train__method": "adabn", **ON_MAPS},
    "adabn with averaged weights": {"train__method": "adabn", "train__ema": 0.9, **ON_MAPS},
    "dann per domain": {"train__method": "dann", "model__batch_norm": "per_domain", **ON_MAPS},
    "self_training per domain": {"train__method": "self_training", "model__batch_norm": "per_domain", **ON_MAPS},
}


class PulledPlugError(Exception):
    """A simulated kill between two epochs."""


def ignore(row: Mapping[str, float]) -> None:
    """Do nothing, as a hook."""


def pull(row: Mapping[str, float]) -> None:
    raise PulledPlugError


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_resumed_equals_uninterrupted_to_the_bit(
    data: TrainingData, make_job: Callable[..., Job], tmp_path: Path, changes: dict[str, Any]
) -> None:
    whole, broken = (make_job(tmp_path / name, **SHORT, **changes) for name in ("whole", "broken"))
    expected = train_job(whole, data, ignore)
    with pytest.raises(PulledPlugError):
        train_job(broken, data, pull)
    torch.manual_seed(12345)  # what happened in between must not matter
    resumed = train_job(broken, data, ignore)
    a, b = expected.state(), resumed.state()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ["adabn", "adabn with averaged weights", "dann per domain"])
def test_what_is_kept_is_a_plain_classifier_that_says_what_validation_saw(
    data: TrainingData, make_job: Callable[..., Job], name: str
) -> None:
    job = make_job(**SHORT, **CASES[name])
    trained = train_job(job, data, ignore)
    classifier = TileClassifier("resnet18", 16, 0.5)
    classifier.load_state_dict(trained.state())
    rows = data.target.rows
    said = predict_job(trained, data.source.images, rows)
    assert float((said > 0.5).mean()) == trained.history[-1]["target_malignant_share"]
    live = classifier.eval()(PixelInputs(data.source.images).batch(rows, torch.device("cpu")))
    np.testing.assert_allclose(said, live.double().softmax(1)[:, 1].detach().numpy(), atol=5e-3)
