"""A backup is whole or not there, tells a changed byte, and restores a project elsewhere."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from sqlalchemy import create_engine, text
from support.postgresql import making_database

from oncoshift.cli import main
from oncoshift.maintenance.databases import DatabaseError, exists, load, save
from oncoshift.registry.audit import read_lines
from oncoshift.registry.embedded import SQLITE
from oncoshift.registry.history import list_versions, read_aliases
from oncoshift.registry.loading import load_served
from oncoshift.registry.store import open_client

if TYPE_CHECKING:
    from pathlib import Path

MODEL = "oncoshift-kidney"


@pytest.fixture
def saved(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A backup of the project."""
    assert main(["backup", str(tmp_path / "saved")]) == 0
    capsys.readouterr()
    return tmp_path / "saved"


def describe(root: Path) -> dict[str, Any]:
    """Everything of a project that a restoration must bring back."""
    uri = f"{SQLITE}{root}/mlruns/mlflow.db"
    client = open_client(uri)
    image = next((root / "data" / "raw").rglob("*.png")).read_bytes()
    study = optuna.load_study(study_name="study", storage=f"{SQLITE}{root}/runs/optuna.db")
    return {
        "versions": list_versions(client, MODEL),  # with aliases and histories
        "audit": read_lines(client, MODEL),
        "predictions": load_served(f"models:/{MODEL}@champion", uri).predict({"image": [image]}).to_dict(),
        "study": [(trial.value, trial.params) for trial in study.trials],
        "data": {file.name: file.read_bytes() for file in (root / "data" / "raw").rglob("*.png")},
        "params": (root / "params.yaml").read_text(),
    }


def test_a_project_that_is_lost_is_restored_elsewhere_as_it_was(
    project: Path, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = describe(project)
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(project)
    assert main(["restore", str(saved), "--to", "elsewhere"]) == 0
    assert f"{MODEL}: version 1 is champion" in capsys.readouterr().out
    assert describe(tmp_path / "elsewhere") == before


def test_a_byte_that_has_changed_is_named_and_nothing_is_restored(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = next(saved.rglob("weights.safetensors"))
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    assert main(["restore", str(saved), "--to", str(tmp_path / "elsewhere")]) == 2
    assert f"{weights}: has changed since the backup was made: expected SHA-256" in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_there_is_replaced_only_by_force_and_its_database_is_kept(
    project: Path, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = describe(project)
    client = open_client(f"{SQLITE}{project}/mlruns/mlflow.db")
    client.delete_registered_model_alias(MODEL, "champion")
    (project / "params.yaml").write_text("target: lung\nsources: [kidney]\n")
    assert main(["restore", str(saved)]) == 2
    told = capsys.readouterr().err
    assert "is not empty" in told
    assert f"{project}/mlruns/mlflow.db" in told
    assert f"{project}/params.yaml" in told
    assert read_aliases(client, MODEL) == {"previous": "2"}
    assert main(["restore", str(saved), "--force"]) == 0
    assert describe(project) == before
    assert len(list((project / "mlruns").glob("mlflow.db.*.bak"))) == 1


def test_a_killed_backup_leaves_none_and_the_next_one_is_made(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "backups" / "today"
    process = subprocess.Popen([sys.executable, "-m", "oncoshift.cli", "backup", str(target)], cwd=project)
    try:
        while not list(tmp_path.glob("backups/.today.*.partial/tracking")):
            assert process.poll() is None
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not target.exists()
    (left,) = (tmp_path / "backups").iterdir()
    assert main(["restore", str(left), "--to", str(tmp_path / "elsewhere")]) == 2
    assert "is no backup, or not a whole one" in capsys.readouterr().err
    assert main(["backup", str(target)]) == 0
    assert [path.name for path in (tmp_path / "backups").iterdir()] == ["today"]
    assert main(["backup", str(target)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_what_a_backup_lacks_is_said(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = next((project / "mlruns").rglob("weights.safetensors"))
    weights.write_bytes(b"damaged")
    shutil.rmtree(project / ".dvc" / "cache" / "files")
    assert main(["backup", str(tmp_path / "saved")]) == 0
    told = capsys.readouterr().err
    assert "warning: saved as it is, though damaged" in told
    assert "are not in DVC's cache" in told


def test_a_database_in_use_is_copied_at_one_moment(tmp_path: Path) -> None:
    source = tmp_path / "source.db"
    with closing(sqlite3.connect(source)) as connection, connection:
        connection.execute("CREATE TABLE pairs (one INTEGER, two INTEGER)")
    stop = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(source, timeout=30)) as connection:
            connection.execute("PRAGMA synchronous=OFF")  # the machine does not die here
            number = 0
            while not stop.wait(0.001):
                with connection:
                    connection.execute("DELETE FROM pairs")
                    connection.execute("INSERT INTO pairs VALUES (?, ?)", (number, number))
                number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for turn in range(3):
            copy = tmp_path / f"copy{turn}.db"
            save(f"{SQLITE}{source}", copy)
            with closing(sqlite3.connect(copy)) as connection:
                assert all(one == two for one, two in connection.execute("SELECT one, two FROM pairs"))
    finally:
        stop.set()
        writer.join()


def test_postgresql_is_saved_and_restored_by_its_own_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with making_database() as url:
        engine = create_engine(url)

        def run(statement: str) -> Any:
            with engine.begin() as connection:
                done = connection.execute(text(statement))
                return done.scalar() if done.returns_rows else None

        assert not exists(url)
        run("CREATE TABLE kept AS SELECT 1 AS number")
        save(url, tmp_path / "dump")
        assert exists(url)
        run("UPDATE kept SET number = 2")
        with pytest.raises(DatabaseError, match=r"pg_restore of .* failed with exit code 1"):
            load(url, tmp_path / "dump", replace=False)
        load(url, tmp_path / "dump", replace=True)
        assert run("SELECT number FROM kept") == 1
        engine.dispose()
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(DatabaseError, match="pg_dump is not installed"):
            save(url, tmp_path / "again")


@pytest.mark.parametrize(
    ("url", "advice"),
    [("http://anna:secret@host", "run this where its database is"), ("mysql://host/x", "only SQLite and PostgreSQL")],
)
def test_other_stores_are_refused_with_advice(url: str, advice: str) -> None:
    with pytest.raises(DatabaseError, match=advice) as raised:
        exists(url)
    assert "secret" not in str(raised.value)
