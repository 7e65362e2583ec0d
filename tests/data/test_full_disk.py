"""A full disk stops a stage with one error, and a restarted stage resumes."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from support.tiny_tiles import write_tree

from oncoshift.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STAGES = {"ingest": "tiles", "split": "splits", "normalize": "packs"}


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """Limit every file of this process and its children to `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("stage", "workers"), [("ingest", 1), ("split", 1), ("normalize", 1), ("normalize", 2)])
def test_a_full_disk_is_one_error_and_a_second_start_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stage: str, workers: int
) -> None:
    (tmp_path / "params.yaml").write_text(
        "target: kidney\nsources: [lung, colon]\ningest: {adapter: folder}\n"
        f"normalize: {{tile_size: 32, variants: [none], shard_tiles: 16, workers: {workers}}}\n"
    )
    write_tree(tmp_path / "data" / "raw")
    monkeypatch.chdir(tmp_path)
    for before in list(STAGES)[: list(STAGES).index(stage)]:
        assert main([before]) == 0
    with small_disk(400):
        assert main([stage]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: data/{STAGES[stage]}")
    assert "the disk is full (File too large): " in error
    assert " MB are free" in error
    assert error.endswith("make room, and run it again")
    assert main([stage]) == 0
