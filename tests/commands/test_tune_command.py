"""`oncoshift tune` checks its options first, and hands its results to the retraining."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.cli import main
from oncoshift.retraining import prepare
from oncoshift.settings import Settings, dump_settings, replace_values

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_store_that_is_away_is_told_before_the_data_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = replace_values(Settings(), {"ingest.adapter": "phantom", "tracking.uri": "http://127.0.0.1:1"})
    (tmp_path / "params.yaml").write_text(dump_settings(settings), encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")  # so that pytest restores what the code sets
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    steps: list[str] = []
    monkeypatch.setattr(prepare, "prepare_data", lambda _plan: steps.append("data"))
    monkeypatch.setattr("oncoshift.training.interruption.stop_on_sigterm", lambda: None)
    assert main(["tune", "--trials", "2"]) == 69
    assert "http://127.0.0.1:1: no MLflow server answers" in capsys.readouterr().err
    assert steps == []
