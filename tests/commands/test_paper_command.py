"""`oncoshift paper --list` says what would be trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oncoshift.cli import main
from oncoshift.settings import Settings, dump_settings, replace_values

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("seeds", "words"), [(1, "one seed"), (3, "3 seeds")])
def test_rows_are_listed_with_the_number_of_their_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seeds: int, words: str
) -> None:
    settings = replace_values(Settings(), {"retrain.seeds": seeds})
    (tmp_path / "params.yaml").write_text(dump_settings(settings), encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["paper", "--list"]) == 0
    assert f" rows of {words} each, and " in capsys.readouterr().err
