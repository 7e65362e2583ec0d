"""The training core runs without the platform's packages, whatever it imports on the way."""

from __future__ import annotations

import subprocess
import sys

PLATFORM = ("mlflow", "prefect", "dvc", "optuna", "staintools")


def test_training_core_imports_without_the_platform() -> None:
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
