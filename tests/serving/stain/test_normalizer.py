"""Stain normalisation agrees with staintools, keeps its invariants, and handles unstained tiles."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
import spams
from hypothesis import given, settings
from hypothesis import strategies as st
from staintools import LuminosityStandardizer, ReinhardColorNormalizer, StainNormalizer
from support.tiny_tiles import tissue

from oncoshift.serving.images import decode
from oncoshift.serving.stain import (
    LabStatistics,
    Precision,
    StainMethod,
    StainReference,
    StainVectors,
    UnstainableTileError,
    fit_reference,
    normalizer,
)
from oncoshift.serving.stain.macenko import stain_vectors as macenko_vectors
from oncoshift.serving.stain.separation import SAMPLE, lattice_step

if TYPE_CHECKING:
    from pathlib import Path

METHODS: tuple[StainMethod, ...] = ("reinhard", "macenko", "vahadane")
PRECISIONS: tuple[Precision, ...] = ("fast", "exact")
BOTH = (True, False)
seeds = st.integers(0, 10_000)


def stainless(name: str) -> np.ndarray:
    """Make tiles that break naive normalisation."""
    tile = np.full((32, 32, 3), {"white": 255, "pale": 230, "grey": 128, "black": 0}.get(name, 255), np.uint8)
    if name == "one pixel":
        tile[3, 4] = (120, 40, 130)
    if name == "nearly black":
        tile[:] = 0
        tile[0, :5] = (200, 100, 180)
    if name == "grey noise":
        tile[:] = np.random.default_rng(0).integers(20, 250, (32, 32, 1), np.uint8)
    return tile


def theirs(method: StainMethod, reference: np.ndarray, tile: np.ndarray, *, standardize: bool) -> np.ndarray:
    """Normalise the tile with staintools."""
    reference, tile = reference.copy(), tile.copy()
    if standardize:
        reference, tile = LuminosityStandardizer.standardize(reference), LuminosityStandardizer.standardize(tile)
    peer = ReinhardColorNormalizer() if method == "reinhard" else StainNormalizer(method)
    peer.fit(reference)
    return np.asarray(peer.transform(tile))


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the mean absolute difference, grey levels."""
    return float(np.abs(first.astype(int) - second).mean())


@pytest.fixture(scope="module")
def real(shared: Path) -> list[np.ndarray]:
    """Eight tiles of each organ; the very first is the reference."""
    tiles = shared / "data" / "tiles"
    files = [sorted(organ.rglob("*.jpg")) for organ in sorted(tiles.iterdir())]
    assert len(files) == 4
    return [decode(file.read_bytes()) for organ in files for file in organ[:: len(organ) // 8][:8]]


@pytest.mark.parametrize("standardize", BOTH)
@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_macenko_is_staintools_on_real_tiles(real: list[np.ndarray], standardize: bool, precision: Precision) -> None:
    reference, *tiles = real
    ours = normalizer(fit_reference(reference, "macenko", standardize_luminosity=standardize, precision=precision))
    limit = 0.1 if precision == "exact" else 0.6
    for tile in tiles:
        image, outcome = ours(tile)
        assert outcome == "normalised"
        assert difference(image, theirs("macenko", reference, tile, standardize=standardize)) < limit


@pytest.mark.parametrize("standardize", BOTH)
def test_reinhard_is_staintools_to_the_bit(real: list[np.ndarray], standardize: bool) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, high, (48, 48, 3), np.uint8) for high in (256, 128, 32)]
    for reference, *tiles in (real, [tissue(seed, 97) for seed in range(5)], [tissue(0, 48), *noise]):
        ours = normalizer(fit_reference(reference, "reinhard", standardize_luminosity=standardize))
        for tile in tiles:
            expected = theirs("reinhard", reference, tile, standardize=standardize)
            np.testing.assert_array_equal(ours(tile).image, expected)


