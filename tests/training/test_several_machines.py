"""torchrun starts a training on two "machines" of this one: its figures are those of one process.

As a program, `test_several_machines.py FOLDER` trains the job as a process of torchrun.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from support.ports import find_free_port
from training.conftest import FIGURES, draw_data, make_stripes_job

from oncoshift.errors import SettingsError
from oncoshift.training.job import find_trained, train_job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from oncoshift.data.tables import TrainingData
    from oncoshift.training.job import Job

CHANGES: dict[str, object] = {
    "train__method": "dann",
    "train__precision": "32-true",
    "train__epochs": 2,
    "train__steps_per_epoch": 2,
    "model__dropout": 0.0,
    "model__freeze": "all",  # rounding grows in an untrained trunk until the curves differ
}


def ignore(row: Mapping[str, float]) -> None:
    """Do nothing, as a hook."""


def start(machine: int, port: int, folder: Path) -> subprocess.Popen[str]:
    """Start torchrun as on one of two machines, with one process each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    command += ["--node-rank", str(machine), "--master-addr", "127.0.0.1", "--master-port", str(port)]
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [*command, __file__, str(folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_two_machines_train_as_one_process(data: TrainingData, make_job: Callable[..., Job], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    alone = train_job(make_job(tmp_path / "alone", **CHANGES), data, ignore)
    port = find_free_port()
    machines = [start(machine, port, tmp_path / "shared") for machine in range(2)]
    said = [machine.communicate(timeout=300)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(said)
    job = make_job(tmp_path / "shared", **CHANGES)
    assert job.id == alone.job.id, "the number of machines does not decide the weights"
    together = find_trained(job)
    assert together is not None
    for one, two in zip(alone.history, together.history, strict=True):
        for name in FIGURES:
            assert two[name] == pytest.approx(one[name], rel=1e-3, abs=1e-4), name
    assert sum("trained" in lines for lines in said) == 2, "each found the result that the first has written"


def test_without_a_launcher_several_machines_are_refused(data: TrainingData, make_job: Callable[..., Job]) -> None:
    with pytest.raises(SettingsError, match="no launcher started this process"):
        train_job(make_job(train__nodes=2), data, ignore)


def test_another_number_of_processes_is_refused(
    data: TrainingData, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"SLURM_NTASKS": "3", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "training"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="Use `--ntasks-per-node=3` instead"):
        train_job(make_job(train__nodes=2), data, ignore)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "3")
    with pytest.raises(SettingsError, match="is 2, but 3 processes were started"):
        train_job(make_job(train__nodes=2), data, ignore)


def main(folder: str) -> None:
    """Train the job on two machines."""
    trained = train_job(make_stripes_job(Path(folder), **CHANGES, train__nodes=2), draw_data(), ignore)
    print("trained", trained.job.id, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
