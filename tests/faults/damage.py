"""Faults of one machine in one retraining: damaged files, a full disk, a second scheduler.

What can be made again is made again, and the rest is an error that says what to do. In the end the
project must equal its twin, to which nothing happened.
"""

from __future__ import annotations

import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from faults.moments import Moment
from faults.retrainings import Project
from faults.stock import MODEL, check_whole, take_stock

from oncoshift.errors import OncoshiftError, RegistryError
from oncoshift.registry.loading import find_folder
from oncoshift.registry.store import open_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faults.retrainings import End

_GROUPS = 8

Seen = tuple[str, str]
"""A fault, and what came of it."""


@contextmanager
def mounting_small_disk(path: Path) -> Iterator[Path]:
    """Mount a file system of 3 GB in memory.

    Raises:
        CalledProcessError: the system does not allow it.
    """
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3g", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def damage_everything(folder: Path, disk: Path) -> Iterator[Seen]:
    """Cause one fault after the other in a retraining of one project.

    Args:
        folder: for the twin; exists.
        disk: a small file system of its own, for the project.
    """
    twin, project = Project(folder / "twin"), Project(disk / "project")
    project.change({"ingest": {"root": str(twin.raw)}})
    twin.change({"ingest": {"root": str(twin.raw)}})
    twin.grow(_GROUPS)
    assert twin.retrain().code == 0

    locks = project.root / ".dvc" / "tmp" / "rwlock"
    locks.parent.mkdir(parents=True, exist_ok=True)
    locks.write_text('{"params.yaml": {"re')
    checkpoint = _kill_after_checkpoint(project)
    yield "DVC's table of locks left half-written", "removed, went on"
    flip_bit(checkpoint)
    end = project.retrain(Moment("evaluate"), with_data=False)
    assert end.code == -signal.SIGKILL, end.output
    assert "checkpoint.pt: damaged" in end.output
    yield "a bit of a checkpoint flipped", "named, trained from the first step to the same weights"
    flip_bit(next(project.root.glob("data/packs/none/shards/*.npy")))
    yield "a bit of a pack's shard flipped", _expect_error(project.retrain(with_data=False), "start")
    yield "the disk full in registration", _fill_disk(project, disk)
    yield "a second scheduler starts the same retraining", _start_twice(project)
    check_whole(take_stock(project), take_stock(twin))
    yield "MLflow's database cut in half", _cut_database(project)
    yield "a bit of a registered version's file flipped", _flip_artifact(project)


def _kill_after_checkpoint(project: Project) -> Path:
    """Kill a retraining in training, as soon as a checkpoint is there, and return its file."""
    for operation in range(20, 200, 10):
        end = project.retrain(Moment("train", operation))
        assert end.code == -signal.SIGKILL, end.output
        found = list(project.root.glob("runs/jobs/*/checkpoint.pt"))
        if found:
            return found[0]
    raise AssertionError(end.output)


def _expect_error(end: End, *words: str) -> str:
    """Return the error, one line that holds the words, with which a process ended."""
    assert end.code == OncoshiftError.exit_code, end.output
    assert "Traceback" not in end.output, end.output
    line = next(line for line in reversed(end.output.splitlines()) if line.startswith("error: "))
    assert all(word in line for word in words), line
    return line.removeprefix("error: ")


def flip_bit(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def _fill_disk(project: Project, disk: Path) -> str:
    ballast = disk / "ballast"

    def fill(_: int) -> None:
        with ballast.open("wb") as file, suppress(OSError):
            while True:
                file.write(bytes(2**20))

    words = _expect_error(project.retrain(Moment("register", 20), fill), "make room")
    ballast.unlink()
    return words


def _start_twice(project: Project) -> str:
    second: list[End] = []
    end = project.retrain(Moment("gate"), lambda _: second.append(project.retrain()))
    assert end.code == 0, end.output
    return _expect_error(second[0], "is using this experiment")


def _cut_database(project: Project) -> str:
    database = project.root / "mlruns" / "mlflow.db"
    whole = database.read_bytes()
    database.write_bytes(whole[: len(whole) // 2])
    words = _expect_error(project.retrain(), "restore")
    database.write_bytes(whole)
    assert project.retrain().code == 0, "the backup is used"
    return words


def _flip_artifact(project: Project) -> str:
    client = open_client(project.uri)
    version = client.get_model_version_by_alias(MODEL, "champion")
    file = Path(urlsplit(str(version.source)).path) / "artifacts" / "model.onnx"
    flip_bit(file)
    try:
        find_folder(f"models:/{MODEL}@champion", project.uri)
    except RegistryError as error:
        return str(error)
    finally:
        flip_bit(file)
    raise AssertionError(f"{file}: was used")
