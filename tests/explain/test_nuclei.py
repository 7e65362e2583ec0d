"""The share of attribution on nuclei is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from oncoshift.errors import DataError
from oncoshift.explain.nuclei import NucleiShare, compare, compute_attribution_share, summarise

if TYPE_CHECKING:
    from numpy.typing import NDArray


def halves() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Make four tiles with different attributions, where nuclei fill the left quarter of three.

    All attribution lies on nuclei; is spread evenly; is zero; and is spread evenly without nuclei.
    """
    values, masks = np.zeros((4, 8, 8), dtype=np.float32), np.zeros((4, 8, 8), dtype=bool)
    masks[:3, :, :2] = True
    values[0, :, :2] = -0.5
    values[1] = 1.0
    values[3] = 1.0
    return values, masks


def test_shares_areas_and_enrichment() -> None:
    shares = compute_attribution_share(*halves())
    np.testing.assert_allclose(shares.share, [1.0, 0.25, np.nan, 0.0])
    np.testing.assert_allclose(shares.area, [0.25, 0.25, 0.25, 0.0])
    np.testing.assert_allclose(shares.enrichment, [4.0, 1.0, np.nan, np.nan])


def test_signs_do_not_cancel() -> None:
    values, masks = halves()
    values[1, ::2] *= -1
    assert compute_attribution_share(values, masks).share[1] == pytest.approx(0.25)


def test_masks_that_do_not_fit_are_refused() -> None:
    values, masks = halves()
    with pytest.raises(DataError, match="bool masks"):
        compute_attribution_share(values, masks[..., None])
    with pytest.raises(DataError, match="bool masks"):
        compute_attribution_share(values, masks.astype(np.uint8))


def test_the_summary_leaves_out_tiles_without_a_value() -> None:
    shares = compute_attribution_share(*halves())
    summary = summarise(shares)
    assert summary.tiles == 2
    assert summary.enrichment == pytest.approx((1.0 + 0.25) / (0.25 + 0.25))
    assert summary.interval is None
    with_groups = summarise(shares, np.array(["a", "b", "c", "d"]))
    assert with_groups.interval is not None
    assert (with_groups.interval.low, with_groups.interval.high) == pytest.approx((1.0, 4.0))
    assert summarise(shares, np.array(["a", "a", "b", "b"])).interval is None


def test_the_summary_of_tiles_without_nuclei_is_nan() -> None:
    values, masks = halves()
    summary = summarise(compute_attribution_share(values, np.zeros_like(masks)), np.array(list("abcd")))
    assert summary.tiles == 0
    assert np.isnan(summary.enrichment)
    assert summary.interval is None


def test_random_attribution_has_an_enrichment_of_one() -> None:
    rng = np.random.default_rng(0)
    values, masks = rng.normal(size=(40, 32, 32)).astype(np.float32), rng.random((40, 32, 32)) < 0.2
    summary = summarise(compute_attribution_share(values, masks), (np.arange(40) % 10).astype(str))
    assert summary.enrichment == pytest.approx(1.0, abs=0.05)
    assert summary.interval is not None
    assert summary.interval.low < 1.01
    assert summary.interval.high > 0.99


def make_shares(share: list[float], area: list[float]) -> NucleiShare:
    shares, areas = np.array(share), np.array(area)
    return NucleiShare(shares, areas, np.where(areas > 0, shares / np.where(areas > 0, areas, 1), np.nan))


def test_two_models_are_compared_on_the_tiles_where_both_have_a_value() -> None:
    area = [0.2, 0.2, 0.4, 0.0]
    first, second = make_shares([0.2, 0.4, np.nan, 0.0], area), make_shares([0.4, 0.6, 0.9, 0.0], area)
    found = compare(first, second, np.array(["a", "b", "c", "d"]))
    assert (found.tiles, found.groups) == (2, 2)
    assert (found.first.share, found.second.share) == pytest.approx((0.3, 0.5))
    assert found.share is not None
    assert (found.share.low, found.share.point, found.share.high) == pytest.approx((0.2, 0.2, 0.2)), "tiles are paired"
    assert found.enrichment is not None
    assert found.enrichment.point == pytest.approx(found.second.enrichment - found.first.enrichment)


def test_one_group_allows_no_interval_and_other_nuclei_no_comparison() -> None:
    first, second = make_shares([0.2, 0.4], [0.2, 0.2]), make_shares([0.4, 0.6], [0.2, 0.2])
    assert compare(first, second, np.array(["a", "a"])).share is None
    with pytest.raises(DataError, match="the same nuclei"):
        compare(first, make_shares([0.4, 0.6], [0.2, 0.3]), np.array(["a", "b"]))
