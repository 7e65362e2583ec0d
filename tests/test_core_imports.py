"""The training core runs where the platform's packages are absent, and the layers import downwards only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
CORE = "models", "methods", "training", "evaluation", "explain", "selection", "serving"
PLATFORM = ("mlflow", "prefect", "dvc", "optuna", "staintools")


def test_training_core_imports_without_the_platform():
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {PLATFORM!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import oncoshift.training.job, oncoshift.evaluation.domains, oncoshift.explain.explanation
import oncoshift.data.loading, oncoshift.settings
print("imported")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "imported", run.stderr


def imports(file) -> set[str]:  # type: ignore[no-untyped-def]
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_nothing_under_src_imports_prefect():
    files = list((PROJECT / "src").rglob("*.py"))
    assert len(files) > 30
    assert [file for file in files if any(name.split(".")[0] == "prefect" for name in imports(file))] == []


@pytest.mark.parametrize("package", [name for name in CORE if name != "serving"])
def test_core_packages_import_no_platform(package):
    for file in (PROJECT / "src/oncoshift" / package).rglob("*.py"):
        assert not {name.split(".")[0] for name in imports(file)} & set(PLATFORM), file


def test_serving_imports_nothing_else_of_oncoshift():
    for file in (PROJECT / "src/oncoshift/serving").rglob("*.py"):
        ours = {name for name in imports(file) if name.startswith("oncoshift")}
        assert all(name.startswith("oncoshift.serving") for name in ours), file
