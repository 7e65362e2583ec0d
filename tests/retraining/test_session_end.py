"""A step's run ends with the right status."""

from __future__ import annotations

from unittest.mock import Mock, call

import pytest

from oncoshift.errors import TrainingInterrupted
from oncoshift.registry.tracking import Tracker
from oncoshift.steps.recorder import RunRecorder


def wrapped_stop() -> None:
    """Raise a library's error that hides a stop in the middle of its work."""
    try:
        raise TrainingInterrupted("asked to stop")
    except TrainingInterrupted as stop:
        raise OSError(f"download failed: {stop}") from None


def test_a_stop_of_which_a_library_made_an_error_of_its_own_is_a_stop() -> None:
    tracker = Mock(spec=Tracker)
    tracker.find_or_start_run.return_value = "run"
    recorder = RunRecorder(tracker, "parent", "key")
    with pytest.raises(TrainingInterrupted), recorder.step("explain"):
        wrapped_stop()
    with pytest.raises(OSError, match="disk full"), recorder.step("explain"):
        raise OSError("disk full")
    failed = {"oncoshift.error": "OSError: disk full"}
    assert tracker.abandon.call_args_list == [call("run", "KILLED", {}), call("run", "FAILED", failed)]
    tracker.finish.assert_not_called()
