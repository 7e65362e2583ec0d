"""Servers and workers that go away while a retraining needs them, and come back."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
from faults.moments import Moment
from faults.retrainings import Project
from faults.servers import MlflowServer
from faults.stock import check_whole, take_stock
from support.lossy import losing_answers
from support.postgresql import running_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_GROUPS = 8
_BACK = re.compile(r"answers again, after (\d+) s")
_MOMENTS = (Moment("train", 40), Moment("register", 25), Moment("gate", 12))


def lose_tracking_server(folder: Path, seconds: float) -> dict[str, int]:
    """Kill the MLflow server in training, registration and gate of three retrainings.

    Args:
        folder: for the projects; exists.
        seconds: for which it is away, each time.

    Returns:
        By step, for how many seconds the retraining waited.
    """
    waited = {}
    with MlflowServer(folder / "server") as server:
        project = Project(folder / "project", {"MLFLOW_TRACKING_URI": server.uri})
        twin = Project(folder / "twin")
        for number, moment in enumerate(_MOMENTS):
            project.grow(_GROUPS + number)
            assert twin.retrain().code == 0
            with _returning(server.kill, server.start, seconds) as leave:
                end = project.retrain(moment, leave)
            assert end.code == 0, end.output
            waited[moment.stage] = max(int(found) for found in _BACK.findall(end.output))
        check_whole(take_stock(project), take_stock(twin))
    return waited


def lose_answers(folder: Path, share: float) -> int:
    """Retrain on an MLflow server that does what it is asked and loses a share of its answers.

    Returns:
        The number of answers that were lost.
    """
    with MlflowServer(folder / "server") as server, losing_answers(server.uri, share) as lossy:
        project = Project(folder / "project", {"MLFLOW_TRACKING_URI": lossy.uri})
        twin = Project(folder / "twin")
        project.grow(_GROUPS)
        assert twin.retrain().code == 0
        end = project.retrain()
        assert end.code == 0, end.output
        project.environ["MLFLOW_TRACKING_URI"] = server.uri
        check_whole(take_stock(project), take_stock(twin))
        return lossy.lost


def restart_postgresql(folder: Path, mode: str, seconds: float) -> None:
    """Restart the studies' PostgreSQL under two workers, one of which is then killed.

    Args:
        folder: for the project; exists.
        mode: of `pg_ctl stop`: `fast`, or `immediate` for a crash.
        seconds: for which it is away.
    """
    study = {"workers": 2, "trials": 6, "epochs": 3}
    with running_server() as server:
        project = Project(folder / "project")
        project.change({"tune": {**study, "storage": server.url}})
        project.grow(_GROUPS)

        def stop(pid: int) -> None:
            threading.Thread(target=go, args=(pid,)).start()

        def go(pid: int) -> None:
            while len(workers := _find_workers(pid)) < study["workers"] or "trial 0" not in project.said():
                time.sleep(0.2)
            server.stop(mode)
            time.sleep(seconds)
            server.start()
            os.kill(workers[0], signal.SIGKILL)

        end = project.retrain(Moment("tune"), stop)
        assert end.code == 0, end.output
        assert "was killed by SIGKILL" in end.output
        (trials,) = take_stock(project).trials.values()
        assert [number for number, _, _ in trials] == list(range(study["trials"]))
        assert {state for _, state, _ in trials} <= {"COMPLETE", "PRUNED"}


@contextmanager
def _returning(
    leave: Callable[[], None], come_back: Callable[[], None], seconds: float
) -> Iterator[Callable[[int], None]]:
    """Yield a function that makes a server leave, and come back later while its caller goes on."""
    returning: list[threading.Timer] = []

    def go(_: int) -> None:
        leave()
        returning.append(threading.Timer(seconds, come_back))
        returning[-1].start()

    yield go
    for timer in returning:
        timer.join()


def _find_workers(pid: int) -> list[int]:
    children = psutil.Process(pid).children(recursive=True)
    return [child.pid for child in children if "oncoshift.retraining.workers" in child.cmdline()]
