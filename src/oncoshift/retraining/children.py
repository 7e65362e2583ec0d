"""Worker processes, as their parent sees them and as they see it.

A worker reads tasks from standard input, a line of JSON each, and writes lines to standard output.
The end of its input means that its parent is gone, and it stops. It is in a process group of its
own, so that Ctrl-C reaches only the parent, which stops its workers: each ends its training step,
writes a checkpoint and exits.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, cast

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_STOP_SECONDS = 60
"""Seconds for a worker to end its step and write its checkpoint before it is killed."""


class Child:
    """A worker process.

    Args:
        module: its program.
        number: of the worker, from 1; it decides the GPUs.
        gpus: number of GPUs of one training (`train.processes`).
    """

    def __init__(self, module: str, number: int, gpus: int) -> None:
        self.number = number
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **assign_gpus(number - 1, gpus)},
            process_group=0,
        )

    def send(self, task: dict[str, Any]) -> None:
        """Send a task; nothing happens if the process has ended, and its exit code says why."""
        to = cast("IO[str]", self.process.stdin)
        with suppress(BrokenPipeError):
            to.write(f"{json.dumps(task)}\n")
            to.flush()

    def read_lines(self) -> Iterator[str]:
        """Yield lines until the process closes its output."""
        for line in cast("IO[str]", self.process.stdout):
            yield line.rstrip()

    @property
    def ending(self) -> str:
        """Exit of the process, in words."""
        code = self.process.returncode
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def stop_children(children: Sequence[Child]) -> None:
    """Stop the workers that still run, and kill those that do not stop in time."""
    for child in children:
        if child.process.poll() is None:
            child.process.terminate()
    for child in children:
        try:
            child.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def assign_gpus(worker: int, each: int) -> dict[str, str]:
    """Choose the environment that assigns GPUs to a worker, in turn; empty if there is only one.

    Args:
        worker: from 0.
        each: number of GPUs of one training (`train.processes`).
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [str(number) for number in range(torch.cuda.device_count())] if named is None else named.split(",")
    if len(gpus) <= each:
        return {}
    mine = [gpus[(worker * each + offset) % len(gpus)] for offset in range(each)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(mine)}


def end_with_parent() -> None:
    """Stop this process when the parent closes its input, of which nothing more is expected."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
