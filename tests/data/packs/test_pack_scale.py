"""Packs have the scale of most tiles, resample others to it, and change by nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest

from oncoshift.data.ingest import ingest
from oncoshift.data.normalize import run_normalize
from oncoshift.data.packs.scale import read_scale
from oncoshift.data.parquet import write_table
from oncoshift.errors import DataError
from oncoshift.serving.images import decode
from oncoshift.serving.scale import resample
from oncoshift.settings import IngestSettings, NormalizeSettings

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.layout import Layout

SETTINGS = NormalizeSettings(tile_size=64)  # of tiles of 32 pixels


def declare(layout: Layout, **scales: float) -> pd.DataFrame:
    """Declare 0.4 µm per pixel of all tiles but those whose names begin as given."""
    table = pd.read_parquet(layout.tiles / "tiles.parquet").assign(um_per_pixel=0.4)
    for name, scale in scales.items():
        table.loc[table["tile_id"].str.startswith(name), "um_per_pixel"] = scale
    write_table(table, layout.tiles / "tiles.parquet")
    return table


def test_one_scale_of_all_tiles_is_recorded_and_changes_no_pack(split_layout: Layout) -> None:
    plain = run_normalize(SETTINGS, split_layout)["none"].pack.content
    assert read_scale(split_layout.packs) is None
    declare(split_layout)
    done = run_normalize(SETTINGS, split_layout)["none"]
    assert (done.pack.content, done.report.made) == (plain, 0)
    assert read_scale(split_layout.packs) == pytest.approx(0.2)
    declare(split_layout, **{"": float("nan")})
    run_normalize(SETTINGS, split_layout)
    assert read_scale(split_layout.packs) is None


def test_tiles_of_another_scale_are_resampled_and_the_others_kept(split_layout: Layout) -> None:
    run_normalize(SETTINGS, split_layout)
    table = declare(split_layout, lung=0.25)
    odd = table["tile_id"].str.startswith("lung").to_numpy().nonzero()[0]
    done = run_normalize(SETTINGS, split_layout)["none"]
    assert done.report.made == len(odd)
    row = int(odd[0])
    image = decode((split_layout.folder / table["path"][row]).read_bytes())
    assert (done.pack.images[row] == resample(image, 51.2, 64)).all()
    # The same scale declared again changes nothing; another one makes these tiles again.
    assert run_normalize(SETTINGS, split_layout)["none"].report.made == 0
    declare(split_layout, lung=0.8)
    assert run_normalize(SETTINGS, split_layout)["none"].report.made == len(odd)


def test_a_tile_that_shows_too_little_is_named(split_layout: Layout) -> None:
    declare(split_layout, lung=0.1)
    with pytest.raises(DataError, match=r"lung/.*shows 3.2 µm, and the model needs 12.8 µm.*most tiles show 12.8 µm"):
        run_normalize(SETTINGS, split_layout)


def test_the_scale_of_a_manifest_is_in_the_table_if_a_tile_has_one(tree: Path, tmp_path: Path) -> None:
    names = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*.png"))
    settings = IngestSettings(adapter="manifest", join_near_duplicates=False)
    for scales, expected in ((["0.5", ""], [0.5, 0]), (["0.5", "0.25"], [0.5, 0.25]), (["", ""], None)):
        rows = [
            f"{name},lung,benign,g{number},{scale}"
            for number, (name, scale) in enumerate(zip(names, scales, strict=False))
        ]
        (tree / "tiles.csv").write_text("\n".join(["path,organ,label,group,um_per_pixel", *rows]) + "\n")
        warnings = ingest(settings, tree, tmp_path / "tiles", base=tmp_path).warnings
        assert any("tiles have 2 scales" in line for line in warnings) == (len(set(scales) - {""}) == 2)
        table = pd.read_parquet(tmp_path / "tiles" / "tiles.parquet")
        found = table["um_per_pixel"].fillna(0).tolist() if "um_per_pixel" in table else None
        assert found == expected


@pytest.mark.parametrize("scale", ["wide", "-1", "0", "nan", "1000"])
def test_a_scale_that_is_none_is_an_error_with_its_line(tree: Path, tmp_path: Path, scale: str) -> None:
    (tree / "tiles.csv").write_text(f"path,organ,label,group,um_per_pixel\na.png,lung,benign,g,{scale}\n")
    with pytest.raises(DataError, match=f"line 2, column um_per_pixel: '{scale}' is not a number from 0.01 to 100"):
        ingest(IngestSettings(adapter="manifest"), tree, tmp_path / "tiles", base=tmp_path)
