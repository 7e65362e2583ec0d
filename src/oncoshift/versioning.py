"""DVC, as a subprocess of this interpreter's environment: derived data, versions of raw data, a remote.

DVC wants to know whether it lives in a git checkout. Outside of one it is told so in `.dvc/config.local`, so that the
same project works from an archive or in a container.
"""

from __future__ import annotations

import configparser
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from oncoshift.errors import OncoshiftError

if TYPE_CHECKING:
    from collections.abc import Callable

REMOTE = "embedded"
REMOTE_FOLDER = ".dvc-remote"
_TAIL = 20
_REMOTE_URL = re.compile(r"remote\.(.+)\.url=")
_RUNNING = re.compile(r"Running stage '([^']+)':")


class DvcError(OncoshiftError):
    """DVC, or a stage that it ran, failed; the message ends with what DVC said last."""


def repro(folder: Path, stage: str | None = None, on_line: Callable[[str], None] | None = None) -> list[str]:
    """Bring an experiment's stages up to date.

    Args:
        folder: the experiment.
        stage: this stage and what it depends on; None for all stages.
        on_line: called with each line that DVC and the stages print, as it comes.

    Returns:
        Names of the stages that ran, in order, but for `code`, which always does; empty when nothing had changed, or
        DVC had the result in its cache.

    Raises:
        DvcError: a stage failed.
    """
    lines = _dvc(folder, "repro", *([stage] if stage else []), on_line=on_line)
    ran = [match[1] for line in lines if (match := _RUNNING.fullmatch(line.strip()))]
    return [name for name in ran if name != "code"]


def version_raw(project: Path, path: Path) -> str | None:
    """Version raw data with DVC, if they lie inside the project.

    Args:
        project: the project's root.
        path: a file or folder of raw data.

    Returns:
        The data's DVC hash; None for data outside the project, which are whoever's they are.

    Raises:
        DvcError: DVC refuses, for example because git tracks the files.
    """
    path, project = path.resolve(), project.resolve()
    if not path.is_relative_to(project):
        return None
    relative = path.relative_to(project).as_posix()
    _dvc(project, "add", relative)
    entry = _read_yaml(project / f"{relative}.dvc")["outs"][0]
    return str(entry["md5"])


def ensure_local_remote(project: Path) -> None:
    """Make `.dvc-remote/` a remote, unless the project has one already.

    It is not made the default: a local default would silently win over one that the user adds later.
    """
    if not _remotes(project):
        _dvc(project, "remote", "add", "--local", REMOTE, REMOTE_FOLDER)


def push(folder: Path) -> None:
    """Copy versioned data to the default remote, or to the embedded one while there is no other.

    Raises:
        DvcError: there is no remote, or it cannot be reached.
    """
    _dvc(folder, "push", *(["--remote", REMOTE] if _remotes(folder) == [REMOTE] else []))


def _remotes(folder: Path) -> list[str]:
    """Names of the configured remotes; `dvc remote list` would break long lines."""
    return [match[1] for line in _dvc(folder, "config", "--list") if (match := _REMOTE_URL.match(line))]


def stage_outs(folder: Path) -> dict[str, str]:
    """Path → DVC hash of every output in the experiment's dvc.lock; empty where no stage has run."""
    lock = folder / "dvc.lock"
    if not lock.is_file():
        return {}
    stages = _read_yaml(lock).get("stages", {})
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}


def file_hash(path: Path) -> str:
    """The hash that DVC knows a file by, alone or inside a tracked folder: its MD5, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _dvc(folder: Path, *arguments: str, on_line: Callable[[str], None] | None = None) -> list[str]:
    _say_whether_git(folder)
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
    # Stages call `oncoshift`, which lies beside the interpreter, also where nobody activated its environment.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "true", "PYTHONUNBUFFERED": "1"}
    lines: list[str] = []
    with subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            for line in process.stdout or ():
                lines.append(line.rstrip("\n"))
                if on_line is not None:
                    on_line(lines[-1])
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        tail = "\n".join(line for line in lines[-_TAIL:] if line.strip())
        raise DvcError(f"`dvc {' '.join(arguments)}` failed in {folder} with exit code {process.returncode}:\n{tail}")
    return lines


def _say_whether_git(folder: Path) -> None:
    """Set `core.no_scm` for this copy of the project where no folder above it is a git checkout."""
    if any((parent / ".git").exists() for parent in (folder.resolve(), *folder.resolve().parents)):
        return
    local = folder / ".dvc" / "config.local"
    config = configparser.ConfigParser()
    config.read([folder / ".dvc" / "config", local])
    if not config.has_option("core", "no_scm"):
        own = configparser.ConfigParser()
        own.read(local)
        own.read_dict({"core": {"no_scm": "true"}})
        with local.open("w", encoding="utf-8") as file:
            own.write(file)


def _read_yaml(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return values
