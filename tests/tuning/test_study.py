"""The study: ranges beside defaults, resuming, pruning, failing trials, and a worker killed with SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import optuna
import pytest

from oncoshift.errors import SettingsError, TrainingError
from oncoshift.settings import Tune
from oncoshift.tuning.space import search_space, tunable
from oncoshift.tuning.study import TrialPlan, tune

DEFAULTS = {"train.lr": 1e-3, "dann.max_lambda": 1.0}


def score(plan: TrialPlan) -> float:
    return -abs(plan.values["dann.max_lambda"] - 0.5)


def run(storage, trials, run_trial=score):  # type: ignore[no-untyped-def]
    return tune(
        Tune(trials=trials, heartbeat_seconds=1),
        storage=storage,
        study_name="s",
        defaults=DEFAULTS,
        run_trial=run_trial,
    )


@pytest.fixture
def storage(tmp_path):
    return f"sqlite:///{tmp_path}/optuna.db"


def test_ranges_stand_beside_defaults():
    ranges = tunable()
    assert {"train.lr", "train.weight_decay", "dann.max_lambda"} <= set(ranges)
    assert ranges["train.lr"].low <= 1e-3 <= ranges["train.lr"].high
    with pytest.raises(SettingsError, match=r"model.backbone cannot be tuned; allowed: .*train.lr"):
        search_space(["model.backbone"])


def test_first_trial_is_the_default_and_the_best_is_found(storage):
    seen: list[TrialPlan] = []

    def spy(plan: TrialPlan) -> float:
        seen.append(plan)
        return score(plan)

    result = run(storage, 8, spy)
    assert seen[0].values == DEFAULTS
    assert result.score == max(score(plan) for plan in seen)
    assert -abs(result.values["dann.max_lambda"] - 0.5) == result.score


def test_a_study_goes_on_where_it_was_without_repeating_itself(storage):
    first = run(storage, 3)
    whole = run(storage, 6)
    assert len(whole.trials) == 6
    assert whole.trials[:3]["value"].tolist() == first.trials["value"].tolist()
    assert whole.trials["params_train.lr"].nunique() == 6

    def never(plan: TrialPlan) -> float:
        raise AssertionError("the study has its trials")

    assert len(run(storage, 6, never).trials) == 6


def test_a_trial_that_diverges_fails_alone(storage):
    def diverges(plan: TrialPlan) -> float:
        if plan.number == 1:
            raise TrainingError("loss is not finite")
        return score(plan)

    result = run(storage, 3, diverges)
    assert result.trials["state"].tolist() == ["COMPLETE", "FAIL", "COMPLETE"]


def test_hopeless_trials_are_pruned(storage):
    epochs: dict[int, int] = {}

    def trial(plan: TrialPlan) -> float:
        for epoch in range(5):
            epochs[plan.number] = epoch
            plan.report(epoch, 1.0 if plan.number < 3 else 0.0)
        return 1.0

    result = run(storage, 4, trial)
    assert result.trials["state"].tolist() == ["COMPLETE"] * 3 + ["PRUNED"]
    assert epochs[3] < 4


def test_a_killed_trial_is_requeued_with_its_values(storage, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(
        textwrap.dedent(f"""
        import time, pathlib
        from oncoshift.settings import Tune
        from oncoshift.tuning.study import tune
        def trial(plan):
            if plan.number == 1:
                pathlib.Path({str(tmp_path)!r}, "reached").write_text(repr(plan.values))
                time.sleep(600)
            return 0.0
        tune(Tune(trials=3, heartbeat_seconds=1), storage={storage!r}, study_name="s",
             defaults={DEFAULTS!r}, run_trial=trial)
        """)
    )
    process = subprocess.Popen([sys.executable, str(worker)])
    reached = tmp_path / "reached"
    deadline = time.monotonic() + 60
    while not reached.exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(1.2)  # one heartbeat
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    seen: list[TrialPlan] = []

    def trial(plan: TrialPlan) -> float:
        seen.append(plan)
        return score(plan)

    result = run(storage, 3, trial)
    assert seen[0].number == 1, "the retry carries the number of the trial that was killed"
    assert repr(seen[0].values) == reached.read_text()
    assert [plan.number for plan in seen[1:]] == [3]
    states = result.trials["state"].tolist()
    assert states.count("COMPLETE") == 3
    assert states.count("FAIL") == 1
    assert optuna.load_study(study_name="s", storage=storage).best_value == result.score
