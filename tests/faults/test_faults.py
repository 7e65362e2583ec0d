"""A few of the faults that `python -m faults` causes; all of them take half an hour."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from faults.damage import damage_everything, mounting_small_disk
from faults.kills import kill_in_all_stages
from faults.outages import lose_answers, lose_tracking_server, restart_postgresql

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def test_a_retraining_killed_in_each_step_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    assert sum(kill_in_all_stages(tmp_path, 1, print).values()) >= 8


def test_a_tracking_server_that_is_away_is_waited_for(tmp_path: Path) -> None:
    assert min(lose_tracking_server(tmp_path, seconds=5).values()) >= 5


def test_answers_that_are_lost_double_nothing(tmp_path: Path) -> None:
    assert lose_answers(tmp_path, share=0.1) > 10


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_study_goes_on_when_postgresql_was_restarted_and_a_worker_killed(tmp_path: Path, mode: str) -> None:
    restart_postgresql(tmp_path, mode, seconds=5)


def test_damaged_files_a_full_disk_and_a_second_scheduler_lose_nothing(tmp_path: Path) -> None:
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(mounting_small_disk(tmp_path / "disk"))
        except subprocess.CalledProcessError:
            pytest.skip("a tmpfs may not be mounted here: run it as root, in a container with CAP_SYS_ADMIN")
        seen = dict(damage_everything(tmp_path, disk))
    assert "make room" in seen["the disk full in registration"]
    assert len(seen) == 7
