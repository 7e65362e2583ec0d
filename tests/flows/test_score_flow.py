"""The scoring flow passes its parameters on, and its command line needs one input and an output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from flows import PROJECT
from flows import score as module
from flows.parameters import load_chosen_settings
from oncoshift.registry.loading import ModelIdentity
from oncoshift.scoring.job import Outcome
from oncoshift.scoring.output import Totals

if TYPE_CHECKING:
    from pathlib import Path

OUTCOME = Outcome(ModelIdentity("oncoshift-kidney", "3", "a" * 64), 2, Totals(5, 2, 3, 0, 0, None, None), None)


def test_paths_are_within_the_project_and_the_model_is_the_champion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Mock(return_value=OUTCOME)
    monkeypatch.setattr(module, "run_scoring", run)
    monkeypatch.setattr(module, "get_run_logger", Mock())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")
    settings = load_chosen_settings({"target": "lung", "overrides": ["sources=[colon]"]}, trusted=True)
    module.score_project_tiles("new", str(tmp_path / "scores.parquet"), None, settings)
    source, out, uri, store, experiment, _ = run.call_args.args
    assert (source, out) == (PROJECT / "new", tmp_path / "scores.parquet")
    assert (uri, store, experiment) == ("models:/oncoshift-lung@champion", "http://mlflow", "oncoshift")


@pytest.mark.parametrize("argv", [["tiles"], ["tiles", "more", "--out", "scores.parquet"]])
def test_the_command_line_needs_one_input_and_an_output(argv: list[str], capsys: Any) -> None:
    assert module.main(argv) == 2
    assert "takes one folder, CSV or archive and --out FOLDER" in capsys.readouterr().err
