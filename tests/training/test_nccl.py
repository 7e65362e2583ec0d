"""A training through NCCL, the collectives of GPUs, has the figures of one without them.

NCCL takes no two processes on one card, so torchrun starts one, which does all that one of several
does: DistributedDataParallel, BatchNorm's statistics over the whole batch, and gathered features.
As a program, `test_nccl.py FOLDER DEVICE` trains the job as a process of torchrun.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from training.conftest import FIGURES, draw_data, make_stripes_job

from oncoshift.models import batch_norm, collective
from oncoshift.settings import TrainSettings
from oncoshift.training import loop
from oncoshift.training.job import train_job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from oncoshift.data.tables import TrainingData
    from oncoshift.training.job import Job

CHANGES: dict[str, object] = {
    "train__method": "dann",
    "train__precision": "32-true",
    "train__epochs": 1,
    "train__steps_per_epoch": 2,  # rounding grows in an untrained trunk until the curves differ
    "model__dropout": 0.0,
}
BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


class Several(int):
    """A number of processes, 1, that is taken for more, so that they exchange what they have."""

    def __eq__(self, other: object) -> bool:
        return False

    def __gt__(self, other: int) -> bool:
        return True

    __hash__ = int.__hash__


def ignore(row: Mapping[str, float]) -> None:
    """Do nothing, as a hook."""


@pytest.mark.slow
@pytest.mark.parametrize("device", BACKENDS)
def test_one_process_of_torchrun_trains_as_one_alone(
    device: str, data: TrainingData, make_job: Callable[..., Job], tmp_path: Path
) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    torch.set_num_threads(1)
    alone = train_job(make_job(tmp_path / "alone", **CHANGES, train__device=device), data, ignore)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [*command, __file__, str(tmp_path / "torchrun"), device],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["backend"] == BACKENDS[device]
    for name in FIGURES:
        assert said["figures"][name] == pytest.approx(alone.last[name], rel=1e-2, abs=1e-3), name


def main(folder: str, device: str) -> None:
    """Train the job as one of several processes would, and say how it went."""
    backends: list[str] = []

    def setup_and_look(fabric: Any, *parts: Any) -> Any:
        backends.append(torch.distributed.get_backend())
        return setup(fabric, *parts)

    setup = Fabric.setup
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainSettings, "ranks", Several(1))
        for module in (collective, batch_norm):
            patch.setattr(module, "world_size", lambda: Several(1))
        patch.setattr(loop, "find_launcher", lambda _settings: TorchElasticEnvironment())
        patch.setattr(Fabric, "setup", setup_and_look)
        trained = train_job(make_stripes_job(Path(folder), **CHANGES, train__device=device), draw_data(), ignore)
    print(json.dumps({"backend": backends[0], "figures": dict(trained.last)}), flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
