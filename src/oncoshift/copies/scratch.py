"""Arrays that grow with the data set: in memory while they are small, else in files that are gone when they are done.

Pages of a file can be taken back by the system whenever memory is short, and are read again when they are needed.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oncoshift.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import DTypeLike, NDArray

MANY = 20_000
"""Tiles from which on their arrays lie in files; those of fewer take 130 MB, and their index 100 MB at most."""


class Scratch:
    """Makes arrays of zeros, in memory or in files of a folder."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._made = 0

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Make an array of zeros that may be written.

        Raises:
            DataError: the disk has not enough room.
        """
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if self.folder is None or size == 0:
            return np.zeros(shape, dtype)
        file = self.folder / f"{self._made}.bin"
        self._made += 1
        _reserve(file, size)
        return np.memmap(file, dtype, "r+", shape=shape)


@contextmanager
def open_scratch(count: int) -> Iterator[Scratch]:
    """Provide room for arrays of `count` tiles; what was made in files must not be used after the block.

    The files lie in the folder that TMPDIR names, by default /tmp, and are deleted at the end, whatever happened.
    """
    if count <= MANY:
        yield Scratch(None)
        return
    with tempfile.TemporaryDirectory(prefix="oncoshift-leaks-") as folder:
        yield Scratch(Path(folder))


def _reserve(file: Path, size: int) -> None:
    """Make a file of zeros, whose blocks are taken now: a write to a mapped page that finds the disk full is fatal."""
    try:
        with file.open("wb") as opened:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(opened.fileno(), 0, size)
            else:
                opened.truncate(size)
    except OSError as error:
        raise DataError(
            f"{file.parent}: no room for {size / 1e6:.0f} MB of features that tiles are compared by "
            f"({error.strerror}); let TMPDIR name a folder on a disk with more"
        ) from error
