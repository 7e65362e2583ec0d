"""Prefect's form for a retraining offers methods and presets to choose from, with descriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import pytest
from prefect.runtime import flow_run
from pydantic import TypeAdapter, ValidationError

from flows import retrain, score
from flows.parameters import OneOfPresent, collect_overrides, list_presets, load_chosen_settings
from oncoshift.errors import SettingsError
from oncoshift.methods.registry import METHODS

if TYPE_CHECKING:
    from pathlib import Path


def test_the_form_says_what_can_be_chosen() -> None:
    fields = retrain.retrain.parameters.properties
    assert list(fields) == ["target", "sources", "method", "preset", "overrides", "force", "name"]
    assert fields["method"]["anyOf"][0]["enum"] == list(METHODS)
    assert {"demo", "paper", "real"} <= set(fields["preset"]["anyOf"][0]["enum"])
    assert "pattern" in fields["target"]["anyOf"][0]
    assert all(field["description"] for flow in (retrain.retrain, score.score) for field in fields_of(flow).values())


def fields_of(flow: Any) -> dict[str, Any]:
    fields: dict[str, Any] = flow.parameters.properties
    return fields


def test_results_of_tuning_are_presets(tmp_path: Path) -> None:
    for name in ("presets/demo.yaml", "runs/best.yaml", "experiments/a/runs/best.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list_presets(tmp_path) == ("demo", "experiments/a/runs/best.yaml", "runs/best.yaml")


def test_a_project_without_presets_has_a_form() -> None:
    preset = TypeAdapter(Annotated[str, OneOfPresent(())] | None)
    assert preset.validate_python("any") == "any"
    with pytest.raises(ValidationError):
        TypeAdapter(Annotated[str, OneOfPresent(("real",))]).validate_python("any")


def test_parameters_are_overrides_and_the_last_word_is_the_overrides() -> None:
    chosen = {"target": "lung", "sources": ["colon", "breast"], "method": "mcc", "overrides": ["train.method=cdan"]}
    assert collect_overrides(**chosen) == (  # type: ignore[arg-type]
        "target=lung",
        "sources=[colon, breast]",
        "train.method=mcc",
        "train.method=cdan",
    )
    settings = load_chosen_settings({**chosen, "preset": "real", "force": True}, trusted=False)
    assert (settings.target, settings.sources, settings.train.method) == ("lung", ("colon", "breast"), "cdan")


def test_a_run_is_named_by_its_target_also_if_its_parameters_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, name in (({}, "retrain kidney"), ({"target": "lung", "sources": ["colon"]}, "retrain lung")):
        monkeypatch.setattr(flow_run, "parameters", given, raising=False)
        assert retrain.name_retraining() == name
    monkeypatch.setattr(flow_run, "parameters", {"preset": "nope"}, raising=False)
    assert retrain.name_retraining() == "retrain"


def test_a_run_of_a_server_reads_no_file_outside_the_project(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("seed: 1\n")
    given = {"preset": str(tmp_path / "other.yaml")}
    assert load_chosen_settings(given, trusted=True).seed == 1
    with pytest.raises(SettingsError, match="lies outside"):
        load_chosen_settings(given, trusted=False)
