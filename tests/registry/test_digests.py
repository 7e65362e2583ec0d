"""A registered model whose files have changed is reported and never loaded."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oncoshift.errors import RegistryError
from oncoshift.registry.digests import SUMS, SUMS_TAG, write_sums
from oncoshift.registry.loading import load_served
from oncoshift.registry.packaging import MODEL_TAG, log_and_register

if TYPE_CHECKING:
    from collections.abc import Callable

    from oncoshift.registry.folder import Package
    from oncoshift.registry.tracking import Tracker

Registered = tuple[str, Path]
"""Name of a model whose only version is 1, and its folder in the store."""


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment restored after each test: loading disables pickles for the whole process."""
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")


@pytest.fixture
def registered(tracker: Tracker, make_package: Callable[[str], Package], unique: Callable[[str], str]) -> Registered:
    name = unique("kept")
    version = log_and_register(tracker, tracker.find_or_start_run(name, name), name, make_package(name))
    assert tracker.client.get_logged_model(version.tags[MODEL_TAG]).tags[SUMS_TAG] == version.tags[SUMS_TAG]
    return name, Path(version.source.removeprefix("file://"))


def flip(path: Path) -> None:
    """Flip one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
def test_the_list_is_one_that_sha256sum_reads(registered: Registered) -> None:
    _, folder = registered
    said = subprocess.run(["sha256sum", "-c", SUMS], cwd=folder, check=True, capture_output=True, text=True).stdout
    listed = {line.removesuffix(": OK") for line in said.splitlines()}
    there = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert listed == there - {SUMS} - {file for file in there if "__pycache__" in file}


FILES = ["artifacts/weights.safetensors", "artifacts/config.json", "code/oncoshift/serving/images.py", SUMS]


def test_a_flipped_bit_in_a_version_is_named_and_the_model_not_loaded(tracker: Tracker, registered: Registered) -> None:
    name, folder = registered
    tracker.client.set_registered_model_alias(name, "champion", "1")
    addresses = (f"models:/{name}/1", f"models:/{name}@champion")
    for file in FILES:
        flip(folder / file)
        said = (
            rf"^{name} version 1: {folder / file}: damaged: expected SHA-256 \w{{64}}, found \w{{64}}; .*from a backup"
        )
        for address in addresses:
            with pytest.raises(RegistryError, match=said):
                load_served(address, tracker.uri)
        flip(folder / file)
    for address in addresses:
        load_served(address, tracker.uri)


def test_what_is_gone_is_named_the_list_of_digests_too(tracker: Tracker, registered: Registered) -> None:
    name, folder = registered
    (folder / "artifacts" / "card.md").unlink()
    with pytest.raises(RegistryError, match=r"card\.md: damaged: .*no such file"):
        load_served(f"models:/{name}/1", tracker.uri)
    (folder / SUMS).unlink()
    with pytest.raises(RegistryError, match=rf"{SUMS}: damaged: .*no such file"):
        load_served(f"models:/{name}/1", tracker.uri)


def test_a_file_too_many_in_its_code_is_named_and_not_imported(tracker: Tracker, registered: Registered) -> None:
    name, folder = registered
    (folder / "code" / "planted.py").write_text("raise SystemExit")
    with pytest.raises(RegistryError, match=r"code/planted\.py: was not registered with the model; it is not used"):
        load_served(f"models:/{name}/1", tracker.uri)


def test_a_list_made_to_fit_the_change_does_not_fit_the_tag(tracker: Tracker, registered: Registered) -> None:
    name, folder = registered
    flip(folder / "artifacts" / "weights.safetensors")
    write_sums(folder)
    with pytest.raises(RegistryError, match=f"{SUMS}: damaged"):
        load_served(f"models:/{name}/1", tracker.uri)


def test_by_its_folder_a_model_is_checked_too(registered: Registered) -> None:
    _, folder = registered
    load_served(str(folder))
    flip(folder / "artifacts" / "weights.safetensors")
    with pytest.raises(RegistryError, match=r"weights\.safetensors: damaged"):
        load_served(str(folder))


def test_a_version_of_before_loads_with_a_warning(
    tracker: Tracker, registered: Registered, caplog: pytest.LogCaptureFixture
) -> None:
    name, folder = registered
    (folder / SUMS).unlink()
    tracker.client.delete_model_version_tag(name, "1", SUMS_TAG)
    config = folder / "artifacts" / "config.json"
    values = json.loads(config.read_text())
    del values["files"]
    config.write_text(json.dumps(values))
    load_served(f"models:/{name}/1", tracker.uri)
    assert f"{name} version 1: was registered without digests" in caplog.text
