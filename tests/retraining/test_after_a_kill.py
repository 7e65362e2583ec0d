"""A retraining repairs and removes what a killed one left, before it trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from oncoshift.layout import Layout
from oncoshift.retraining import prepare
from oncoshift.retraining.session import RetrainingPlan
from oncoshift.settings import Settings, replace_values
from oncoshift.steps.jobs import ExperimentJobs

REPOSITORY = Path(__file__).resolve().parents[2]


def force(project: Path, said: list[str]) -> str:
    """Make a plan for a forced retraining, and return its stamp."""
    plan = prepare.make_plan(project, preset=None, overrides=(), force=True, environ={}, say=said.append)
    return plan.forced


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text((REPOSITORY / "params.yaml").read_text())
    return tmp_path


def test_a_forced_retraining_that_was_killed_goes_on_as_the_same(project: Path) -> None:
    said: list[str] = []
    stamp = force(project, said)
    assert (project / "runs" / "forced.txt").read_text() == stamp
    assert force(project, said) == stamp
    assert said == []


@pytest.mark.parametrize("content", [b"", b"2026112", b"\xff\x00", b"../../elsewhere", b"20261126T101010\n"])
def test_a_damaged_stamp_is_told_and_made_again(project: Path, content: bytes) -> None:
    """An empty stamp would make the retraining one that is not forced."""
    path = project / "runs" / "forced.txt"
    path.parent.mkdir()
    path.write_bytes(content)
    said: list[str] = []
    stamp = force(project, said)
    assert prepare._STAMP.fullmatch(stamp)
    assert path.read_text() == stamp
    assert len(said) == 1
    assert said[0].startswith(f"{path}: damaged: ")


def test_a_retraining_sweeps_what_killed_ones_left_in_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / "runs" / "jobs" / "dann-s0-of-another-time" / ".checkpoint.pt.4711.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(100))
    kept = left.with_name("checkpoint.pt")
    kept.touch()
    (tmp_path / "runs" / ".best.yaml.4711.tmp").touch()
    for name in ("version_raw", "repro"):
        monkeypatch.setattr(prepare, name, lambda *_: None)
    layout, settings = Layout(tmp_path), replace_values(Settings(), {"ingest.adapter": "folder"})
    jobs = ExperimentJobs(layout, "none", settings.sources, "data", "pack", layout.jobs)
    monkeypatch.setattr(prepare, "open_jobs", lambda _plan: jobs)
    assert prepare.prepare_data(RetrainingPlan(tmp_path, layout, settings, "sqlite://", "", print)) == jobs
    assert list(left.parent.iterdir()) == [kept]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["jobs"]
