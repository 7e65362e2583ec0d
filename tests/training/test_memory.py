"""Freed memory is kept while requested, and returned afterwards."""

from __future__ import annotations

import platform
import resource
from pathlib import Path

import pytest
import torch

from oncoshift.training.memory import keeping_freed_memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")

PAGES = 64 * 2**20 // resource.getpagesize()


def pages_cleared() -> int:
    """Count the fewest new pages that any of several successive tensors of 64 MiB needed."""
    counts = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2**24)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(counts)


def resident() -> int:
    """Count the process's resident pages."""
    return int(Path("/proc/self/statm").read_text().split()[1])


def test_freed_memory_is_used_again_while_the_context_is_open() -> None:
    with keeping_freed_memory():
        assert pages_cleared() < PAGES / 100


def test_an_inner_context_does_not_end_the_outer_one() -> None:
    with keeping_freed_memory():
        with keeping_freed_memory():
            pass
        assert pages_cleared() < PAGES / 100


def test_memory_is_given_back_at_the_end() -> None:
    with keeping_freed_memory():
        torch.ones(2**26)
        kept = resident()
    assert resident() < kept - 3 * PAGES


def test_an_error_ends_it() -> None:
    kept = []

    def fail() -> None:
        torch.ones(2**26)
        kept.append(resident())
        raise KeyError

    with pytest.raises(KeyError), keeping_freed_memory():
        fail()
    assert resident() < kept[0] - 3 * PAGES
