"""Logs are one JSON object a line where that is asked for; what programs read stays as it is."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from oncoshift import logs
from oncoshift.logs import FORMAT_VARIABLE, JsonFormatter, JsonLines, format_line

if TYPE_CHECKING:
    from pathlib import Path


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "oncoshift.cli", *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def parse(text: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in text.splitlines()]
    assert all(list(line) == ["time", "level", "step", "message"] for line in lines)
    return lines


def test_what_a_command_says_is_json_and_so_is_its_error(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(
        "phantom: {organs: [lung, kidney], groups_per_class: 2, tiles_per_group: 1}\n"
    )
    done = run(tmp_path, "phantom", "--log-format", "json", "--set", "target=kidney", "--set", "sources=[lung]")
    assert done.returncode == 0, done.stderr
    (said,) = parse(done.stdout)
    assert (said["level"], said["step"]) == ("info", "phantom")
    assert said["message"].startswith("phantom: written to")
    assert all(line["message"].startswith("phantom: ") for line in parse(done.stderr))  # progress
    failed = run(tmp_path, "split", **{FORMAT_VARIABLE: "json"})
    assert failed.returncode == 2
    (error,) = parse(failed.stderr)
    assert (error["level"], error["step"]) == ("error", "split")


def test_data_on_stdout_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: 3\n")
    assert "seed: 3" in run(tmp_path, "settings", **{FORMAT_VARIABLE: "json"}).stdout.splitlines()


def test_a_print_of_several_lines_is_one_object_and_json_passes() -> None:
    stream = io.StringIO()
    lines = JsonLines(stream)
    print("a table\nof two lines", file=lines)
    print("half", end="", file=lines)
    print(" and half", file=lines)
    print(format_line("info", "ready"), file=lines)
    print("warning: http://me:secret@host is away", file=lines)
    print(file=lines)
    shown = parse(stream.getvalue())
    assert [line["message"] for line in shown] == [
        "a table\nof two lines",
        "half and half",
        "ready",
        "warning: http://host is away",
    ]
    assert [line["level"] for line in shown] == ["info", "info", "info", "warning"]


def test_a_record_has_its_level_step_and_traceback() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    token = logs.step.set("train-dann-s0")
    try:
        raise ValueError("a fault")
    except ValueError:
        logger.exception("it %s", "broke")
    finally:
        logs.step.reset(token)
    logger.warning("slow", extra={"task_run_name": "train-dann-1"})
    broke, slow = parse(stream.getvalue())
    assert (broke["level"], broke["step"]) == ("error", "train-dann-s0")
    assert broke["message"].startswith("it broke\nTraceback")
    assert broke["message"].endswith("ValueError: a fault")
    assert (slow["level"], slow["step"], slow["message"]) == ("warning", "train-dann-1", "slow")


@pytest.mark.parametrize("value", ["", "text"])
def test_text_is_the_default(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORMAT_VARIABLE, value)
    before = sys.stdout, sys.stderr
    logs.log_as_json()
    assert (sys.stdout, sys.stderr) == before