@pytest.mark.parametrize("standardize", BOTH)
def test_vahadane_is_staintools_with_time_to_converge(
    real: list[np.ndarray], standardize: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """staintools stops spams after a second; with enough rounds from a fixed start it converges."""
    learn = spams.trainDL

    def patiently(X: np.ndarray, **given: object) -> np.ndarray:  # noqa: N803 - spams' own name
        start = np.maximum(macenko_vectors(np.ascontiguousarray(X, np.float32)), 0)  # type: ignore[arg-type]
        return learn(X=X, D=np.asfortranarray(start.T), iter=3000, numThreads=1, **given)

    monkeypatch.setattr(spams, "trainDL", patiently)
    for reference, tile in ((real[9], real[17]), (real[1], real[30])):
        ours = normalizer(fit_reference(reference, "vahadane", standardize_luminosity=standardize))(tile).image
        assert difference(ours, theirs("vahadane", reference, tile, standardize=standardize)) < 0.1


def test_vahadane_is_near_staintools_as_it_is(real: list[np.ndarray]) -> None:
    reference, tile = real[9], real[17]
    ours = normalizer(fit_reference(reference, "vahadane"))(tile).image
    assert difference(ours, theirs("vahadane", reference, tile, standardize=True)) < 0.6


@pytest.mark.parametrize("method", ["macenko", "vahadane"])
def test_a_fast_fit_of_a_large_tile_is_close_to_an_exact_one(real: list[np.ndarray], method: StainMethod) -> None:
    def mosaic(tiles: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.concatenate(tiles[:2], axis=0), np.concatenate(tiles[2:4], axis=0)], axis=1)

    reference = real[0]
    fast, exact = (normalizer(fit_reference(reference, method, precision=precision)) for precision in PRECISIONS)
    apart = [difference(fast(tile).image, exact(tile).image) for tile in (mosaic(real[i : i + 4]) for i in (0, 8, 16))]
    assert 0 < np.mean(apart) < 0.6


@pytest.mark.parametrize("standardize", BOTH)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("name", "outcomes"),
    [
        ("white", {"blank"}),
        ("pale", {"blank"}),
        ("one pixel", {"blank"}),
        ("grey", {"flat", "blank"}),
        ("grey noise", {"flat"}),
        ("black", {"flat"}),
        ("nearly black", {"flat"}),
    ],
)
def test_a_tile_without_stain_is_kept_as_it_is(
    name: str, outcomes: set[str], method: StainMethod, standardize: bool
) -> None:
    tile = stainless(name)
    ours = normalizer(fit_reference(tissue(0), method, standardize_luminosity=standardize))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image, outcome = ours(tile)
    assert outcome in outcomes or (name == "nearly black" and not standardize)
    if outcome != "normalised":
        np.testing.assert_array_equal(image, tile)
        with pytest.raises(UnstainableTileError, match=f"the reference tile is {outcome}"):
            fit_reference(tile, method, standardize_luminosity=standardize)


@pytest.mark.parametrize("standardize", BOTH)
@pytest.mark.parametrize("method", METHODS)
def test_input_is_never_changed(method: StainMethod, standardize: bool) -> None:
    tile = tissue(1)
    tile[0, 0] = 0
    tile.flags.writeable = False
    before = tile.tobytes()
    ours = normalizer(fit_reference(tile, method, standardize_luminosity=standardize))
    ours(tile)
    found = ours.fit_group([tile])
    assert not isinstance(found, str)
    ours.apply(tile, found)
    assert tile.tobytes() == before


@settings(deadline=None, max_examples=20)
@given(seed=seeds, method=st.sampled_from(METHODS))
def test_normalising_twice_is_normalising_once(seed: int, method: StainMethod) -> None:
    """A second pass changes little: only rounding, and what two stains leave unexplained."""
    ours = normalizer(fit_reference(tissue(0, 64), method, standardize_luminosity=False))
    paler = np.random.default_rng(seed).uniform(0.5, 0.8, 3)
    tile = (255 * (tissue(seed, 64) / 255.0) ** paler).astype(np.uint8)
    once = ours(tile).image
    assert difference(ours(once).image, once) < (0.1 if method != "vahadane" else 0.3) * difference(once, tile)


