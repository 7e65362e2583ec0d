"""DVC, run as a subprocess: derived data, versions of raw data, a remote.

DVC must know whether it runs in a git checkout. Outside of one, `core.no_scm` is set in
`.dvc/config.local`, so the same project works from an archive or in a container.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from oncoshift.errors import OncoshiftError
from oncoshift.files import atomic, hold_lock
from oncoshift.layout import Layout
from oncoshift.logs import FORMAT_VARIABLE
from oncoshift.secrets import remove_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

REMOTE = "embedded"
REMOTE_FOLDER = ".dvc-remote"
_TAIL = 20
_UNUSED = "Removing "
"""Beginning of a line in which `dvc gc --dry` names an object."""
_REMOTE_URL = re.compile(r"remote\.(.+)\.url=")
_RUNNING = re.compile(r"Running stage '([^']+)':")
_REMEDIES = {
    "file is not a database": "DVC's index is damaged; remove its folder, $DVC_SITE_CACHE_DIR or else .dvc/tmp/site: "
    "DVC makes it again",
}
"""DVC messages that lack advice → what to do."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class DvcError(OncoshiftError):
    """DVC, or a stage that it ran, failed; the message ends with the last lines of its output."""


def repro(folder: Path, stage: str | None = None, on_line: Callable[[str], None] | None = None) -> list[str]:
    """Bring an experiment's stages up to date.

    Args:
        folder: the experiment.
        stage: this stage and what it depends on; None for all stages.
        on_line: called with each line that DVC and the stages print, as it is printed.

    Returns:
        Names of the stages that ran, in order, without `code`, which always runs; empty if nothing
        had changed or DVC restored the results from its cache.

    Raises:
        DvcError: a stage failed, or dvc.lock is damaged.
    """
    read_stage_outs(folder)  # raises where dvc.lock is damaged
    lines = _run_dvc(folder, "repro", *([stage] if stage else []), on_line=on_line)
    ran = [match[1] for line in lines if (match := _RUNNING.fullmatch(line.strip()))]
    return [name for name in ran if name != "code"]


def is_current(folder: Path, stage: str, fingerprints: dict[str, str]) -> bool:
    """Return whether `repro` would have nothing to do, without running a stage.

    Args:
        folder: the experiment.
        stage: this stage and what it depends on.
        fingerprints: hashes of the stages' code as it is now; see `fingerprint.fingerprint_stages`.

    Raises:
        DvcError: DVC failed, or dvc.lock is damaged.
    """
    kept = {file.stem: file.read_bytes().strip() for file in Layout(folder).code.glob("*.txt")}
    if kept != {stage: digest.encode() for stage, digest in fingerprints.items()} or not read_stage_outs(folder):
        return False
    said = [line for line in _run_dvc(folder, "status", "--json", "--with-deps", stage) if line.startswith("{")]
    try:
        changed: dict[str, Any] = json.loads(said[-1])
    except (IndexError, ValueError):
        raise DvcError(f"`dvc status` in {folder} did not say what has changed: {' '.join(said)[:200]!r}") from None
    return changed.keys() <= {"code"}  # which always counts as changed


def is_versioned(project: Path, path: Path) -> bool:
    """Return whether DVC tracks raw data; True outside the project, where it never does."""
    pointer = _locate_pointer(project, path)
    return pointer is None or pointer.is_file()


def version_raw(project: Path, path: Path) -> str | None:
    """Version raw data with DVC, if they lie inside the project.

    Args:
        project: the project's root.
        path: a file or folder of raw data.

    Returns:
        The data's DVC hash; None for data outside the project, which DVC does not version.

    Raises:
        DvcError: DVC refuses, for example because git tracks the files, or the .dvc file beside
            them is damaged.
    """
    project = project.resolve()
    pointer = _locate_pointer(project, path)
    if pointer is None:
        return None
    if pointer.exists():
        _read_pointer_hash(pointer)
    _run_dvc(project, "add", pointer.relative_to(project).as_posix().removesuffix(".dvc"))
    return _read_pointer_hash(pointer)


def ensure_local_remote(project: Path) -> None:
    """Add `.dvc-remote/` as a remote, unless the project has one.

    It is not the default remote, as a local default would silently override one that the user adds
    later. Two retrainings may begin at once, so one waits for the other's.
    """
    with hold_lock(project / ".dvc"):
        if not _list_remotes(project):
            _run_dvc(project, "remote", "add", "--local", REMOTE, REMOTE_FOLDER)


def push(folder: Path) -> None:
    """Copy versioned data to the default remote, or to the embedded one if there is no other.

    Raises:
        DvcError: there is no remote, or it cannot be reached.
    """
    _run_dvc(folder, "push", *(["--remote", REMOTE] if _list_remotes(folder) == [REMOTE] else []))


def find_cache(folder: Path) -> Path:
    """Find the folder of DVC's cache, which the experiments of a project share."""
    return Path(_run_dvc(folder, "cache", "dir")[-1])


def check_out(folder: Path) -> None:
    """Bring to its place what dvc.lock and .dvc files name and DVC's cache has."""
    _run_dvc(folder, "checkout", "--allow-missing")


