"""SIGKILL at seeded moments of every step of retrainings, and what is left compared with a twin's.

A project and its twin retrain on the same growing data. The project's retraining is killed several
times in each step, with all its child processes, and started again; the twin's is not. In the end
both must have the same runs, curves, weights, versions, trials and history.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from typing import TYPE_CHECKING

from faults.moments import Moment
from faults.retrainings import STAGES, End, Project
from faults.stock import check_whole, take_stock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_FIRST_GROUPS = 8
_KILLS = 3
"""Kills in each step but `data`, of a retraining."""


def kill_in_all_stages(folder: Path, rounds: int, say: Callable[[str], None], seed: int = 0) -> Counter[str]:
    """Retrain `rounds` times, with 22 kills in each, and check what is left.

    Args:
        folder: for the project and its twin; exists.
        rounds: retrainings, each on more data than the one before.
        say: receives a line for each kill.
        seed: of the moments.

    Returns:
        The number of kills by step.
    """
    draw = random.Random(seed)
    project, twin = Project(folder / "project"), Project(folder / "twin")
    kills: Counter[str] = Counter()
    for number in range(rounds):
        twin.grow(_FIRST_GROUPS + number)
        whole = twin.retrain()
        assert whole.code == 0, whole.output
        ready = False
        for moment in _draw_moments(draw, whole):
            stage = moment.stage
            end = project.retrain(moment, with_data=not ready)
            ready = stage != "data"
            if end.code == 0:  # it was killed last when all was done
                assert "== Unchanged" in end.output, end.output
                break
            assert end.code == -signal.SIGKILL, end.output
            kills[stage] += 1
            say(f"retraining {number}: {moment}")
        end = project.retrain()
        assert end.code == 0, end.output
        check_whole(take_stock(project), take_stock(twin))
    return kills


def _draw_moments(draw: random.Random, whole: End) -> Iterator[Moment]:
    """Draw a moment of step `data`, whose work child processes do, and some of each other step."""
    yield Moment("data", delay=draw.uniform(0.0, whole.seconds["data"]))
    for stage in STAGES[1:]:
        for _ in range(_KILLS):
            yield Moment(stage, draw.randint(1, whole.counts[stage]))
