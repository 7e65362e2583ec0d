"""Reuse of freed CPU memory: the C library keeps what one step frees for the next."""

from __future__ import annotations

import ctypes
import platform
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Numbers of glibc's options, from malloc.h; see mallopt(3)."""

_DEFAULTS = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20}
"""The values to which glibc adapts once a large block is freed, as happens soon with torch."""

_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}

_depth = 0


@contextmanager
def keeping_freed_memory() -> Iterator[None]:
    """Keep large freed blocks in the process while the context is open, and release them after.

    By default, glibc maps memory for each large activation and unmaps it at once, and the kernel
    zeroes every page each time. A nested context changes nothing. Other C libraries are left alone.
    """
    global _depth
    _depth += 1
    if _depth == 1:
        _configure(_KEEP)
    try:
        yield
    finally:
        _depth -= 1
        if _depth == 0:
            _configure(_DEFAULTS)


def _configure(options: dict[int, int]) -> None:
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    for option, value in options.items():
        library.mallopt(option, value)
    if options is _DEFAULTS:
        library.malloc_trim(0)
