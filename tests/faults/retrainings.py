"""Tiny retrainings, each in a process forked from this one, which has imported all it needs.

The imports of a retraining take longer than a tiny retraining itself. The forked process is as real
as a started one: it opens its own store, holds its own locks, and starts DVC; it can be killed.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import shutil
import signal
import sys
from collections import Counter
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from faults.moments import Clock, Moment
from support.tiny_settings import TINY

from oncoshift.experiments import hold_experiment
from oncoshift.phantom.write import write_phantom
from oncoshift.program import run_program
from oncoshift.retraining import prepare, recipe, recorded
from oncoshift.retraining.recipe import Steps
from oncoshift.settings import PhantomSettings
from oncoshift.training.interruption import stop_on_sigterm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from multiprocessing.connection import Connection

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = tuple(field.name for field in fields(Steps))

_SETTINGS: dict[str, Any] = TINY | {
    "ingest": {"adapter": "folder"},
    "train": {"epochs": 3, "steps_per_epoch": 3, "batch_size": 8, "threads": 1},
    "tune": {"trials": 2, "epochs": 1, "heartbeat_seconds": 1},
    "retrain": {"seeds": 1, "methods": ["dann", "mcc"], "screen_seeds": 1},
    "gate": TINY["gate"] | {"non_inferiority_margin": 1.0},  # each retraining promotes its version
    "tracking": {"system_metrics": False},
}


@dataclass(frozen=True)
class End:
    """How a process ended.

    Attributes:
        code: exit code; negative for a signal.
        counts: operations by stage; empty if it was killed.
        seconds: time by stage; empty if it was killed.
        output: what it printed.
    """

    code: int
    counts: Counter[str]
    seconds: Mapping[str, float]
    output: str


class Project:
    """A project in a folder, with a data set that grows.

    Args:
        root: its folder; made here.
        environ: variables of its retrainings, over those of this process.
    """

    def __init__(self, root: Path, environ: Mapping[str, str] | None = None) -> None:
        self.root, self.environ, self.raw = root, dict(environ or {}), root.parent / "raw"
        root.mkdir(parents=True)
        shutil.copy(REPOSITORY / "dvc.yaml", root)
        shutil.copytree(
            REPOSITORY / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local")
        )
        self.settings = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
        self.change(_SETTINGS | {"ingest": {"adapter": "folder", "root": str(self.raw)}})

    @property
    def uri(self) -> str:
        """Address of its MLflow store."""
        return self.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{self.root}/mlruns/mlflow.db")

    @property
    def log(self) -> Path:
        """File that holds what its retrainings have printed."""
        return self.root / "retrain.log"

    def said(self) -> str:
        """Read what its retrainings have printed so far."""
        return self.log.read_text(errors="replace")

    def change(self, values: Mapping[str, Any]) -> None:
        """Change settings; sections are merged."""
        for key, value in values.items():
            self.settings[key] = {**self.settings[key], **value} if isinstance(value, dict) else value
        (self.root / "params.yaml").write_text(yaml.safe_dump(self.settings))

    def grow(self, groups: int) -> None:
        """Bring the data set, which projects of one folder share, to so many groups of a class."""
        organs = ("lung", "colon", "kidney")
        phantom = PhantomSettings(organs=organs, tile_size=32, groups_per_class=groups, tiles_per_group=3)
        drawn = self.raw.with_name("phantom")
        write_phantom(phantom, drawn)
        for organ in organs:  # without the marker, by which the platform would take it for its own made-up data
            shutil.copytree(drawn / organ, self.raw / organ, dirs_exist_ok=True)

    def retrain(
        self, moment: Moment | None = None, meanwhile: Callable[[int], None] | None = None, *, with_data: bool = True
    ) -> End:
        """Retrain in a process of its own, to its end.

        Args:
            moment: when the fault comes; None for none.
            meanwhile: causes the fault, given the process's id, which waits; by default the process
                and its children are killed.
            with_data: whether to bring the data up to date, for which DVC takes longest of all.
        """
        here, there = multiprocessing.Pipe()
        self.log.touch()
        begun = self.log.stat().st_size
        gc.collect()
        data = prepare.prepare_data if with_data else prepare.open_jobs
        process = multiprocessing.get_context("fork").Process(
            target=_live, args=(self.root, self.environ, self.log, there, moment, meanwhile is None, data)
        )
        process.start()
        there.close()
        counts: Counter[str] = Counter()
        seconds: dict[str, float] = {}
        try:
            while True:
                said = here.recv()
                if said == "now":
                    assert meanwhile is not None
                    meanwhile(process.pid or 0)
                    here.send("go on")
                else:
                    counts, seconds = said
        except EOFError:
            process.join()
        return End(process.exitcode or 0, counts, seconds, self.log.read_bytes()[begun:].decode(errors="replace"))


def _live(
    root: Path,
    environ: dict[str, str],
    log: Path,
    pipe: Connection,
    moment: Moment | None,
    kills: bool,
    data: Callable[..., Any],
) -> None:
    """Retrain, in the forked process."""
    os.setsid()
    with log.open("ab", buffering=0) as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    logging.getLogger().handlers.clear()  # those of pytest, which keep a warning from the log
    os.environ.update(environ)
    os.chdir(root)

    def act() -> None:
        if kills:
            os.killpg(0, signal.SIGKILL)
        pipe.send("now")
        pipe.recv()

    clock = Clock(moment, act)
    code = run_program(lambda: _retrain(root, clock, data))
    clock.enter("")
    pipe.send((clock.counts, dict(clock.seconds)))
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _retrain(root: Path, clock: Clock, data: Callable[..., Any]) -> None:
    def marking(stage: str, step: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(step)
        def call(*arguments: Any) -> Any:
            clock.enter(stage)
            print(f"== {stage}", flush=True)
            return step(*arguments)

        return call

    def say(line: str) -> None:
        print(line, flush=True)

    stop_on_sigterm()
    work: dict[str, Callable[..., Any]] = {stage: getattr(recorded, stage, data) for stage in STAGES}
    steps = Steps(**{stage: marking(stage, step) for stage, step in work.items()})
    plan = prepare.make_plan(root, preset=None, overrides=(), force=False, environ=os.environ, say=say)
    with hold_experiment(plan.layout):
        outcome = recipe.retrain(plan, steps)
    print(f"== {outcome.name}: {outcome.champion}", flush=True)
