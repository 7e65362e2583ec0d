"""Libraries' environment variables are set before import, but never over the user's own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import oncoshift.serving

PRINT = "import sys, os, oncoshift; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"


@pytest.mark.parametrize(("own", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(own: dict[str, str], expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | own
    printed = subprocess.run(
        [sys.executable, "-c", PRINT], env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert printed.split() == [expected, "False"]


def test_mlflow_tells_nobody_of_its_use() -> None:
    look = "import oncoshift.registry.client, mlflow.telemetry.utils as t; print(t.is_telemetry_disabled())"
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_DISABLE_TELEMETRY"}
    printed = subprocess.run(
        [sys.executable, "-c", look], env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert printed == "True\n"


@pytest.mark.parametrize("part", [oncoshift.__file__, oncoshift.serving.__file__])
def test_onnx_runtime_sends_no_telemetry_in_training_nor_where_a_model_is_served(part: str) -> None:
    look = f"import os, runpy; runpy.run_path({part!r}); print(os.environ.get('ORT_DISABLE_TELEMETRY'))"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    printed = subprocess.run(
        [sys.executable, "-c", look], env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert printed == "1\n", "a registered model has the package's part `serving` alone"
