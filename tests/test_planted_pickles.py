"""A pickle, or YAML that makes objects, planted in the place of what is read, does not run.

Checkpoints and features: training/test_damaged_files.py; models: registry/test_load_served.py.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xxhash

from oncoshift.data.packs.shards import ShardedImages
from oncoshift.data.parquet import read_table
from oncoshift.errors import OncoshiftError
from oncoshift.files import open_json
from oncoshift.serving.shift import ShiftReference
from oncoshift.settings import load_settings
from oncoshift.versioning import read_stage_outs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Trap:
    """An object that makes a folder when it is unpickled."""

    folder: Path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """Make the folder."""
        return type(self.folder).mkdir, (self.folder,)


@pytest.fixture
def sprung(tmp_path: Path) -> Path:
    return tmp_path / "sprung"


def test_the_trap_works(sprung: Path) -> None:
    pickle.loads(pickle.dumps(Trap(sprung)))  # noqa: S301 - of this test
    assert sprung.is_dir()


def test_a_packs_shard_of_objects(tmp_path: Path, sprung: Path) -> None:
    np.save(tmp_path / "shard.npy", np.array([Trap(sprung)], object), allow_pickle=True)
    checksum = xxhash.xxh3_128((tmp_path / "shard.npy").read_bytes()).hexdigest()
    name = f"plan-{checksum}.npy"
    (tmp_path / "shard.npy").rename(tmp_path / name)
    zero = np.zeros(1, np.int32)
    with pytest.raises((OncoshiftError, ValueError)):
        ShardedImages(tmp_path, [name], zero, zero, 8)[np.array([0])]
    assert not sprung.exists()


def test_a_shift_reference_of_objects(tmp_path: Path, sprung: Path) -> None:
    np.savez(tmp_path / "reference.npz", mean=np.array([Trap(sprung)], object), allow_pickle=True)
    with pytest.raises((OncoshiftError, ValueError, KeyError)):
        ShiftReference.load(tmp_path / "reference.npz")
    assert not sprung.exists()


def test_a_table_and_sealed_json(tmp_path: Path, sprung: Path) -> None:
    packed = pickle.dumps(Trap(sprung))
    (tmp_path / "table.parquet").write_bytes(packed)
    with pytest.raises(OncoshiftError):
        read_table(tmp_path / "table.parquet", ("tile_id",), stage="split")
    with pytest.raises(OncoshiftError):
        open_json(packed, "summary.json")
    assert not sprung.exists()


def test_yaml_that_makes_objects(tmp_path: Path, sprung: Path) -> None:
    tag = f"!!python/object/apply:os.mkdir [{str(sprung)!r}]"
    (tmp_path / "params.yaml").write_text(f"target: {tag}\n")
    with pytest.raises(OncoshiftError):
        load_settings(tmp_path / "params.yaml")
    (tmp_path / "dvc.lock").write_text(f"schema: '2.0'\nstages: {{a: {{outs: [{{path: {tag}, md5: a}}]}}}}\n")
    with pytest.raises(OncoshiftError):
        read_stage_outs(tmp_path)
    assert not sprung.exists()
