"""Faults of a training show in its figures; test_recovery.py checks that good ones have none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from oncoshift.training.diagnostics import chance_loss, list_findings

if TYPE_CHECKING:
    from collections.abc import Callable

    from oncoshift.settings import Settings

DEAD = {"weight": 1e-9, "hidden": 64}
"""A domain head that receives almost no gradient."""


@pytest.fixture
def found(world, settings_for, train) -> Callable[..., tuple[str, ...]]:  # type: ignore[no-untyped-def]
    """A function that trains and lists the findings; keyword arguments are settings sections."""

    def run(method: str, seed: int = 0, **changes: dict[str, object]) -> tuple[str, ...]:
        settings = settings_for(method, seed, **changes)
        return list_findings(train(world(seed), settings).history, settings)

    return run


def test_a_constant_predictor(found: Callable[..., tuple[str, ...]]) -> None:
    """Steps are a thousand times too long."""
    (finding,) = found("erm", train={"lr": 10.0})
    assert finding == "constant predictor: 99.0% of the target is called malignant (each class needs 2%)"


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("method", ["dann", "dann_multi", "cdan"])
def test_a_dead_domain_head(found: Callable[..., tuple[str, ...]], method: str, seed: int) -> None:
    (finding,) = found(method, seed, **{method: DEAD, "train": {"steps_per_epoch": 40}})
    assert finding.startswith("dead or overpowered domain head")
    assert "proxy A-distance 1.9" in finding


def test_a_domain_head_that_the_trunk_never_fools(found: Callable[..., tuple[str, ...]]) -> None:
    (finding,) = found("dann", dann={"max_lambda": 1e-6})
    assert finding.startswith("no alignment: the domain head was right on 98% of tiles")


def test_a_trunk_and_a_head_that_drive_one_another_up(found: Callable[..., tuple[str, ...]]) -> None:
    """The reversed gradient is fifty times the head's own, and nothing limits it."""
    strong = {"max_lambda": 50.0, "schedule": "constant"}
    limits = {"grad_clip": None, "epochs": 10, "steps_per_epoch": 30}
    assert any(
        finding.startswith("feature norm exploded: from ") for finding in found("dann", dann=strong, train=limits)
    )


def test_features_that_decay_to_nothing(found: Callable[..., tuple[str, ...]]) -> None:
    decayed = found("dann", train={"weight_decay": 10.0, "lr": 0.05})
    assert any(finding.startswith("feature norm vanished: from ") for finding in decayed)
    assert any(finding.startswith("constant predictor") for finding in decayed)


def test_gradients_that_blow_up(found: Callable[..., tuple[str, ...]]) -> None:
    blown = found("dann", train={"lr": 10.0})
    assert any(finding.startswith("gradients blew up: their norm was ") for finding in blown)
    # Without clipping there is no gradient norm to report.
    uncut = found("erm", train={"grad_clip": None})
    assert uncut == ()


def test_skipped_steps_are_counted_over_all_epochs(settings_for: Callable[..., Settings]) -> None:
    row = {"target_malignant_share": 0.5, "gradient_norm": 1.0}
    history = [row | {"skipped_steps": 2.0}, row, row | {"skipped_steps": 1.0}]
    assert list_findings(history, settings_for("erm", 0)) == (
        "3 steps were skipped: their loss or gradient was not finite",
    )


def test_knowing_nothing_costs_the_entropy_of_the_domains(settings_for: Callable[..., Settings]) -> None:
    assert chance_loss(settings_for("dann", 0)) == pytest.approx(math.log(2))
    # Half target, a quarter each of two organs: 1/2 ln 2 + 2 · 1/4 ln 4.
    assert chance_loss(settings_for("dann_multi", 0)) == pytest.approx(1.5 * math.log(2))
