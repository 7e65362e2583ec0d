"""Fingerprints follow the code: what turns a file into a tile is covered, wherever it is imported from."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import oncoshift
from oncoshift import fingerprint
from oncoshift.fingerprint import STAGE_CODE, TILE_CODE, stage_fingerprints, tile_code_fingerprint

if TYPE_CHECKING:
    import pytest

PACKAGE = Path(oncoshift.__file__).parent
ROOTS = ("serving/images.py", "serving/stain/__init__.py", "data/stain/backend.py", "data/packs/tiles.py")
NOT_PIXELS = {"errors.py", "parallel.py", "data/packs/pack.py"}


def imported(file: Path) -> set[Path]:
    """Files of oncoshift that a file imports when it runs, lazily or not."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("oncoshift."):
            path = PACKAGE.joinpath(*node.module.split(".")[1:])
            found.add(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))
    return found


def test_all_code_that_decides_a_pixel_is_in_the_fingerprint() -> None:
    waiting, seen = [PACKAGE / root for root in ROOTS], set()
    while waiting:
        file = waiting.pop()
        name = file.relative_to(PACKAGE).as_posix()
        if file in seen or name in NOT_PIXELS:
            continue
        seen.add(file)
        assert any(name == part or name.startswith(f"{part}/") for part in TILE_CODE), name
        waiting += imported(file)
    assert len(seen) > 15


def test_every_named_file_is_there() -> None:
    for part in (*TILE_CODE, *(part for parts in STAGE_CODE.values() for part in parts)):
        assert (PACKAGE / part).exists(), part


def test_a_changed_file_or_library_changes_what_it_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("serving/colour.py", "data/split.py"):
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / part).write_text("first")
    monkeypatch.setattr(fingerprint, "_PACKAGE", tmp_path)
    monkeypatch.setattr(fingerprint, "TILE_CODE", ("serving/colour.py",))
    monkeypatch.setattr(fingerprint, "STAGE_CODE", {"split": ("data/split.py",), "normalize": ("serving/colour.py",)})
    tiles, stages = tile_code_fingerprint(), stage_fingerprints()
    (tmp_path / "serving/colour.py").write_text("second")
    assert tile_code_fingerprint() != tiles
    assert stage_fingerprints()["normalize"] != stages["normalize"]
    assert stage_fingerprints()["split"] == stages["split"]
    changed = tile_code_fingerprint()
    monkeypatch.setattr(fingerprint, "version", lambda _name: "0")
    assert tile_code_fingerprint() != changed
