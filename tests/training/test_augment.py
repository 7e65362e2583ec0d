"""Views are a square's eight symmetries, and stains of other strength; glass stays white."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oncoshift.training.augment import EOSIN, HAEMATOXYLIN, Augmentation, restain, turn


def stained(haematoxylin: float, eosin: float) -> np.ndarray:
    density = haematoxylin * np.array(HAEMATOXYLIN) + eosin * np.array(EOSIN)
    return np.round(255 * np.exp(-density))


def test_turns_are_the_eight_symmetries() -> None:
    tile = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    views = turn(torch.from_numpy(tile).repeat(8, 1, 1, 1), list(range(8))).numpy()
    expected = [np.rot90(tile, k) for k in range(4)]
    expected += [each[:, ::-1] for each in expected]
    for view, each in zip(views, expected, strict=True):
        np.testing.assert_array_equal(view, each)


def test_strengths_scale_each_stain_by_itself() -> None:
    tile = np.full((1, 2, 2, 3), stained(0.5, 0.3), np.uint8)
    for strengths, expected in (((2.0, 1.0), stained(1.0, 0.3)), ((1.0, 0.5), stained(0.5, 0.15))):
        view = restain(torch.from_numpy(tile), torch.tensor([strengths])).numpy()
        assert np.abs(view[0, 0, 0].astype(float) - expected).max() <= 1.5


def test_restaining_with_ones_changes_nothing_but_black_and_glass_stays_white() -> None:
    tiles = torch.randint(1, 256, (4, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert (restain(tiles, torch.ones(4, 2)).int() - tiles.int()).abs().max() <= 1
    glass = torch.full((1, 4, 4, 3), 255, dtype=torch.uint8)
    assert torch.equal(restain(glass, torch.tensor([[3.0, 0.2]])), glass)


def test_views_follow_the_generator_and_leave_the_tiles_alone() -> None:
    tiles = torch.randint(0, 256, (16, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    before, augmentation = tiles.clone(), Augmentation(dihedral=True, stain_jitter=0.2)
    first, again, other = (augmentation.draw(len(tiles), np.random.default_rng(seed))(tiles) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(tiles, before)
    assert first.dtype == torch.uint8


@pytest.mark.parametrize(
    ("dihedral", "jitter", "expected"), [(False, 0.0, False), (True, 0.0, True), (False, 0.1, True)]
)
def test_is_active_where_a_view_can_differ(dihedral: bool, jitter: float, expected: bool) -> None:
    assert Augmentation(dihedral, jitter).is_active is expected
