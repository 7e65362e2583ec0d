"""A model is loaded from a folder or the registry, without a pickle or a new store."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow.pyfunc
import pytest
import requests
import torch
import yaml
from mlflow import MlflowClient

from oncoshift.errors import RegistryError
from oncoshift.registry.folder import save_folder
from oncoshift.registry.loading import load_served
from oncoshift.registry.packaging import MODEL_TAG, log_and_register
from oncoshift.serving.config import GRAPH

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow.entities.model_registry import ModelVersion

    from oncoshift.registry.folder import Package
    from oncoshift.registry.tracking import Tracker


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment restored after each test: loading disables pickles for the whole process."""
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")


@pytest.fixture(scope="module")
def saved(make_package: Callable[[str], Package], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_folder(make_package("oncoshift-kidney"), folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A model's folder that a test may change."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


class Trap:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def plant(folder: Path, file: str, trap: Trap, **flavour: object) -> None:
    """Put a pickle into a model folder, and make its MLmodel load it instead of the script."""
    target = folder / file
    target.parent.mkdir(exist_ok=True)
    if target.suffix == ".pth":
        torch.save(trap, target)
        target.with_name("pickle_module_info.txt").write_text("pickle")
    else:
        target.write_bytes(pickle.dumps(trap))
    document = yaml.safe_load((folder / "MLmodel").read_text())
    python = document["flavors"]["python_function"]
    del python["model_code_path"], python["code"], python["config"]
    python.update(flavour)
    document["flavors"][str(flavour.get("loader_module", "")).removeprefix("mlflow.")] = flavour
    (folder / "MLmodel").write_text(yaml.safe_dump(document))


PLANTED = {
    "python_model.pkl": {"python_model": "python_model.pkl"},
    "model.pkl": {"loader_module": "mlflow.sklearn", "data": "model.pkl", "pickled_model": "model.pkl"},
    "data/model.pth": {"loader_module": "mlflow.pytorch", "data": "data", "model_data": "data"},
}  # fmt: skip


@pytest.mark.parametrize("file", PLANTED)
@pytest.mark.parametrize("databricks", [False, True])
def test_a_planted_pickle_is_not_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, databricks: bool
) -> None:
    """MLflow's own guard gives way where this variable is set, so it cannot be relied on."""
    if databricks:
        monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17")
    plant(folder, file, Trap(tmp_path / "sprung"), **PLANTED[file])
    with pytest.raises(RegistryError, match="asks for a pickle or a loader of another library"):
        load_served(str(folder))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("file", PLANTED)
def test_the_planted_pickles_run_where_nothing_stops_them(folder: Path, tmp_path: Path, file: str) -> None:
    plant(folder, file, Trap(tmp_path / "sprung"), **PLANTED[file])
    with contextlib.suppress(Exception):  # what was unpickled is no model
        mlflow.pyfunc.load_model(str(folder))
    assert (tmp_path / "sprung").exists()


def test_a_pickle_that_nothing_asks_for_stays_shut(folder: Path, tmp_path: Path) -> None:
    (folder / "python_model.pkl").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    load_served(str(folder))
    assert not (tmp_path / "sprung").exists()


def test_after_loading_mlflow_unpickles_nothing_in_this_process(folder: Path, tmp_path: Path) -> None:
    load_served(str(folder))
    plant(folder, "python_model.pkl", Trap(tmp_path / "sprung"), **PLANTED["python_model.pkl"])
    with pytest.raises(mlflow.MlflowException, match="pickle is disallowed"):
        mlflow.pyfunc.load_model(str(folder))
    assert not (tmp_path / "sprung").exists()


def test_by_alias_and_version_and_path_it_is_the_same_model(
    tracker: Tracker, make_package: Callable[[str], Package], unique: Callable[[str], str]
) -> None:
    name = unique("loaded")
    made = log_and_register(tracker, tracker.find_or_start_run(name, name), name, make_package(name))
    tracker.client.set_registered_model_alias(name, "champion", made.version)
    model = made.tags[MODEL_TAG]
    location = tracker.client.get_model_version_download_uri(name, made.version)
    addresses = (f"models:/{name}@champion", f"models:/{name}/{made.version}", f"models:/{model}", location)
    ids = {load_served(address, tracker.uri).metadata.model_id for address in addresses}
    assert ids == {model}


def test_a_store_that_goes_away_for_a_moment_is_asked_again(
    tracker: Tracker,
    make_package: Callable[[str], Package],
    unique: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = unique("away")
    made = log_and_register(tracker, tracker.find_or_start_run(name, name), name, make_package(name))
    failures = [requests.ConnectionError("gone")]
    ask = MlflowClient.get_model_version

    def ask_again(client: MlflowClient, *asked: str) -> ModelVersion:
        if failures:
            raise failures.pop()
        return ask(client, *asked)

    monkeypatch.setattr(MlflowClient, "get_model_version", ask_again)
    assert load_served(f"models:/{name}/{made.version}", tracker.uri).metadata.model_id == made.tags[MODEL_TAG]
    assert failures == []


def test_without_a_store_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RegistryError, match="there is no store"):
        load_served("models:/oncoshift-kidney@champion", f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    load_served("model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_target_without_a_champion_is_told_with_what_makes_one(
    tracker: Tracker, unique: Callable[[str], str]
) -> None:
    name = unique("oncoshift-skin")
    target = name.removeprefix("oncoshift-")
    words = f"no champion yet for target {target}; run `oncoshift retrain`"
    with pytest.raises(RegistryError, match=words):
        load_served(f"models:/{name}@champion", tracker.uri)
    tracker.client.create_registered_model(name)
    with pytest.raises(RegistryError, match=words):
        load_served(f"models:/{name}@champion", tracker.uri)


def test_what_is_missing_is_named(
    tracker: Tracker, make_package: Callable[[str], Package], unique: Callable[[str], str], tmp_path: Path
) -> None:
    name = unique("moved")
    with pytest.raises(RegistryError, match=f"models:/{name}@champion: .*`oncoshift models`"):
        load_served(f"models:/{name}@champion", tracker.uri)
    made = log_and_register(tracker, tracker.find_or_start_run(name, name), name, make_package(name))
    place = Path(made.source.removeprefix("file://"))
    shutil.move(place, tmp_path / "elsewhere")
    with pytest.raises(RegistryError, match=f"{name}/1: its files are recorded to be at {place}: no such folder"):
        load_served(f"models:/{name}/1", tracker.uri)
    with pytest.raises(RegistryError, match="nowhere: no such folder"):
        load_served(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/model", "nosuchstorage://bucket/model"])
def test_an_address_that_nothing_can_be_had_from_is_an_error_of_one_line(address: str) -> None:
    with pytest.raises(RegistryError, match=rf"^{address}: [^\n]+$"):
        load_served(address)


@pytest.mark.parametrize("text", [None, "", "- no: [mapping", "flavors: 3", "flavors: {}"])
def test_a_folder_that_is_no_model_is_refused(folder: Path, text: str | None) -> None:
    (folder / "MLmodel").unlink()
    if text is not None:
        (folder / "MLmodel").write_text(text)
    with pytest.raises(RegistryError, match=str(folder)):
        load_served(str(folder))


def test_a_model_whose_network_is_cut_short_is_an_error_of_one_line(folder: Path) -> None:
    (network,) = folder.rglob(GRAPH)
    network.write_bytes(network.read_bytes()[:1000])
    with pytest.raises(RegistryError, match=r"the model cannot be loaded: [^\n]+$"):
        load_served(str(folder))
