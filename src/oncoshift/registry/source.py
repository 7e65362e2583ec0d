"""Which code made a run: git's commit and whether the working tree differed from it, as MLflow tags."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_GIT_DIRTY

if TYPE_CHECKING:
    from pathlib import Path


def git_tags(folder: Path) -> dict[str, str]:
    """Tags for the commit checked out in `folder`; empty where there is no git or no commit."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {MLFLOW_GIT_COMMIT: commit, MLFLOW_GIT_DIRTY: str(changes != "").lower()}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
