"""A flow that does little: it takes a place in both limits, and writes to MLflow twice."""

from __future__ import annotations

import os
import time
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows import PROJECT
from flows.endings import ending_in_a_state
from flows.runs import ensure_gpu_limit, holding_gpu
from oncoshift.experiments import resolve_tracking_uri
from oncoshift.registry.tracking import Tracker
from oncoshift.settings import load_settings


@flow(name="small")
@ending_in_a_state
def small(seconds: float = 15, name: str = "small") -> State[Any]:
    """Hold the limits for a while.

    Args:
        seconds: for how long.
        name: of its run in MLflow, and of the file in the project that tells of its process.
    """
    tracking = load_settings(PROJECT / "params.yaml").tracking
    tracker = Tracker(resolve_tracking_uri(PROJECT, tracking, os.environ), "small")
    ensure_gpu_limit()
    with holding_gpu(str(flow_run.id), print):
        run = tracker.find_or_start_run(str(flow_run.id), name)
        (PROJECT / f"{name}.pid").write_text(str(os.getpid()))
        time.sleep(seconds)
        tracker.finish(run)
    return Completed(name="Done")
