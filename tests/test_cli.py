"""The command line runs stages by name, and reports errors without a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from support.tiny_tiles import write_tree

from oncoshift.cli import COMMANDS, Command, build_parser, main
from oncoshift.commands import retraining
from oncoshift.commands.context import Context
from oncoshift.experiments import prepare_experiment
from oncoshift.layout import SPLITS, Layout
from oncoshift.settings import Settings, dump_settings, load_settings, replace_values

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from typing import Any


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    write_tree(tmp_path / "data" / "raw", groups=6, tiles=1)
    changes = {"sources": ["lung", "colon"], "ingest.adapter": "folder", "normalize.tile_size": 32}
    (tmp_path / "params.yaml").write_text(dump_settings(replace_values(Settings(), changes)), encoding="utf-8")
    return tmp_path


def test_the_data_stages_run_one_after_the_other(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(experiment)
    assert [main([stage]) for stage in ("ingest", "split", "normalize")] == [0, 0, 0]
    layout = Layout(experiment)
    assert {path.stem for path in layout.splits.iterdir()} == set(SPLITS)
    assert {path.name for path in layout.packs.glob("*/")} == {"none", "reinhard"}
    printed = capsys.readouterr()
    assert "ingest: 36 tiles, 0 quarantined" in printed.out
    assert "normalize: reinhard: 36/36" in printed.err


def test_params_may_lie_elsewhere_and_be_overridden(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = ["--params", str(experiment / "params.yaml")]
    assert main(["ingest", *params]) == 0
    assert main(["split", *params, "--set", "split.test_share=0", "--set", "split.audit_share=0.5"]) == 0
    assert "test 0:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "split.sed=1"], "error: split.sed: unknown key; allowed here: val_share"),
        (["--preset", "none-such"], "error: --preset none-such: unknown"),
        (["--set", "target=liver"], "error: no tiles of liver"),
    ],
)
def test_errors_are_one_message_and_exit_code_2(
    experiment: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    params = ["--params", str(experiment / "params.yaml")]
    main(["ingest", *params])
    capsys.readouterr()
    assert main(["split", *params, *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(message)
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_missing_params_say_where_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ingest", "--params", str(tmp_path / "params.yaml")]) == 2
    assert "run from the folder that has params.yaml" in capsys.readouterr().err


def make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the disk roomy, as `oncoshift doctor` warns of one that is nearly full."""
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=1e12))


