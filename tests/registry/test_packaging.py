"""A model is registered once, even if the process is killed at any step."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import pytest

from oncoshift.errors import RegistryError
from oncoshift.registry.packaging import find_version, log_and_register, update_card

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow import MlflowClient

    from oncoshift.registry.folder import Package
    from oncoshift.registry.tracking import Tracker


class PlugPulledError(Exception):
    """A simulated end of the process."""


@pytest.fixture
def package(make_package: Callable[[str], Package], unique: Callable[[str], str]) -> Package:
    return make_package(unique("oncoshift-packed"))


def models(tracker: Tracker, name: str) -> list[Any]:
    return list(tracker.client.search_logged_models([tracker.experiment_id], filter_string=f"name = '{name}'"))


def versions(client: MlflowClient, name: str) -> list[str]:
    return [str(version.version) for version in client.search_model_versions(f"name = '{name}'")]


def test_a_key_is_registered_once(tracker: Tracker, unique: Callable[[str], str], package: Package) -> None:
    run_id, key, name = tracker.find_or_start_run(unique("run"), "x"), unique("key"), package.config.name
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: log_and_register(tracker, run_id, key, package, {"method": "dann"}), range(2)))
    assert [version.version for version in made] == [made[0].version] * 2
    assert versions(tracker.client, name) == ["1"]
    version = tracker.client.get_model_version(name, "1")
    assert (version.tags["method"], version.run_id, version.description) == ("dann", run_id, "# card")
    (model,) = models(tracker, name)
    assert model.status == "READY"
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": name, "version": "1"}]
    outputs = tracker.client.get_run(run_id).outputs.model_outputs
    assert [output.model_id for output in outputs] == [model.model_id]
    other = log_and_register(tracker, run_id, unique("key"), package)
    assert str(other.version) == "2"


STEPS = ["create_logged_model", "log_model_artifacts", "finalize_logged_model", "create_model_version", "log_outputs"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_killed_at_any_step_the_next_call_completes_it(
    tracker: Tracker,
    unique: Callable[[str], str],
    package: Package,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    done: bool,
) -> None:
    run_id, key, name = tracker.find_or_start_run(unique("run"), "x"), unique("key"), package.config.name
    real = getattr(tracker.client, step)

    def killed(*arguments: Any, **options: Any) -> None:
        if done:
            real(*arguments, **options)
        raise PlugPulledError

    monkeypatch.setattr(tracker.client, step, killed)
    with pytest.raises(PlugPulledError):
        log_and_register(tracker, run_id, key, package)
    monkeypatch.undo()
    registered = find_version(tracker.client, name, key)
    assert (registered is not None) == (step == "log_outputs" or (done and step == "create_model_version"))

    version = log_and_register(tracker, run_id, key, package)
    assert versions(tracker.client, name) == [str(version.version)] == ["1"]
    (model,) = models(tracker, name)
    assert model.status == "READY"
    assert len(tracker.client.get_run(run_id).outputs.model_outputs) == 1
    files = {file.name for file in Path(urlparse(str(version.source)).path).rglob("*")}
    assert {"MLmodel", "weights.safetensors", "config.json", "card.md", "requirements.txt"} <= files


def test_a_section_of_the_card_is_replaced_in_the_description_and_once_is_as_good_as_twice(
    tracker: Tracker, unique: Callable[[str], str], package: Package
) -> None:
    run_id = tracker.find_or_start_run(unique("run"), "x")
    version = log_and_register(tracker, run_id, unique("key"), replace(package, card="# card\n\n## Gate\n\nnot yet\n"))
    for words in ("**refuse**", "**promote**", "**promote**"):
        update_card(tracker.client, version.name, version.version, {"Gate": words})
        found = tracker.client.get_model_version(version.name, version.version).description
        assert found == f"# card\n\n## Gate\n\n{words}\n"


def test_a_long_card_is_cut_in_the_description_and_whole_in_the_model(
    tracker: Tracker, unique: Callable[[str], str], package: Package
) -> None:
    run_id = tracker.find_or_start_run(unique("run"), "x")
    version = log_and_register(tracker, run_id, unique("key"), replace(package, card="x" * 9000))
    assert len(str(version.description)) == 5000
    assert len((Path(urlparse(str(version.source)).path) / "artifacts" / "card.md").read_text()) == 9000


def test_one_example_is_too_few(package: Package) -> None:
    with pytest.raises(RegistryError, match="at least two"):
        replace(package, examples=package.examples[:1])
