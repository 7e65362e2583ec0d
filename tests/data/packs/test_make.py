"""Packs gain only what is new, resume after a kill, repair damage, and hold what was requested."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
from PIL import Image
from support.tiny_tiles import tissue

from oncoshift.data.packs import make
from oncoshift.data.packs.make import PackRecipe, update_pack
from oncoshift.data.packs.pack import Pack, PackNormalization, pack_digest
from oncoshift.data.packs.tiles import FileReader, PackReader, TileMaker, TileSource
from oncoshift.errors import DataError
from oncoshift.serving.images import read_tile
from oncoshift.serving.stain import fit_reference

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SIDE = 32
RECIPE = PackRecipe(PackNormalization("none"), SIDE, "code", "none", shard_tiles=4)


class CountingReader(FileReader):
    """A file reader that counts how often each tile is read."""

    def __init__(self, base: Path) -> None:
        super().__init__(base, SIDE)
        self.reads: Counter[str] = Counter()

    def __call__(self, tile: TileSource) -> NDArray[np.uint8]:
        self.reads[tile.tile_id] += 1
        return super().__call__(tile)


def write(folder: Path, count: int, first: int = 0, groups: int = 3) -> list[TileSource]:
    tiles = []
    for row in range(first, first + count):
        path = folder / f"{row:03d}.png"
        Image.fromarray(tissue(row, SIDE)).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        tiles.append(TileSource(row, path.name, f"g{row % groups}", path.name, digest))
    return tiles


def update(folder: Path, tiles: list[TileSource], recipe: PackRecipe = RECIPE):  # type: ignore[no-untyped-def]
    """Update the pack; return it, its report, and the tiles that were read from files."""
    reader = CountingReader(folder)
    pack, report = update_pack(folder / "pack", tiles, recipe, TileMaker(reader))
    return pack, report, set(reader.reads)


def holds(pack: Pack, folder: Path, tiles: list[TileSource]) -> None:
    assert pack.index["tile_id"].tolist() == [tile.tile_id for tile in tiles]
    rows = pack.rows([tile.tile_id for tile in tiles])
    for image, tile in zip(pack.images[rows], tiles, strict=True):
        np.testing.assert_array_equal(image, read_tile((folder / tile.path).read_bytes(), SIDE))


def test_holds_the_tiles_and_says_of_each_what_it_is(tmp_path: Path) -> None:
    tiles = write(tmp_path, 10)
    pack, report, _ = update(tmp_path, tiles)
    holds(pack, tmp_path, tiles)
    assert report == (0, 10, 0)
    assert pack.index["group"].tolist() == [tile.group for tile in tiles]
    assert pack.index["sha256"].tolist() == [tile.sha256 for tile in tiles]
    assert pack.stain.outcomes == {"untouched": 10}
    assert len(list((tmp_path / "pack/shards").iterdir())) == 3


def test_new_tiles_alone_are_made_and_the_rest_stays(tmp_path: Path) -> None:
    tiles = write(tmp_path, 10)
    update(tmp_path, tiles)
    before = set((tmp_path / "pack/shards").iterdir())
    more = write(tmp_path, 2, first=10)
    mixed = [more[0], *tiles, more[1]]
    pack, report, read = update(tmp_path, mixed)
    assert read == {tile.tile_id for tile in more}
    assert report == (10, 2, 0)
    assert before < set((tmp_path / "pack/shards").iterdir())
    holds(pack, tmp_path, mixed)
    assert update(tmp_path, mixed)[1:] == ((12, 0, 0), set())


def test_a_pack_that_grew_is_the_same_as_one_made_at_once(tmp_path: Path) -> None:
    tiles = write(tmp_path, 10)
    update(tmp_path, tiles[:7])
    grown, *_ = update(tmp_path, tiles)
    at_once, _ = update_pack(tmp_path / "other", tiles, RECIPE, TileMaker(FileReader(tmp_path, SIDE)))
    assert grown.content == at_once.content == pack_digest(tmp_path / "other")
    moved, *_ = update(tmp_path, tiles[::-1])
    assert moved.content != at_once.content, "rows are numbers that other files keep"


def test_tiles_that_left_leave_and_sparse_shards_are_made_again(tmp_path: Path) -> None:
    tiles = write(tmp_path, 8)
    update(tmp_path, tiles)
    fewer = [*tiles[:3], tiles[7]]
    pack, report, read = update(tmp_path, fewer)
    assert read == {tiles[7].tile_id}, "three quarters of the first shard are in use, one quarter of the second"
    assert report == (3, 1, 0)
    holds(pack, tmp_path, fewer)
    assert len(list((tmp_path / "pack/shards").iterdir())) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_only_a_damaged_shard_is_made_again(tmp_path: Path, damage: str) -> None:
    tiles = write(tmp_path, 12)
    pack, *_ = update(tmp_path, tiles)
    name = pack.index["shard"][5]
    path = tmp_path / "pack/shards" / name
    data = bytearray(path.read_bytes())
    data[300] ^= 255
    {"flip": lambda: path.write_bytes(data), "cut": lambda: path.write_bytes(data[:500]), "remove": path.unlink}[
        damage
    ]()
    mended, report, read = update(tmp_path, tiles)
    assert read == {tile.tile_id for tile in tiles[4:8]}
    assert report == (8, 4, 1)
    holds(mended, tmp_path, tiles)
    assert mended.content == pack.content


def test_a_killed_run_goes_on_and_the_old_pack_stays_readable(tmp_path: Path) -> None:
    old = write(tmp_path, 4)
    update(tmp_path, old)
    tiles = old + write(tmp_path, 12, first=4)

    class Killed(CountingReader):
        def __call__(self, tile: TileSource) -> NDArray[np.uint8]:
            if tile.row >= 12:
                raise KeyboardInterrupt
            return super().__call__(tile)

    with pytest.raises(KeyboardInterrupt):
        update_pack(tmp_path / "pack", tiles, RECIPE, TileMaker(Killed(tmp_path)))
    holds(Pack.open(tmp_path / "pack"), tmp_path, old)
    pack, report, read = update(tmp_path, tiles)
    assert read == {tile.tile_id for tile in tiles[12:]}
    assert report.made == 12
    holds(pack, tmp_path, tiles)
    assert all(path.suffix == ".npy" for path in (tmp_path / "pack/shards").iterdir())


def test_another_recipe_makes_all_again(tmp_path: Path) -> None:
    tiles = write(tmp_path, 5)
    first, *_ = update(tmp_path, tiles)
    again, _, read = update(tmp_path, tiles, replace(RECIPE, code="changed"))
    assert len(read) == 5
    assert again.content != first.content
    assert again.recipe != first.recipe


def test_the_same_bytes_twice_lie_once(tmp_path: Path) -> None:
    tile, other = write(tmp_path, 2)
    twin = tile._replace(row=2, tile_id="twin", group="g9")
    pack, *_ = update(tmp_path, [tile, other, twin])
    holds(pack, tmp_path, [tile, other, twin])
    assert pack.index["slot"].tolist() == [0, 1, 0]


def test_a_file_that_changed_or_went_is_told(tmp_path: Path) -> None:
    tiles = write(tmp_path, 2)
    (tmp_path / tiles[0].path).write_bytes(b"other")
    with pytest.raises(DataError, match=r"000\.png: changed since ingest; run `dvc repro`"):
        update(tmp_path, tiles)
    (tmp_path / tiles[0].path).unlink()
    with pytest.raises(DataError, match="it was there at ingest"):
        update(tmp_path, tiles)


def test_processes_give_the_same_pack(tmp_path: Path) -> None:
    tiles = write(tmp_path, 10)
    alone, *_ = update(tmp_path, tiles)
    seen: list[tuple[int, int]] = []
    pack, _ = update_pack(
        tmp_path / "parallel", tiles, RECIPE, TileMaker(FileReader(tmp_path, SIDE)), workers=2,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert pack.content == alone.content
    assert pack.index["shard"].tolist() == alone.index["shard"].tolist()
    holds(pack, tmp_path, tiles)
    assert seen[0] == (0, 10)
    assert seen[-1] == (10, 10)
    (tmp_path / tiles[3].path).unlink()
    with pytest.raises(DataError, match="it was there at ingest"):
        update_pack(tmp_path / "third", tiles, RECIPE, TileMaker(FileReader(tmp_path, SIDE)), workers=2)


def test_one_fit_a_group_makes_a_group_again_when_it_grows(tmp_path: Path) -> None:
    tiles = write(tmp_path, 9)
    plain, *_ = update(tmp_path, tiles)
    reference = fit_reference(plain.images[0], "macenko", standardize_luminosity=True)
    stain = PackNormalization("macenko", reference, tiles[0].tile_id, fit="group")
    recipe = replace(RECIPE, stain=stain, backend="numba", shard_tiles=3)

    def stained(folder: str, tiles: list[TileSource], recipe: PackRecipe):  # type: ignore[no-untyped-def]
        maker = TileMaker(PackReader(tmp_path / "pack"), reference, "numba")
        return update_pack(tmp_path / folder, tiles, recipe, maker)

    pack, report = stained("macenko", tiles, recipe)
    assert report.made == 9
    assert pack.stain.outcomes == {"normalised": 9}
    single, _ = stained("single", tiles, replace(recipe, stain=replace(stain, fit="tile")))
    assert not np.array_equal(pack.images[np.arange(9)], single.images[np.arange(9)])
    more = tiles + write(tmp_path, 1, first=9)
    update(tmp_path, more)
    grown, report = stained("macenko", more, recipe)
    assert report.made == 4, "the three tiles of the group that grew, and the new one"
    rows = np.array([1, 2, 4, 5])
    np.testing.assert_array_equal(grown.images[rows], pack.images[rows])


def test_a_damaged_index_makes_the_pack_again(tmp_path: Path) -> None:
    tiles = write(tmp_path, 5)
    update(tmp_path, tiles)
    about = json.loads((tmp_path / "pack/pack.json").read_text())
    (tmp_path / "pack" / about["index"]).write_bytes(b"PAR1")
    pack, report, _ = update(tmp_path, tiles)
    assert report == (0, 5, 0)
    holds(pack, tmp_path, tiles)


def test_a_missing_shard_is_told_on_opening(tmp_path: Path) -> None:
    pack, *_ = update(tmp_path, write(tmp_path, 5))
    (tmp_path / "pack/shards" / pack.index["shard"][0]).unlink()
    with pytest.raises(DataError, match="1 shards are missing"):
        Pack.open(tmp_path / "pack")


def test_few_tiles_start_no_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("started a process")

    monkeypatch.setattr(make, "ProcessPoolExecutor", refuse)
    _, report, _ = update(tmp_path, write(tmp_path, 10))
    assert report.made == 10


def test_two_processes_do_not_make_one_pack(tmp_path: Path) -> None:
    tiles = write(tmp_path, 3)

    class Nosy(CountingReader):
        def __call__(self, tile: TileSource) -> NDArray[np.uint8]:
            with pytest.raises(DataError, match="another process is making this pack"):
                update(tmp_path, tiles)
            return super().__call__(tile)

    pack, report = update_pack(tmp_path / "pack", tiles, RECIPE, TileMaker(Nosy(tmp_path)))
    assert report.made == 3
    holds(pack, tmp_path, tiles)
    assert update(tmp_path, tiles)[1].kept == 3


def test_a_shard_that_goes_while_it_is_read_is_told(tmp_path: Path) -> None:
    pack, *_ = update(tmp_path, write(tmp_path, 3))
    (tmp_path / "pack/shards" / pack.index["shard"][0]).unlink()
    with pytest.raises(DataError, match="is gone; `dvc repro normalize`"):
        pack.images[0]


def test_a_shard_of_which_a_bit_has_flipped_is_not_read_and_made_again(tmp_path: Path) -> None:
    tiles = write(tmp_path, 3)
    pack, *_ = update(tmp_path, tiles)
    shard = tmp_path / "pack/shards" / pack.index["shard"][0]
    good = pack.images[0]
    data = bytearray(shard.read_bytes())
    data[-10] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match=rf"{shard.name}: damaged: .* so it was removed; start it again"):
        Pack.open(tmp_path / "pack").images[0]
    assert update(tmp_path, tiles)[1].made > 0
    np.testing.assert_array_equal(Pack.open(tmp_path / "pack").images[0], good)


def test_a_pack_whose_description_has_changed_is_refused_and_made_again(tmp_path: Path) -> None:
    tiles = write(tmp_path, 3)
    update(tmp_path, tiles)
    about = tmp_path / "pack/pack.json"
    about.write_text(about.read_text().replace('"side": 32', '"side": 33'))
    with pytest.raises(DataError, match=r"pack\.json: damaged: expected XXH3 .*`dvc repro --force normalize`"):
        Pack.open(tmp_path / "pack")
    pack, *_ = update(tmp_path, tiles)
    holds(pack, tmp_path, tiles)


KILLED = """
import json, sys
from pathlib import Path
from oncoshift.data.packs.make import PackRecipe, update_pack
from oncoshift.data.packs.pack import PackNormalization
from oncoshift.data.packs.tiles import FileReader, TileMaker, TileSource
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    tiles = [TileSource(*row) for row in json.loads((folder / "tiles.json").read_text())]
    update_pack(folder / "pack", tiles, PackRecipe(PackNormalization("none"), 32, "code", "none", 4),
                TileMaker(FileReader(folder, 32)), workers=2)
"""


def many_tiles(folder: Path, count: int = 400) -> list[TileSource]:
    """Write copies of one image, each made unique by trailing bytes."""
    Image.fromarray(tissue(0, SIDE)).save(folder / "one.png")
    image = (folder / "one.png").read_bytes()
    tiles = []
    for row in range(count):
        data = image + row.to_bytes(4, "big")
        (folder / f"{row:03d}.png").write_bytes(data)
        name = f"{row:03d}.png"
        tiles.append(TileSource(row, name, "g", name, hashlib.sha256(data).hexdigest()))
    return tiles


def test_sigkill_leaves_finished_shards_and_no_process(tmp_path: Path) -> None:
    tiles = many_tiles(tmp_path)
    (tmp_path / "tiles.json").write_text(json.dumps(tiles))
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)])
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "pack").glob("shards/*.json"))) < 3:
        assert process.poll() is None, "ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == [], "packing processes end with their parent"
    pack, report, read = update(tmp_path, tiles)
    assert 8 <= len(tiles) - len(read) < len(tiles), "shards that were finished are not made again"
    assert report.made == len(tiles)
    holds(pack, tmp_path, tiles)
