"""The embedded store's database is checked: it is whole, present, and belongs to this project."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, event

from oncoshift.errors import RegistryError
from oncoshift.registry.embedded import SQLITE, find_database, open_database
from oncoshift.registry.promotion import promote
from oncoshift.registry.relocation import relocate
from oncoshift.registry.store import ensure_experiment, find_artifact_root, open_client
from oncoshift.registry.tracking import Tracker

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow import MlflowClient


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database to copy, since MLflow's migrations take seconds."""
    path = tmp_path_factory.mktemp("pristine") / "mlflow.db"
    open_client(f"{SQLITE}{path}")
    return path


@pytest.fixture
def make_project(pristine: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A function that makes a project's store with a run, a logged model and a version."""

    def make(name: str) -> Path:
        database = tmp_path / name / "mlruns" / "mlflow.db"
        database.parent.mkdir(parents=True)
        shutil.copy(pristine, database)
        tracker = Tracker(f"{SQLITE}{database}", "e")
        run = tracker.find_or_start_run("key", "run")
        tracker.log_text(run, "of the original", "note.txt")
        model = tracker.client.create_logged_model(tracker.experiment_id, "oncoshift-kidney", run)
        tracker.client.create_registered_model("oncoshift-kidney")
        tracker.client.create_model_version("oncoshift-kidney", model.artifact_location, run)
        return database

    return make


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def places(client: MlflowClient) -> list[str | None]:
    (experiment,) = client.search_experiments(filter_string="name = 'e'")
    (run,) = client.search_runs([experiment.experiment_id])
    (model,) = client.search_logged_models([experiment.experiment_id])
    version = client.get_model_version("oncoshift-kidney", "1")
    found = [experiment.artifact_location, run.info.artifact_uri, model.artifact_location, version.source]
    return [*found, client.get_model_version_download_uri("oncoshift-kidney", "1")]


@pytest.mark.parametrize("how", ["copied", "moved"])
def test_a_project_elsewhere_is_refused_and_relocated(
    make_project: Callable[[str], Path], tmp_path: Path, how: str
) -> None:
    original, project = make_project("b ä").parents[1], tmp_path / "c d"
    (shutil.copytree if how == "copied" else shutil.move)(original, project)
    before = files(tmp_path)
    database = project / "mlruns" / "mlflow.db"
    uri = f"{SQLITE}{database}"
    with pytest.raises(RegistryError, match="oncoshift relocate") as caught:
        Tracker(uri, "e")
    assert str(original / "mlruns" / "artifacts") in str(caught.value)
    assert str(project / "mlruns" / "artifacts") in str(caught.value)
    assert files(tmp_path) == before

    done = relocate(database)
    assert done is not None
    assert (done.places, done.folder) == (5, project / "mlruns" / "artifacts")
    assert database.read_bytes() != done.backup.read_bytes()
    tracker = Tracker(uri, "e")
    root = find_artifact_root(uri)
    assert root is not None
    assert all(place is not None and place.startswith(root) for place in places(tracker.client))
    run = tracker.find_or_start_run("key", "run")
    assert Path(tracker.client.download_artifacts(run, "note.txt")).read_text() == "of the original"
    tracker.log_text(tracker.find_or_start_run("of the copy", "x"), "of the copy", "copy.txt")
    assert [path.is_relative_to(project) for path in tmp_path.rglob("copy.txt")] == [True]
    assert relocate(database) is None
    if how == "copied":
        assert Tracker(f"{SQLITE}{original}/mlruns/mlflow.db", "e").find_run("key") is not None


def test_a_moved_store_under_another_name_is_known_by_what_it_holds(make_project: Callable[[str], Path]) -> None:
    folder = make_project("b").parent
    moved = folder.rename(folder.with_name("store"))
    with pytest.raises(RegistryError, match="oncoshift relocate"):
        open_client(f"{SQLITE}{moved}/mlflow.db")


def test_a_database_without_its_artifacts_is_not_relocated(make_project: Callable[[str], Path], tmp_path: Path) -> None:
    original = make_project("b")
    copy = tmp_path / "mlflow.db"
    shutil.copy(original, copy)
    with pytest.raises(RegistryError, match=f"first copy {original.parent}/artifacts to it"):
        relocate(copy)
    assert not list(tmp_path.glob("*.bak"))


def test_a_place_that_somebody_chose_is_used(pristine: Path, tmp_path: Path) -> None:
    database = Path(shutil.copy(pristine, tmp_path / "mlflow.db"))
    uri = f"{SQLITE}{database}"
    (tmp_path / "big" / "artifacts").mkdir(parents=True)
    for name, place in (("there", tmp_path / "big/artifacts"), ("away", tmp_path / "unmounted/artifacts")):
        tracker = Tracker(uri, name, artifacts=place.as_uri())
        assert tracker.client.get_experiment(tracker.experiment_id).artifact_location == place.as_uri()
    ensure_experiment(tracker.client, "remote", "s3://bucket/mlruns/artifacts")
    tracker.find_or_start_run("key", "x")
    open_client(uri)
    assert relocate(database) is None


def test_a_link_to_the_store_is_the_store(make_project: Callable[[str], Path], tmp_path: Path) -> None:
    folder = make_project("b").parent
    (tmp_path / "link").symlink_to(folder)
    assert Tracker(f"{SQLITE}{tmp_path}/link/mlflow.db", "e").find_run("key") is not None


@pytest.mark.parametrize("size", [0, 4096, 100_000])
def test_a_database_that_lost_its_content_is_refused_and_left_as_it_is(
    pristine: Path, tmp_path: Path, size: int
) -> None:
    database = Path(shutil.copy(pristine, tmp_path / "mlflow.db"))
    os.truncate(database, size)
    before = database.read_bytes()
    with pytest.raises(RegistryError, match="restore it from a backup") as caught:
        open_client(f"{SQLITE}{database}")
    assert str(database) in str(caught.value)
    assert database.read_bytes() == before


def test_a_file_that_is_no_database_and_one_without_tables_are_refused(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    database.write_text("what a restore from the wrong file leaves\n" * 100)
    with pytest.raises(RegistryError, match="is not an intact SQLite database"):
        open_client(f"{SQLITE}{database}")
    database.unlink()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("VACUUM")
    with pytest.raises(RegistryError, match=r"is empty \(\d+ bytes\)"):
        open_client(f"{SQLITE}{database}")


def test_a_database_that_is_gone_is_not_made_anew_beside_its_artifacts(make_project: Callable[[str], Path]) -> None:
    database = make_project("b")
    database.unlink()
    with pytest.raises(RegistryError, match=r"mlflow\.db: is gone, but its artifacts are still in .*/artifacts"):
        open_client(f"{SQLITE}{database}")
    assert not database.exists()


def test_another_programs_database_is_not_called_one_that_may_not_be_read(tmp_path: Path) -> None:
    database = tmp_path / "other.db"
    database.touch()
    with (
        pytest.raises(RegistryError, match="no such table: runs; is it another program's"),
        open_database(database) as other,
    ):
        other.execute("SELECT * FROM runs")


def test_an_error_of_the_database_is_one_line(pristine: Path, tmp_path: Path) -> None:
    database = Path(shutil.copy(pristine, tmp_path / "mlflow.db"))
    client = open_client(f"{SQLITE}{database}")
    client.search_registered_models()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DROP TABLE registered_models")
    with pytest.raises(RegistryError, match=r"mlflow\.db: no such table: registered_models$"):
        promote(client, "oncoshift-kidney", "1", "", "")


def test_a_full_disk_under_the_database_is_told_with_the_remedy(pristine: Path, tmp_path: Path) -> None:
    database = Path(shutil.copy(pristine, tmp_path / "mlflow.db"))

    def fill(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA max_page_count=1")  # SQLite raises it to the pages that there are

    def write() -> None:
        client = open_client(f"{SQLITE}{database}")
        for number in range(50):
            client.create_registered_model(f"model {number}", description=5000 * "x")

    event.listen(Engine, "connect", fill)
    try:
        with pytest.raises(RegistryError, match=r"database or disk is full; make room, and start it again$"):
            write()
    finally:
        event.remove(Engine, "connect", fill)


def test_a_servers_address_is_no_database() -> None:
    assert find_database("http://127.0.0.1:5000") is None
    assert find_artifact_root("http://127.0.0.1:5000") is None
