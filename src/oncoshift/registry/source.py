"""The code that made a run: git's commit and whether the working tree differed, as MLflow tags."""

from __future__ import annotations

import logging
import os
import subprocess
from typing import TYPE_CHECKING

from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_GIT_DIRTY

from oncoshift.secrets import remove_credentials

if TYPE_CHECKING:
    from pathlib import Path

GIT_ERROR = "oncoshift.git_error"
"""Tag of a run in a git checkout where git fails; its value says why."""

_SECONDS = 30

_log = logging.getLogger(__name__)


class _GitError(Exception):
    """Git failed; the message says why in one line."""


def read_git_tags(folder: Path) -> dict[str, str]:
    """Read tags for the commit checked out in `folder`; empty outside a git checkout.

    Where git fails, a tag says why, and a warning in the log how to mend it.
    """
    tags: dict[str, str] = {}
    try:
        tags[MLFLOW_GIT_COMMIT] = _run_git(folder, "rev-parse", "HEAD")
        tags[MLFLOW_GIT_DIRTY] = str(_run_git(folder, "status", "--porcelain", "--untracked-files=no") != "").lower()
    except _GitError as error:
        if any((parent / ".git").exists() for parent in (folder.resolve(), *folder.resolve().parents)):
            _log.warning("%s: runs do not name the code that made them: %s", folder, error)
            tags[GIT_ERROR] = str(error)
    return tags


def _run_git(folder: Path, *arguments: str) -> str:
    """Run git and return its output.

    Raises:
        _GitError: it failed.
    """
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            env=os.environ | {"LC_ALL": "C"},
            check=False,
        )
    except FileNotFoundError:
        raise _GitError("git is not installed, or not on PATH") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _GitError(str(error)) from None
    if done.returncode == 0:
        return done.stdout.strip()
    if "dubious ownership" in done.stderr:
        remedy = next((line.strip() for line in done.stderr.splitlines() if "safe.directory" in line), "")
        raise _GitError(f"another user owns the checkout, so git does not read it; if you trust it: {remedy}")
    if "unknown revision" in done.stderr:
        raise _GitError("there is no commit yet; make one")
    said = next(iter(done.stderr.splitlines()), f"exit code {done.returncode}")
    raise _GitError(f"`git {' '.join(arguments)}`: {remove_credentials(said)}")