def test_a_command_finds_the_project_around_it(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Inside an experiment it finds that experiment, since DVC runs the stages there."""
    (experiment / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    inner = prepare_experiment(experiment, load_settings(experiment / "params.yaml"), "inner").folder
    for folder, place in ((experiment, experiment), (experiment / "data" / "raw", experiment), (inner / ".dvc", inner)):
        monkeypatch.chdir(folder)
        assert Context(build_parser().parse_args(["ingest"])).layout.folder.resolve() == place
        assert Context(build_parser().parse_args(["ingest"])).project == experiment
    assert main(["ingest"]) == 0
    assert (inner / "data" / "tiles" / "tiles.parquet").is_file()
    assert not (experiment / "data" / "tiles").exists()
    monkeypatch.chdir(experiment / "data")
    make_room(monkeypatch)
    assert main(["doctor"]) == 0
    assert f"project: {experiment}" in capsys.readouterr().out


def test_params_that_are_given_win_over_those_around(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(experiment / "data")
    given = build_parser().parse_args(["ingest", "--params", "other.yaml"])
    assert Context(given).params == Path("other.yaml")


def test_doctor_fails_where_no_tile_has_the_target_and_says_what_there_is(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (experiment / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    monkeypatch.chdir(experiment)
    make_room(monkeypatch)
    assert main(["doctor", "--set", "target=skin"]) == 2
    printed = capsys.readouterr()
    assert "12 tiles of colon, 12 tiles of kidney, 12 tiles of lung" in printed.out
    missing = (
        "no tiles of skin, which target or sources names; of domains (organs or hospitals) the data set has colon, "
        "kidney, lung"
    )
    assert printed.err == f"error: {missing}\n"
    assert main(["doctor", "--json", "--set", "target=skin"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == [missing]
    assert found["settings"].startswith("valid; skin from lung, colon")


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"oncoshift {version('oncoshift')}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_every_command(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--print-completion", shell])
    script = capsys.readouterr().out
    assert [command.name for command in COMMANDS if command.name not in script] == []


def test_every_command_takes_the_common_options() -> None:
    parser = build_parser()
    needed = {"promote": ["1", "--reason", "tested"], "rollback": ["--reason", "tested"], "score": ["tile.png"]}
    needed |= {"groups": ["tiles"], "leaks": ["splits"], "pull": ["--dest", "out"], "webhook": ["list"]}
    needed |= {"approve": ["1", "--reason", "tested"], "backup": ["copy"], "restore": ["copy"], "watch": ["tiles"]}
    needed |= {"user": ["anna", "--role", "reader"], "label": ["apply"]}
    for command in COMMANDS:
        options = ["--preset", "demo", "--set", "seed=1", "--set", "target=skin"]
        given = parser.parse_args([command.name, *needed.get(command.name, []), *options])
        assert given.run is command.run
        assert (given.params, given.preset, given.overrides) == (None, "demo", ["seed=1", "target=skin"])


def test_a_command_may_have_options_of_its_own() -> None:
    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--force", action="store_true")

    seen: list[Context] = []
    parser = build_parser((Command("go", "goes", seen.append, options),))
    given = parser.parse_args(["go", "--force"])
    given.run(Context(given))
    assert seen[0].arguments.force


@pytest.fixture
def flow(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[list[str]]]:
    """A stand-in for the flow's process: its exit codes, and the command lines it received."""
    ends, commands = [0], list[list[str]]()

    def run(command: Sequence[str], _folder: Path) -> int:
        commands.append(list(command))
        return ends[0]

    (experiment / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    monkeypatch.chdir(experiment)
    monkeypatch.setattr(retraining, "_run", run)
    return ends, commands


@pytest.mark.parametrize(
    ("flow_code", "code", "words"),
    [
        (0, 0, ""),
        (2, 2, "error: nothing was lost: fix that"),
        (69, 69, "error: nothing was lost: start it again when it is back"),
        (70, 70, "error: the retraining crashed"),
        (1, 70, "error: the retraining crashed"),
        (75, 75, "stopped: "),
        (-15, 75, "stopped: "),
        (130, 130, "interrupted"),
        (-9, 137, "error: the retraining was killed by SIGKILL; start it again"),
    ],
)
def test_retrain_tells_a_mistake_from_a_crash_and_says_start_it_again_only_where_that_helps(
    flow: Any, capsys: pytest.CaptureFixture[str], flow_code: int, code: int, words: str
) -> None:
    flow[0][0] = flow_code
    assert main(["retrain"]) == code
    told = capsys.readouterr().err
    assert told.startswith(words)
    assert told.count("\n") == bool(words)
    assert ("start it again" in told) == (code in (2, 69, 75, 137))


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as a terminal's program has it; one started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_lets_the_flow_end_its_step(tmp_path: Path) -> None:
    """It does so although a terminal also sends the signal to the flow."""
    script = 'trap "kill -INT $$; sleep 0.6; touch ended; exit 75" TERM; touch ready; while :; do sleep 0.05; done'

    def interrupt() -> None:
        deadline = time.monotonic() + 30
        while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        retraining._run(["sh", "-c", script], tmp_path)
    thread.join()
    assert (tmp_path / "ended").exists()


def test_sigterm_while_retrain_looks_for_work_ends_with_75(
    flow: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(retraining, "_find_unchanged", lambda _context: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["retrain"]) == 75
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "start it again" in capsys.readouterr().err
    assert not flow[1]


def test_retrain_hands_a_name_on_and_refuses_an_unusable_one_itself(
    flow: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _, commands = flow
    assert main(["retrain", "--name", "night", "--set", "seed=1"]) == 0
    assert commands[0][-4:] == ["--name", "night", "--set", "seed=1"]
    assert main(["retrain", "--name", "../night"]) == 2
    assert len(commands) == 1
    assert capsys.readouterr().err.startswith("error: experiment '../night': use letters")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from oncoshift.cli import build_parser; build_parser().format_help();"
        "print(sorted({'torch', 'pandas', 'numpy', 'mlflow', 'prefect', 'optuna', 'dvc'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
