"""The hash of the code behind a result depends on all that the code imports, and only on code."""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

import oncoshift
from oncoshift import fingerprint
from oncoshift.anchors.values import LIBRARIES
from oncoshift.errors import OncoshiftError
from oncoshift.fingerprint import (
    SETTINGS,
    SETTINGS_AND_DATA,
    TILE_LIBRARIES,
    find_import_closure,
    find_library,
    fingerprint_code,
    fingerprint_stages,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROJECT = Path(__file__).parents[1]
STAGES = ("ingest", "split", "normalize", "train", "evaluate", "explain")
OTHER_KEYS = {
    "a job": (("oncoshift.training.job",), SETTINGS_AND_DATA),
    "a tile": (("oncoshift.data.packs.tiles", "oncoshift.data.stain.backend"), SETTINGS),
    "a retraining": (("oncoshift.retraining",), SETTINGS_AND_DATA),
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package's source that is hashed in its place."""
    copy = tmp_path / "oncoshift"
    shutil.copytree(Path(oncoshift.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprint, "_PACKAGE", copy)
    return copy


def write(path: Path, text: str) -> None:
    """Change a file, and make sure that its modification time changes."""
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 1_000_000, before + 1_000_000))


def keys() -> dict[str, str]:
    """Compute every code hash that is part of some key."""
    return fingerprint_stages() | {
        name: fingerprint_code(*entries, without=without) for name, (entries, without) in OTHER_KEYS.items()
    }


def modules_by_key() -> dict[str, set[Path]]:
    """List the files that each key covers, as the imports of the key's entry modules."""
    entries: dict[str, tuple[Sequence[str], Sequence[str]]] = {
        stage: (names, SETTINGS) for stage, names in fingerprint._DATA_STAGES.items()
    }
    entries |= {stage: (names, SETTINGS_AND_DATA) for stage, names in fingerprint._MODEL_STAGES.items()}
    full = {key: ([f"oncoshift.{name}" for name in names], without) for key, (names, without) in entries.items()}
    return {key: set(find_import_closure(*each).values()) for key, each in (full | OTHER_KEYS).items()}


def with_other_docstrings(source: str) -> str:
    """Return the same code with other docstrings and a comment."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            node.value.value = f"Other words: {node.value.value}"
    return f"# A comment.\n{ast.unparse(tree)}\n"


def test_docstrings_comments_and_form_change_no_key(package: Path) -> None:
    before = keys()
    for file in package.rglob("*.py"):
        write(file, with_other_docstrings(file.read_text()))
    assert keys() == before


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["a fifth", "every file"])
def test_an_edit_changes_the_keys_of_what_imports_the_module_and_no_other(package: Path, every: bool) -> None:
    before, covered = keys(), modules_by_key()
    assert set(before) == {*STAGES, *OTHER_KEYS} == set(covered)
    for file in sorted(package.rglob("*.py"))[:: 1 if every else 5]:
        source = file.read_text()
        write(file, f"{source}\nEDITED = True\n")
        changed = {key for key, digest in keys().items() if digest != before[key]}
        assert changed == {key for key, files in covered.items() if file in files}, file
        write(file, source)
    assert keys() == before


@pytest.mark.parametrize(
    ("key", "module"),
    [
        ("ingest", "data/tables.py"), ("ingest", "data/parquet.py"), ("ingest", "serving/stain/compiled.py"),
        ("ingest", "copies/pairs.py"), ("ingest", "data/validation/checks.py"), ("ingest", "serving/limits.py"),
        ("split", "data/validation/schema.py"), ("split", "data/tables.py"),
        ("normalize", "serving/stain/macenko.py"), ("normalize", "serving/colour.py"),
        ("a tile", "serving/stain/macenko.py"), ("a tile", "serving/colour.py"), ("a tile", "serving/limits.py"),
        ("a job", "training/loop.py"), ("a job", "methods/dann.py"), ("a job", "models/batch_norm.py"),
        ("train", "training/loop.py"), ("evaluate", "evaluation/metrics.py"), ("explain", "explain/attributions.py"),
        ("a retraining", "evaluation/intervals.py"), ("a retraining", "registry/decision.py"),
        ("a retraining", "selection/verdict.py"), ("a retraining", "tuning/study.py"),
        ("a retraining", "data/loading.py"), ("a retraining", "data/raw.py"), ("evaluate", "data/loading.py"),
    ],
)  # fmt: skip
def test_what_decides_a_result_is_covered(key: str, module: str) -> None:
    assert Path(oncoshift.__file__).parent / module in modules_by_key()[key]


@pytest.mark.parametrize("key", ["a job", "a retraining", "train", "evaluate", "explain"])
@pytest.mark.parametrize("room", ["copies", "phantom", "settings", "commands", "data/source", "data/validation"])
def test_what_a_key_holds_by_its_content_is_not_covered_as_code(key: str, room: str) -> None:
    folder = Path(oncoshift.__file__).parent / room
    assert not [file for file in modules_by_key()[key] if folder in file.parents]


def test_no_code_that_makes_or_reads_data_is_in_a_jobs_key() -> None:
    data = Path(oncoshift.__file__).parent / "data"
    assert not [file for file in modules_by_key()["a job"] if data in file.parents and file.name != "__init__.py"]


def test_a_template_counts(package: Path) -> None:
    before = keys()
    template = package / "data/validation/document.html"
    template.write_text(f"{template.read_text()}<!-- edited -->")
    assert {key for key, digest in keys().items() if digest != before[key]} == {"ingest"}


def test_a_library_counts_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys()
    monkeypatch.setattr(fingerprint, "version", lambda _name: "0")
    assert all(digest != before[key] for key, digest in keys().items())
    assert {"numpy", "opencv-python"} < set(TILE_LIBRARIES)


def only(*installed: str) -> Callable[[str], str]:
    """Make a `version` for a machine that has these distributions of OpenCV and no others."""

    def find(name: str) -> str:
        if "opencv" in name and name not in installed:
            raise PackageNotFoundError(name)
        return version(name) if "opencv" not in name else "5.0"

    return find


@pytest.mark.parametrize("installed", ["opencv-python", "opencv-python-headless", "opencv-contrib-python"])
def test_any_distribution_of_opencv_will_do_and_has_the_same_hash(
    installed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "version", only(installed))
    assert find_library("opencv-python") == (installed, "5.0")
    named = " ".join(f"{name} {'5.0' if 'opencv' in name else version(name)}" for name in LIBRARIES)
    monkeypatch.setattr(fingerprint, "find_import_closure", lambda *_: {})
    assert fingerprint_code(libraries=LIBRARIES) == hashlib.sha256(named.encode()).hexdigest()[:16]


def test_where_the_project_has_several_its_own_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "version", only("opencv-python-headless", "opencv-python"))
    assert find_library("opencv-python")[0] == "opencv-python"


def test_a_library_that_is_not_installed_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "version", only())
    with pytest.raises(OncoshiftError, match=r"opencv-python or .* is not installed; pip install opencv-python$"):
        fingerprint_code("oncoshift.anchors.nuclei", libraries=LIBRARIES)


def test_a_module_that_a_string_names_is_followed(package: Path) -> None:
    (package / "table.py").write_text('ROWS = {"erm": "oncoshift.methods.erm:Erm"}\n')
    assert package / "methods/erm.py" in find_import_closure(["oncoshift.table"]).values()


def test_imports_for_type_checkers_are_not_followed(package: Path) -> None:
    (package / "typed.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import oncoshift.layout\nimport oncoshift.errors\n"
    )
    assert {"oncoshift.errors", "oncoshift.typed"} < set(find_import_closure(["oncoshift.typed"]))
    assert "oncoshift.layout" not in find_import_closure(["oncoshift.typed"])


def test_an_entry_that_is_no_module_is_told() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"oncoshift\.nothing"):
        fingerprint_code("oncoshift.nothing")


def test_each_stage_depends_on_the_hash_of_its_own_code() -> None:
    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
    assert {name for name in stages if name != "code"} == set(fingerprint_stages()) == set(STAGES)
    assert all(f"data/code/{name}.txt" in stages[name]["deps"] for name in STAGES)
