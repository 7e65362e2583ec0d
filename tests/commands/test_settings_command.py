"""`oncoshift settings` prints the settings, and the schema with which editors check them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from oncoshift.cli import main
from oncoshift.methods.registry import METHODS
from oncoshift.settings import Settings, load_settings

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def schema(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)  # no project is needed
    assert main(["settings", "--schema"]) == 0
    return json.loads(capsys.readouterr().out)


def test_settings_are_printed_as_a_command_would_use_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "params.yaml").write_text("train: {epochs: 3}\n")
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "quick.yaml").write_text("train: {lr: 0.5}\n")
    given = ["--params", str(tmp_path / "params.yaml"), "--preset", "quick", "--set", "seed=7"]
    assert main(["settings", *given]) == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    printed = load_settings(tmp_path / "printed.yaml")
    assert (printed.train.epochs, printed.train.lr, printed.seed) == (3, 0.5, 7)
    assert yaml.safe_load((tmp_path / "printed.yaml").read_text()).keys() == Settings.model_fields.keys()


@pytest.mark.parametrize("file", ["params.yaml", "presets/demo.yaml", "presets/paper.yaml", "presets/real.yaml"])
def test_the_projects_files_satisfy_the_schema(schema: Any, file: str) -> None:
    jsonschema.validate(yaml.safe_load((PROJECT / file).read_text(encoding="utf-8")), schema)


@pytest.mark.parametrize(
    "wrong", [{"train": {"method": "dan"}}, {"train": {"metod": "dann"}}, {"trian": {}}, {"split": {"val_share": 2}}]
)
def test_the_schema_refuses_what_settings_refuse(schema: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def test_the_schema_names_what_is_allowed_and_describes_every_setting(schema: Any) -> None:
    sections = {"": schema, **schema["$defs"]}
    assert sections["TrainSettings"]["properties"]["method"]["enum"] == list(METHODS)
    plain = [
        f"{section}.{name}"
        for section, content in sections.items()
        for name, setting in content["properties"].items()
        if "$ref" not in setting and not setting.get("description")
    ]
    assert plain == []
    assert all(content["description"] for content in sections.values())
