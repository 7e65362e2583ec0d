"""Files that are not regular or too large for a tile are refused without reading a byte."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from oncoshift.serving import limits
from oncoshift.serving.images import UnreadableImageError, read_image_file

if TYPE_CHECKING:
    from pathlib import Path


def test_the_bytes_of_a_file_and_of_a_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "tile.png").write_bytes(b"bytes")
    (tmp_path / "link.png").symlink_to("tile.png")
    assert read_image_file(tmp_path / "tile.png") == read_image_file(tmp_path / "link.png") == b"bytes"


def test_a_pipe_that_nobody_writes_to_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tile.png")
    with pytest.raises(UnreadableImageError, match="not a regular file"):
        read_image_file(tmp_path / "tile.png")


def test_folders_sockets_and_broken_links_say_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.png")
        for name, words in {
            "folder.png": "Is a directory",
            "link.png": "No such file",
            "socket.png": "No such device",
            "/dev/zero": "not a regular file",
        }.items():
            with pytest.raises(UnreadableImageError, match=words):
                read_image_file(tmp_path / name)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(limits.MAX_BYTES + 1)
    with pytest.raises(UnreadableImageError, match=f"{limits.MAX_BYTES + 1} bytes are more than"):
        read_image_file(tmp_path / "sparse.png")
