"""An ensemble job finds or trains one member for each organ, and serves their mean probability."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from support.tiny_settings import TINY_TRUNK

from oncoshift.explain.attributions import attribute_tiles
from oncoshift.registry.folder import Package, save_folder
from oncoshift.serving.attributions import Convergence
from oncoshift.serving.config import ServedConfig
from oncoshift.serving.predictor import TilePredictor
from oncoshift.training.ensemble import average_histories
from oncoshift.training.job import find_trained, load_net, predict_job, train_job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

    from oncoshift.data.tables import TrainingData
    from oncoshift.training.job import Job

HEADS = {
    "model__freeze": "all",
    "train__epochs": 2,
    "train__steps_per_epoch": 3,
    "train__lr": 0.05,
    "train__batch_size": 8,
}
"""Settings that train heads on features, in a fraction of a second."""


class PulledPlugError(Exception):
    """A simulated kill within a member's training."""


def ignore(row: Mapping[str, float]) -> None:
    """Do nothing, as a hook."""


@pytest.fixture
def make_ensemble(make_job: Callable[..., Job]) -> Any:
    def make(**changes: object):  # type: ignore[no-untyped-def]
        return make_job(**{"train__method": "ensemble", **HEADS, **changes})

    return make


def alone(make_ensemble, organ: str, **changes: object):  # type: ignore[no-untyped-def]
    return make_ensemble(train__method="single", single__organ=organ, **changes)


@pytest.mark.parametrize("freeze", ["none", "all"])
def test_an_ensemble_says_the_mean_of_its_members(
    data: TrainingData, make_ensemble: Callable[..., Any], freeze: str
) -> None:
    job = make_ensemble(model__freeze=freeze)
    rows: list[Mapping[str, float]] = []
    trained = train_job(job, data, rows.append)
    members = [alone(make_ensemble, organ, model__freeze=freeze) for organ in ("lung", "colon")]
    done = [found for member in members if (found := find_trained(member)) is not None]
    assert len(done) == len(members)
    tiles = data.target.rows
    each = [predict_job(member, data.source.images, tiles) for member in done]
    assert np.abs(each[0] - each[1]).max() > 1e-4, "members that say the same would hide an error"
    np.testing.assert_allclose(predict_job(trained, data.source.images, tiles), np.mean(each, 0), atol=1e-6)
    assert rows == trained.history
    assert [row["epoch"] for row in rows] == [0.0, 1.0]
    losses = [member.history[0]["label_loss"] for member in done]
    assert rows[0]["label_loss"] == pytest.approx(np.mean(losses))
    malignant = float((np.mean(each, 0) > 0.5).mean())
    assert rows[1]["target_malignant_share"] == pytest.approx(malignant), "of the ensemble itself"


def test_members_that_are_trained_are_found_and_killed_ones_go_on_to_the_same_bits(
    data: TrainingData, make_job: Callable[..., Job], tmp_path: Path
) -> None:
    def job(folder, **changes: object):  # type: ignore[no-untyped-def]
        return make_job(folder, **{"train__method": "ensemble", **HEADS, **changes})

    def pull(row: Mapping[str, float]) -> None:
        raise PulledPlugError

    expected = train_job(job(tmp_path / "whole"), data, ignore)
    broken = tmp_path / "broken"
    lung, colon = ({"train__method": "single", "single__organ": organ} for organ in ("lung", "colon"))
    first = train_job(job(broken, **lung), data, ignore)
    with pytest.raises(PulledPlugError):
        train_job(job(broken, **colon), data, pull)
    written = first.weights.stat().st_mtime_ns
    resumed = train_job(job(broken), data, ignore)
    assert first.weights.stat().st_mtime_ns == written
    a, b = expected.state(), resumed.state()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    again = train_job(job(broken), data, ignore)
    assert again == resumed


def test_an_ensemble_is_served_and_explained_as_one_model(
    data: TrainingData, make_ensemble: Callable[..., Any], tmp_path: Path
) -> None:
    job = make_ensemble()
    trained = train_job(job, data, ignore)
    state = trained.state()
    assert {name.split(".")[0] for name in state} == {"members"}
    assert {name.split(".")[1] for name in state} == {"0", "1"}
    config = ServedConfig("oncoshift-kidney", "kidney", ("lung", "colon"), TINY_TRUNK, 16, 0.5, 32, members=2)
    tiles = data.source.images[data.target.rows[:6]]
    save_folder(Package(config, state, "# card", list(tiles[:2])), tmp_path / "model")
    served = TilePredictor.load(
        tmp_path / "model/artifacts/config.json", tmp_path / "model/artifacts/weights.safetensors", "cpu"
    )
    expected = predict_job(trained, data.source.images, data.target.rows[:6])
    said = np.array([outcome.probability for outcome in served.predict(list(tiles))], np.float64)
    np.testing.assert_allclose(said, expected, atol=1e-6)
    grey = np.full((32, 32, 3), 128.0)
    explained = attribute_tiles(load_net(trained).classifier, tiles[:2], grey, Convergence(2, 4), batch_size=8)
    np.testing.assert_allclose(explained.probabilities, expected[:2], atol=1e-5)


def test_one_organ_makes_a_plain_model(data: TrainingData, make_ensemble: Callable[..., Any]) -> None:
    trained = train_job(make_ensemble(sources=["lung"]), data, ignore)
    one = find_trained(alone(make_ensemble, "lung", sources=["lung"]))
    assert one is not None
    a, b = trained.state(), one.state()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_history_is_the_mean_but_for_the_clock() -> None:
    def row(loss: float, seconds: float, when: float) -> Mapping[str, float]:
        return {"epoch": 0.0, "label_loss": loss, "epoch_seconds": seconds, "timestamp_ms": when}

    assert average_histories([[row(1.0, 2.0, 10.0)], [row(2.0, 3.0, 7.0)]]) == [row(1.5, 5.0, 10.0)]
