"""`oncoshift compare` lists retrainings so that rows can be told apart and figures compared."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from oncoshift.cli import main
from oncoshift.registry.history import GATE_TAG
from oncoshift.registry.promotion import promote
from oncoshift.registry.tracking import Tracker
from oncoshift.settings import Settings, dump_settings, replace_values

if TYPE_CHECKING:
    from pathlib import Path

LONG = "retrain-kidney-" + "a-name-as-long-as-a-person-likes-" * 4
ONE, OTHER = "1" * 32, "2" * 32
SEEDS = {f"{LONG}1": "0", f"{LONG}2": "0", "[/b]": "3, 4"}

VERSIONS = {f"{LONG}1": "1", f"{LONG}2": "2", "[/b]": "3"}

EXPERIMENTS = {"[/b]": {"oncoshift.experiment": "real-[lung]"}}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with retrainings of kidney on two test sets, and an unfinished one."""
    root = tmp_path_factory.mktemp("project")
    uri = f"sqlite:///{root}/mlflow.db"
    settings = replace_values(Settings(), {"tracking.uri": uri, "tracking.experiment": "tests"})
    (root / "params.yaml").write_text(dump_settings(settings), encoding="utf-8")
    (root / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    tracker = Tracker(uri, "tests")
    for name, test_set, accuracy in ((f"{LONG}1", ONE, 0.75), (f"{LONG}2", ONE, 0.5), ("[/b]", OTHER, 0.25)):
        tags = {"oncoshift.step": "retrain", "oncoshift.target": "kidney", "oncoshift.gate": "promote"}
        run = tracker.find_or_start_run(name, name, tags=tags | EXPERIMENTS.get(name, {}))
        tracker.log_params(run, {"method": "dann", "control": "erm", "trunk": "resnet18", "seeds": SEEDS[name]})
        figure = "target/balanced_accuracy"
        interval = {f"{figure}_low": 0.125, f"{figure}_high": 1.0} if name != "[/b]" else {}  # groups are few there
        tracker.log_metrics(run, [(0, 0, {figure: accuracy, **interval})])
        tracker.set_tags(run, {"oncoshift.version": VERSIONS[name]})
        tracker.log_input(run, "test", test_set, "data/splits/test.parquet", "test")
        tracker.finish(run)
    tracker.find_or_start_run("unfinished", "unfinished", tags=tags)
    tracker.client.create_registered_model("oncoshift-kidney")
    for number in VERSIONS.values():
        made = {GATE_TAG: "refuse" if number == "3" else "promote"}
        tracker.client.create_model_version("oncoshift-kidney", "file:///nowhere", tags=made)
        promote(tracker.client, "oncoshift-kidney", number, "a person says so", "anna", force=True)
    return root


def compare(project: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["compare", "--params", str(project / "params.yaml"), *options]) == 0
    return capsys.readouterr().out


def test_names_are_whole_and_any_text_is_shown_as_it_is(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = compare(project, capsys).splitlines()
    for name in (f"{LONG}1", f"{LONG}2", "[/b]"):
        assert sum(name in line for line in lines) == 1
    assert "unfinished" not in "".join(lines)


def test_an_experiment_is_named_where_there_is_one(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        [cell.strip() for cell in line.split("│")] for line in compare(project, capsys).splitlines() if "│" in line
    ]
    assert {cells[1]: cells[2] for cells in lines if cells[1] in SEEDS} == {
        f"{LONG}1": "",
        f"{LONG}2": "",
        "[/b]": "real-[lung]",
    }


def test_seeds_are_counted_since_the_seed_zero_alone_reads_as_none(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = compare(project, capsys)
    assert text.count("1 (0)") == 2
    assert text.count("2 (3, 4)") == 1


def test_an_estimate_without_an_interval_is_shown_as_such(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = compare(project, capsys)
    assert text.count("dann 0.250 (few groups)") == 1
    assert text.count("dann 0.750 [0.125, 1.000]") == 1
    rows = {row["run"]: row for row in json.loads(compare(project, capsys, "--json"))}
    assert rows["[/b]"]["method_accuracy"] == {"point": 0.25, "low": None, "high": None}


def test_a_promotion_that_was_forced_past_the_gate_is_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["run"]: row for row in json.loads(compare(project, capsys, "--json"))}
    assert {name: row["forced"] for name, row in rows.items()} == {f"{LONG}1": "", f"{LONG}2": "", "[/b]": "anna"}
    assert compare(project, capsys).count(", forced by anna") == 1


def test_in_a_narrow_terminal_names_are_folded_and_not_cut(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    text = compare(project, capsys)
    assert "…" not in text
    cells = [line.split("│")[1].strip() for line in text.splitlines() if "│" in line]
    assert f"{LONG}1" in "".join(cells)


def test_different_test_sets_are_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = compare(project, capsys)
    assert text.count(ONE[:8]) == 2
    assert text.count(OTHER[:8]) == 1
    assert text.splitlines()[-1].startswith("! not all were measured on the same test set")


def test_json_has_everything_with_all_digits(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["run"]: row for row in json.loads(compare(project, capsys, "--json"))}
    assert set(rows) == {f"{LONG}1", f"{LONG}2", "[/b]"}
    first = rows[f"{LONG}1"]
    assert first["method_accuracy"] == {"point": 0.75, "low": 0.125, "high": 1.0}
    assert (first["method"], first["control_accuracy"], first["gate"]) == ("dann", None, "promote")
    assert first["test_set"] == ONE


def test_where_there_is_none_it_says_so_and_what_to_do(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = compare(project, capsys, "--set", "target=skin")
    assert text.startswith("no retraining of skin has finished yet: `oncoshift retrain` does one")
    assert json.loads(compare(project, capsys, "--set", "target=skin", "--json")) == []