def list_unused(folders: Sequence[Path], needed: Iterable[str]) -> list[Path]:
    """List the objects of DVC's cache that nothing names; nothing is removed.

    Args:
        folders: experiments that share the cache.
        needed: DVC hashes that count as named.
    """
    cache = find_cache(folders[0])
    with TemporaryDirectory(prefix="oncoshift-") as scratch:
        # DVC keeps what a project names, so one that names the needed hashes joins the others.
        keeper = Path(scratch)
        (keeper / ".dvc").mkdir()
        (keeper / ".dvc" / "config").write_text(f"[core]\n    no_scm = true\n[cache]\n    dir = {cache}\n")
        for digest in needed:
            if (cache / "files" / "md5" / digest[:2] / digest[2:]).is_file():
                (keeper / f"{digest}.dvc").write_text(f"outs:\n- md5: {digest}\n  hash: md5\n  path: {digest}\n")
        projects = [str(folder.resolve()) for folder in (*folders[1:], keeper)]
        lines = _run_dvc(folders[0], "gc", "--workspace", "--dry", "--force", "--projects", *projects)
    return [Path(line.removeprefix(_UNUSED)) for line in lines if line.startswith(_UNUSED)]


def read_raw_hash(project: Path, path: Path) -> str | None:
    """Read the DVC hash of raw data from the .dvc file beside them; None if there is no such file.

    Raises:
        DvcError: the .dvc file is damaged.
    """
    pointer = _locate_pointer(project, path)
    return _read_pointer_hash(pointer) if pointer is not None and pointer.is_file() else None


def _list_remotes(folder: Path) -> list[str]:
    """List the configured remotes; `dvc remote list` would wrap long lines."""
    return [match[1] for line in _run_dvc(folder, "config", "--list") if (match := _REMOTE_URL.match(line))]


def read_stage_outs(folder: Path) -> dict[str, str]:
    """Read path → DVC hash of every output in the experiment's dvc.lock; empty if no stage has run.

    Raises:
        DvcError: dvc.lock is damaged.
    """
    lock = folder / "dvc.lock"
    if not lock.is_file():
        return {}

    def pick(content: Any) -> dict[str, str]:
        stages = content["stages"].values() if content["schema"] else ()
        return {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}

    return _read_part(lock, pick, "restore it from git, or remove it: what has run comes back from DVC's cache")


def hash_file(path: Path) -> str:
    """Return the hash by which DVC knows a file, alone or in a tracked folder: its hex MD5."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _run_dvc(folder: Path, *arguments: str, on_line: Callable[[str], None] | None = None) -> list[str]:
    _set_no_scm(folder)
    _mend_rwlock(folder)
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
    # Stages call `oncoshift`, which lies beside the interpreter even if its environment is not
    # active.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "true", "PYTHONUNBUFFERED": "1"}
    environment.pop(FORMAT_VARIABLE, None)  # this process says what they print
    # DVC unpickles its index. By default that lies below /var/tmp/dvc, where every user may write.
    environment.setdefault("DVC_SITE_CACHE_DIR", str(folder.resolve() / ".dvc" / "tmp" / "site"))
    lines: list[str] = []
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    with subprocess.Popen(command, cwd=folder, env=environment, **pipes) as process:
        try:
            for line in process.stdout or ():
                lines.append(remove_credentials(line.rstrip("\n")))  # a remote's address may contain some
                if on_line is not None:
                    on_line(lines[-1])
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        tail = [line for line in lines[-_TAIL:] if line.strip()]
        tail += [remedy for fault, remedy in _REMEDIES.items() if any(fault in line for line in tail)]
        said = "\n".join(tail)
        raise DvcError(f"`dvc {' '.join(arguments)}` failed in {folder} with exit code {process.returncode}:\n{said}")
    return lines


def _mend_rwlock(folder: Path) -> None:
    """Remove DVC's rwlock table if a process was killed while writing it.

    Every later call of DVC would fail on it. The table is written under a lock on the file beside
    it, so a broken table that is not locked was left behind.
    """
    table = folder / ".dvc" / "tmp" / "rwlock"
    if _is_table(table):
        return
    with hold_lock(table.with_name("rwlock.lock")):
        if not _is_table(table):
            _log.warning("%s: removed; a process was killed while it wrote it", table)
            table.unlink()


def _is_table(path: Path) -> bool:
    """Return whether a rwlock table is absent or valid."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return True
    except ValueError:  # neither JSON nor even text
        return False
    return isinstance(content, dict) and all(isinstance(entries, dict) for entries in content.values())


def _set_no_scm(folder: Path) -> None:
    """Set `core.no_scm` for this copy of the project if it lies in no git checkout."""
    if any((parent / ".git").exists() for parent in (folder.resolve(), *folder.resolve().parents)):
        return
    local = folder / ".dvc" / "config.local"
    config, own = configparser.ConfigParser(), configparser.ConfigParser()
    try:
        config.read([folder / ".dvc" / "config", local], encoding="utf-8")
        own.read(local, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise DvcError(f"{folder / '.dvc'}: config or config.local is damaged: {said}; mend or remove it") from None
    if not config.has_option("core", "no_scm"):
        own.read_dict({"core": {"no_scm": "true"}})
        with atomic(local) as temporary, temporary.open("w", encoding="utf-8") as file:
            own.write(file)


def _locate_pointer(project: Path, path: Path) -> Path | None:
    """Return the path of the .dvc file of raw data, present or not; None outside the project."""
    path = path.resolve()
    return path.with_name(f"{path.name}.dvc") if path.is_relative_to(project.resolve()) else None


def _read_pointer_hash(pointer: Path) -> str:
    """Read the hash in a .dvc file; see `_read_part` for the error."""
    remedy = "restore it from git, or remove it: it is made again from the data"
    return _read_part(pointer, lambda content: str(content["outs"][0]["path"] and content["outs"][0]["md5"]), remedy)


def _read_part(path: Path, pick: Callable[[Any], T], remedy: str) -> T:
    """Read part of a YAML file that DVC wrote.

    Raises:
        DvcError: the file is damaged.
    """
    try:
        return pick(YAML(typ="safe").load(path.read_text(encoding="utf-8")))
    except (YAMLError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
        raise DvcError(f"{path}: damaged, perhaps cut short; {remedy}") from None
