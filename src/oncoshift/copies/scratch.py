"""Arrays that grow with the data set: in memory while they are small, else in temporary files.

When memory is short, the system can drop pages of a mapped file and read them again later.
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
"""Number of tiles above which arrays are kept in files. Below it they take at most 130 MB of memory
and their index 100 MB."""


class Scratch:
    """A factory of zeroed arrays, in memory or in the files of a folder."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._made = 0

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Make a writable array of zeros.

        Raises:
            DataError: the disk is full.
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
    """Provide storage for the arrays of `count` tiles.

    Files are created in TMPDIR (by default /tmp) and deleted when the block ends, even on errors.
    Arrays must not be used after that.
    """
    if count <= MANY:
        yield Scratch(None)
        return
    with tempfile.TemporaryDirectory(prefix="oncoshift-leaks-") as folder:
        yield Scratch(Path(folder))


def _reserve(file: Path, size: int) -> None:
    """Make a file of zeros and allocate its blocks now.

    Writing to a mapped page when the disk is full would kill the process.
    """
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
