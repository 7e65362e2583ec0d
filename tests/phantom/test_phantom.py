"""The phantom is reproducible, and its tiles differ by label, patient and organ as intended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2hed

from oncoshift.data.source.adapters.folder import MARKER
from oncoshift.errors import DataError, SettingsError
from oncoshift.phantom import draw_style, render_phantom_tile, render_tile, write_phantom
from oncoshift.phantom.styles import ORGANS
from oncoshift.phantom.tissue import FIELD, grow
from oncoshift.settings import PhantomSettings

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.phantom import PhantomTile

SMALL = PhantomSettings(groups_per_class=2, tiles_per_group=2)
EVERY_ORGAN = pytest.mark.parametrize("organ", tuple(ORGANS))


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def tiles(organ: str, label: int) -> list[PhantomTile]:
    return [
        render_phantom_tile(PhantomSettings(), organ, label, group, number) for group in range(6) for number in range(2)
    ]


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    assert write_phantom(SMALL, tmp_path / "a")
    assert write_phantom(SMALL, tmp_path / "b")
    assert write_phantom(SMALL.model_copy(update={"seed": 1}), tmp_path / "c")
    first, second, other = (contents(tmp_path / name) for name in "abc")
    assert first == second
    assert first.keys() == other.keys()
    assert not set(first.values()) & set(other.values())
    images = [data for name, data in first.items() if not name.startswith("masks/")]
    assert len(set(images)) == len(images) == 4 * 2 * 2 * 2 + 1


def test_a_tile_depends_neither_on_order_nor_on_how_many_there_are(tmp_path: Path) -> None:
    write_phantom(SMALL, tmp_path / "small")
    more = PhantomSettings(organs=("kidney", "lung"), groups_per_class=3, tiles_per_group=3)
    write_phantom(more, tmp_path / "large")
    small, large = contents(tmp_path / "small"), contents(tmp_path / "large")
    both = {name for name in small if "kidney" in name or "lung" in name}
    assert len(both) == 2 * 2 * 2 * 2 * 2
    assert {name: small[name] for name in both} == {name: large[name] for name in both}


def test_folder_holds_rgb_tiles_and_masks_of_the_same_name(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_phantom(
        PhantomSettings(organs=("colon",), groups_per_class=2, tiles_per_group=1, tile_size=48),
        tmp_path / "p",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert set(contents(tmp_path / "p")) == {MARKER} | {
        f"{folder}colon/{label}/colon-{label[0]}{group:03d}_00.png"
        for folder in ("", "masks/")
        for label in ("benign", "malignant")
        for group in (0, 1)
    }
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    expected = render_phantom_tile(PhantomSettings(tile_size=48), "colon", 1, 1, 0)
    with Image.open(tmp_path / "p/colon/malignant/colon-m001_00.png") as image:
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), expected.image)
    with Image.open(tmp_path / "p/masks/colon/malignant/colon-m001_00.png") as mask:
        assert mask.mode == "1"
        np.testing.assert_array_equal(np.asarray(mask), expected.nuclei)


def test_notice_says_that_the_data_are_made_up(tmp_path: Path) -> None:
    write_phantom(SMALL, tmp_path / "p")
    notice = (tmp_path / "p" / MARKER).read_text(encoding="utf-8")
    assert "made up" in notice
    assert "groups_per_class: 2" in notice


@EVERY_ORGAN
@pytest.mark.parametrize("label", [0, 1])
def test_mask_lies_on_haematoxylin(organ: str, label: int) -> None:
    for tile in tiles(organ, label):
        haematoxylin = rgb2hed(tile.image)[..., 0]
        assert 0.02 < tile.nuclei.mean() < 0.75
        assert haematoxylin[tile.nuclei].mean() > 1.3 * haematoxylin[~tile.nuclei].mean()


@EVERY_ORGAN
def test_malignant_nuclei_are_larger_and_more_crowded(organ: str) -> None:
    benign, malignant = (np.mean([tile.nuclei.mean() for tile in tiles(organ, label)]) for label in (0, 1))
    assert malignant > 1.5 * benign
    thickest = [np.mean([ndimage.distance_transform_edt(t.nuclei).max() for t in tiles(organ, k)]) for k in (0, 1)]
    assert thickest[1] > 1.2 * thickest[0]


@EVERY_ORGAN
def test_malignant_nuclei_vary_more_in_size_and_benign_glands_have_a_lumen(organ: str) -> None:
    style = draw_style(np.random.default_rng(0))
    benign, malignant = (grow(ORGANS[organ], wrong, style, np.random.default_rng(1)) for wrong in (False, True))
    area = [np.prod(tissue.nuclei.axes, axis=1) for tissue in (benign, malignant)]
    assert area[1].mean() > 1.3 * area[0].mean()
    assert malignant.nuclei.darkness.mean() > benign.nuclei.darkness.mean()
    assert malignant.lumen < benign.lumen
    inside = np.all((benign.nuclei.centres > 0) & (benign.nuclei.centres < FIELD), axis=1)
    x, y = benign.nuclei.centres[inside].T
    assert (benign.glands.depth(x, y) > benign.lumen).mean() > 0.98


def test_organs_differ_in_colour_by_more_than_their_patients_do() -> None:
    colour = {
        o: np.array([tile.image.mean(axis=(0, 1)) for label in (0, 1) for tile in tiles(o, label)]) for o in ORGANS
    }
    for organ, own in colour.items():
        for other in ORGANS.keys() - {organ}:
            apart = np.linalg.norm(own.mean(axis=0) - colour[other].mean(axis=0))
            assert apart > 12, (organ, other)


def test_a_group_shares_its_stain() -> None:
    settings = PhantomSettings()
    means = np.array(
        [
            [render_phantom_tile(settings, "breast", 0, group, number).image.mean(axis=(0, 1)) for number in range(4)]
            for group in range(8)
        ]
    )
    within, between = means.std(axis=1).mean(), means.mean(axis=1).std(axis=0).mean()
    assert between > within


@pytest.mark.parametrize("size", [32, 64, 224])
def test_a_tile_shows_the_same_tissue_at_every_size(size: int) -> None:
    style = draw_style(np.random.default_rng(3))
    tile = render_tile("kidney", True, style, np.random.default_rng(4), size)
    large = render_tile("kidney", True, style, np.random.default_rng(4), 448)
    assert tile.image.shape == (size, size, 3)
    assert tile.image.dtype == np.uint8
    assert tile.nuclei.dtype == np.bool_
    shrunk = np.asarray(Image.fromarray(large.nuclei).convert("L").resize((size, size), Image.Resampling.BOX)) > 127
    assert (shrunk == tile.nuclei).mean() > 0.95


def test_unknown_organ_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'liver' is unknown.*lung, colon, breast, kidney"):
        write_phantom(PhantomSettings(organs=("lung", "liver")), tmp_path / "p")
    assert not list(tmp_path.iterdir())


def test_second_call_does_nothing(tmp_path: Path) -> None:
    root = tmp_path / "p"
    assert write_phantom(SMALL, root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert not write_phantom(SMALL, root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_other_parameters_replace_the_phantom_whole(tmp_path: Path) -> None:
    root, fresh = tmp_path / "p", tmp_path / "fresh"
    other = PhantomSettings(organs=("lung",), groups_per_class=2, tiles_per_group=1)
    write_phantom(SMALL, root)
    assert write_phantom(other, root)
    write_phantom(other, fresh)
    assert contents(root) == contents(fresh)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "p"]


def test_foreign_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "patients"
    (root / "lung" / "benign").mkdir(parents=True)
    (root / "lung" / "benign" / "real.png").write_bytes(b"precious")
    with pytest.raises(DataError, match="patients: holds something that is no phantom"):
        write_phantom(SMALL, root)
    assert contents(root) == {"lung/benign/real.png": b"precious"}
    assert [path.name for path in tmp_path.iterdir()] == ["patients"]


def test_files_put_among_the_phantoms_tiles_are_not_lost(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    write_phantom(SMALL, root)
    (root / "lung" / "benign" / "patient7_1.png").write_bytes(b"precious")
    with pytest.raises(DataError, match=r"patient7_1.png: is no tile of the phantom"):
        write_phantom(SMALL.model_copy(update={"seed": 5}), root)
    assert (root / "lung" / "benign" / "patient7_1.png").read_bytes() == b"precious"


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    root = tmp_path / "p"
    root.mkdir()
    assert write_phantom(SMALL, root)
    assert (root / MARKER).is_file()


def test_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom(SMALL, tmp_path / "p", progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_killed_write_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    root = tmp_path / "p"
    script = f"""
        from pathlib import Path
        from oncoshift.phantom import write_phantom
        from oncoshift.settings import PhantomSettings
        write_phantom(PhantomSettings(), Path({str(root)!r}), progress=lambda done, total: print(done, flush=True))
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline().strip() == b"1"
        os.kill(writer.pid, signal.SIGKILL)
    assert not root.exists()
    assert not list(tmp_path.rglob(MARKER))
    assert write_phantom(SMALL, root)
    assert len(contents(root)) == 2 * 4 * 2 * 2 * 2 + 1
