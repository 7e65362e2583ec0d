"""Shards are whole or absent, carry their checksum, and read as one array."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xxhash

from oncoshift.data.packs.shards import ShardedImages, find_shard, is_whole, write_shard
from oncoshift.errors import DataError
from oncoshift.files import xxh3_file

if TYPE_CHECKING:
    from pathlib import Path

TILES = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)


def test_reads_any_rows_across_shards(tmp_path: Path) -> None:
    names = [write_shard(tmp_path, plan, TILES[part], len(TILES[part]), 8)
             for plan, part in (("a", slice(0, 3)), ("b", slice(3, 7)))]  # fmt: skip
    order = np.array([6, 0, 3, 3, 2])
    shard, slot = np.r_[0, 0, 0, 1, 1, 1, 1].astype(np.int32), np.r_[0:3, 0:4].astype(np.int32)
    images = ShardedImages(tmp_path, names, shard, slot, 8)
    assert images.shape == (len(images), 8, 8, 3) == (7, 8, 8, 3)
    np.testing.assert_array_equal(images[order], TILES[order])
    np.testing.assert_array_equal(images[np.int64(5)], TILES[5])
    assert images[np.array([], np.int64)].shape == (0, 8, 8, 3)
    buffer = np.zeros((5, 8, 8, 3), np.uint8)
    assert images.read(order, out=buffer) is buffer
    np.testing.assert_array_equal(buffer, TILES[order])
    images[order][:] = 0
    np.testing.assert_array_equal(images[order], TILES[order])


def test_the_file_is_a_plain_npy(tmp_path: Path) -> None:
    name = write_shard(tmp_path, "plan", iter(TILES), 7, 8)
    np.testing.assert_array_equal(np.load(tmp_path / name), TILES)
    assert name == write_shard(tmp_path, "plan", TILES, 7, 8)


@pytest.mark.parametrize("offset", [0, 100, 500, -1])
def test_one_changed_byte_is_found(tmp_path: Path, offset: int) -> None:
    path = tmp_path / write_shard(tmp_path, "plan", TILES, 7, 8)
    assert is_whole(path)
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    assert not is_whole(path)
    assert find_shard(tmp_path, "plan") is None
    assert not path.exists()


def test_a_cut_or_absent_file_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / write_shard(tmp_path, "plan", TILES, 7, 8)
    path.write_bytes(path.read_bytes()[:-10])
    assert not is_whole(path)
    assert not is_whole(tmp_path / "plan-0.npy")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def broken():  # type: ignore[no-untyped-def]
        yield TILES[0]
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        write_shard(tmp_path, "plan", broken(), 7, 8)
    with pytest.raises(ValueError, match="got 3 tiles and was to have 7"):
        write_shard(tmp_path, "plan", TILES[:3], 7, 8)
    with pytest.raises(ValueError, match="not 16²"):
        write_shard(tmp_path, "plan", TILES, 7, 16)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_cannot_be_read_or_removed_is_told_from_one_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    name = write_shard(tmp_path, "plan", TILES, 7, 8)
    images = ShardedImages(tmp_path, [name], np.zeros(7, np.int32), np.arange(7, dtype=np.int32), 8)
    with monkeypatch.context() as patch:
        patch.setattr("oncoshift.data.packs.shards.xxh3_file", refuse)
        with pytest.raises(DataError, match=r"npy: cannot be read: Permission denied$"):
            images.read(np.array([0]))
    assert (tmp_path / name).is_file()
    (tmp_path / name).write_bytes(b"x")
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", refuse)
        with pytest.raises(DataError, match=r"damaged: .* cannot be removed"):
            images.read(np.array([0]))
    with pytest.raises(DataError, match=r"damaged: .* was removed"):
        images.read(np.array([0]))
    with pytest.raises(DataError, match="is gone"):
        images.read(np.array([0]))


def test_a_shard_that_was_misread_once_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write_shard(tmp_path, "plan", TILES, 7, 8)
    answers = iter([xxhash.xxh3_128(b"other"), xxh3_file(tmp_path / name)])
    monkeypatch.setattr("oncoshift.data.packs.shards.xxh3_file", lambda _: next(answers))
    images = ShardedImages(tmp_path, [name], np.zeros(7, np.int32), np.arange(7, dtype=np.int32), 8)
    np.testing.assert_array_equal(images.read(np.array([0])), TILES[:1])
    assert (tmp_path / name).is_file()
