"""Fixtures of the data tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tiny_tiles import write_tree

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A data set of 48 tiles: three organs, four groups a class, two tiles a group."""
    return write_tree(tmp_path / "raw")