@settings(deadline=None, max_examples=20)
@given(seed=seeds, method=st.sampled_from(["macenko", "vahadane"]), standardize=st.booleans())
def test_white_stays_white(seed: int, method: StainMethod, standardize: bool) -> None:
    ours = normalizer(fit_reference(tissue(0, 64), method, standardize_luminosity=standardize))
    tile = tissue(seed, 64)
    tile[:20] = 255
    image, outcome = ours(tile)
    assert outcome == "normalised"
    assert (image[:20] == 255).all()


@settings(deadline=None, max_examples=10)
@given(order=st.permutations(range(5)), method=st.sampled_from(METHODS), precision=st.sampled_from(PRECISIONS))
def test_the_order_of_tiles_does_not_matter(order: list[int], method: StainMethod, precision: Precision) -> None:
    tiles = [tissue(seed, 48) for seed in range(1, 5)] + [stainless("white")]
    ours = normalizer(fit_reference(tissue(0, 48), method, precision=precision))
    one, other = ours.fit_group(tiles), ours.fit_group([tiles[i] for i in order])
    assert not isinstance(one, str)
    assert not isinstance(other, str)
    for i in order:
        # Sums in another order differ in their last bits.
        first, second = ours.apply(tiles[i], one), ours.apply(tiles[i], other)
        assert first.outcome == second.outcome
        assert np.abs(first.image.astype(int) - second.image).max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_a_group_of_one_tile_is_that_tile(method: StainMethod) -> None:
    tile = tissue(3, 64)
    ours = normalizer(fit_reference(tissue(0), method))
    found = ours.fit_group([tile, stainless("white")])
    assert not isinstance(found, str)
    np.testing.assert_array_equal(ours.apply(tile, found).image, ours(tile).image)
    assert ours.apply(stainless("white"), found).outcome == "blank"
    assert ours.fit_group([stainless("white")]) == "blank"
    assert ours.fit_group([]) == "blank"
    assert ours.fit_group([stainless("grey noise")]) == "flat"


def test_a_fit_of_another_method_is_refused() -> None:
    separated, matched = (normalizer(fit_reference(tissue(0), method)) for method in ("macenko", "reinhard"))
    vectors, statistics = separated.reference.fit, matched.reference.fit
    with pytest.raises(TypeError, match="macenko applies StainVectors"):
        separated.apply(tissue(1), statistics)
    with pytest.raises(TypeError, match="reinhard applies LabStatistics"):
        matched.apply(tissue(1), vectors)


@pytest.mark.parametrize("method", METHODS)
def test_a_reference_survives_json(method: StainMethod) -> None:
    reference = fit_reference(tissue(0), method, standardize_luminosity=False, precision="fast")
    assert StainReference.from_dict(json.loads(json.dumps(reference.to_dict()))) == reference
    assert isinstance(reference.fit, LabStatistics if method == "reinhard" else StainVectors)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stain_matrix": None}, "malformed"),
        ({"stain_matrix": [[1, 0]]}, "not enough values"),
        ({"method": "ruifrok"}, "'ruifrok'"),
        ({"precision": "sloppy"}, "'sloppy'"),
    ],
)
def test_a_broken_reference_says_what_is_wrong(change: dict[str, object], words: str) -> None:
    values = fit_reference(tissue(0), "macenko").to_dict()
    with pytest.raises(ValueError, match=words):
        StainReference.from_dict(values | change)


def test_the_lattice_takes_enough_pixels_from_every_column() -> None:
    for side in (64, 224, 225, 448, 512, 768):
        step = lattice_step(side * side, SAMPLE, side)
        taken = np.arange(0, side * side, step)
        assert len(taken) >= min(SAMPLE, side * side)
        assert len(np.unique(taken % side)) == side
