"""Fixtures of the data tests."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from support.tiny_tiles import write_tree

from oncoshift.data.ingest import ingest
from oncoshift.data.split import run_split
from oncoshift.layout import Layout
from oncoshift.settings import IngestSettings, SplitSettings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A data set of 48 tiles: three organs, four groups a class, two tiles a group."""
    return write_tree(tmp_path / "raw")


@pytest.fixture(scope="session")
def _split_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split")
    tree, layout = write_tree(folder / "raw"), Layout(folder)
    ingest(IngestSettings(adapter="folder"), tree, layout.tiles, base=layout.folder)
    run_split(SplitSettings(), "kidney", ("lung", "colon"), layout)
    return folder


@pytest.fixture
def split_layout(_split_once: Path, tmp_path: Path) -> Layout:
    """The data set of `tree` after the stages ingest and split: kidney from lung and colon."""
    shutil.copytree(_split_once, tmp_path, dirs_exist_ok=True)
    return Layout(tmp_path)
