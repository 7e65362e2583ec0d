"""Training in several processes.

On one machine they are ours to start, listen to and end. On several machines a cluster's launcher
starts them: torchrun (also in Kubeflow), srun, jsrun or mpirun.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric.plugins.environments import (
    LSFEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from torch import multiprocessing

from oncoshift.errors import OncoshiftError, ProcessLostError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import SpawnProcess
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Event

    from lightning_fabric.plugins.environments import ClusterEnvironment

    from oncoshift.settings import TrainSettings

    Report = Callable[[dict[str, float]], None]
    Work = Callable[[Any, Report, Callable[[], bool]], None]

_LAUNCHERS = (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment, MPIEnvironment)
"""What Fabric knows to start processes, in its own order; torchrun may run within SLURM."""

_PATIENCE = 10.0
"""Seconds that a process has to exit before it is killed."""


def is_first_process(settings: TrainSettings) -> bool:
    """Tell whether this process writes results, as the first of several machines' does."""
    launcher = _detect_launcher(settings)
    return launcher is None or launcher.global_rank() == 0


def find_launcher(settings: TrainSettings) -> ClusterEnvironment | None:
    """Find the launcher that started this process as one of several machines' processes.

    Args:
        settings: section `train`; with `nodes` 1 the processes are ours, whatever a cluster's
            variables say.

    Returns:
        What knows rank, number of processes and the first machine's address; None if `nodes` is 1.

    Raises:
        SettingsError: no launcher started this process, or it started another number of them.
    """
    launcher = _detect_launcher(settings)
    if launcher is None and settings.nodes > 1:
        raise SettingsError(
            f"train.nodes {settings.nodes}: no launcher started this process; start `oncoshift train` on every machine "
            "by torchrun or srun, or set train.nodes to 1"
        )
    if launcher is not None and launcher.world_size() != settings.ranks:
        raise SettingsError(
            f"train.nodes {settings.nodes} × train.processes {settings.processes} is {settings.ranks}, but "
            f"{launcher.world_size()} processes were started; set them to what was started"
        )
    return launcher


def _detect_launcher(settings: TrainSettings) -> ClusterEnvironment | None:
    if settings.nodes == 1:
        return None
    try:
        return next((kind() for kind in _LAUNCHERS if kind.detect()), None)
    except RuntimeError as error:  # SLURM's --ntasks without --ntasks-per-node
        raise SettingsError(f"train.nodes {settings.nodes}: {' '.join(str(error).split())}") from None


def run_ranks(work: Work, argument: Any, ranks: int, report: Report, stopped: Callable[[], bool]) -> None:
    """Run `work(argument, report, stopped)` in `ranks` new processes that form one process group.

    Args:
        work: a module-level function; only the first rank's `report` calls arrive here.
        argument: pickled for each process; large arrays in it should pickle as paths.
        ranks: how many processes.
        report: called here, in order, with what the first rank reports. If it raises, all processes
            end.
        stopped: once it returns True here, it does so in every process.

    Raises:
        OncoshiftError: a rank raised it.
        ProcessLostError: a rank was killed or failed in another way.
    """
    context = multiprocessing.get_context("spawn")
    messages: Queue[Any] = context.Queue()
    stop: Event = context.Event()
    threads = max(torch.get_num_threads() // ranks, 1)
    port = _find_free_port()
    # Pickled here, because torch would put tensors into shared memory, and all ranks would train
    # the same ones.
    packed = pickle.dumps(argument)
    processes = [
        context.Process(target=_serve_rank, args=(work, packed, rank, ranks, port, threads, messages, stop))
        for rank in range(ranks)
    ]
    try:
        for process in processes:
            process.start()
        while (message := _await_message(messages, processes)) is not None:
            if isinstance(message, BaseException):
                raise message
            if stopped():
                stop.set()
            if message:
                report(message)
        for process in processes:
            process.join(_PATIENCE)
    finally:
        _kill_all(processes)


def _await_message(messages: Queue[Any], processes: list[SpawnProcess]) -> Any:
    """Return the next message, or an empty one after a short wait."""
    try:
        return messages.get(timeout=0.1)
    except queue.Empty:
        pass
    dead = [(rank, process.exitcode) for rank, process in enumerate(processes) if process.exitcode not in (None, 0)]
    if not dead:
        return {}
    try:  # a rank sends its reason before it exits, and the others exit because of it
        return messages.get(timeout=1.0)
    except queue.Empty:
        rank, code = dead[0]
        raise ProcessLostError(
            f"process {rank} of {len(processes)} ended with code {code}; start it again and it goes on"
        ) from None


def _kill_all(processes: list[SpawnProcess]) -> None:
    """Kill what still runs: files are atomic, and a rank may be waiting for one that is gone."""
    for process in processes:
        if process.pid is not None:
            process.kill()
            process.join()


def _serve_rank(
    work: Work, packed: bytes, rank: int, ranks: int, port: int, threads: int, messages: Queue[Any], stop: Event
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # these may reach the whole group; the parent decides
        signal.signal(number, signal.SIG_IGN)
    _end_with_parent()
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(ranks),
        "NODE_RANK": "0",
        "LOCAL_RANK": str(rank),
    }
    torch.set_num_threads(threads)
    first = rank == 0
    try:
        argument = pickle.loads(packed)  # noqa: S301 - the parent has packed it
        work(argument, messages.put if first else discard_figures, stop.is_set)
    except OncoshiftError as error:
        messages.put(error)
        raise SystemExit(1) from None
    except BaseException as error:
        messages.put(ProcessLostError(f"process {rank} of {ranks} failed: {type(error).__name__}: {error}"))
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    if first:
        messages.put(None)


def discard_figures(row: dict[str, float]) -> None:
    """Discard figures; a hook that can be pickled."""


def _end_with_parent() -> None:
    """End this process when its parent ends, since a killed parent cannot end its children."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
