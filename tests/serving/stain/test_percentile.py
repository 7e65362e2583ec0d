"""Percentiles by counting equal NumPy's."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from oncoshift.serving.stain.percentile import percentile

NUMBERS = arrays(np.float32, st.integers(1, 300), elements=st.floats(-100, 100, width=32, allow_subnormal=False))


@settings(deadline=None, max_examples=200)
@given(values=NUMBERS, percent=st.sampled_from([0, 1, 37.5, 50, 95, 99, 100]))
def test_percentiles_are_numpys(values: np.ndarray, percent: float) -> None:
    assert percentile(values, percent) == np.percentile(values.astype(np.float64), percent)


def test_of_many_numbers_of_very_uneven_density() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.exponential(0.01, 50_000), [50.0], np.zeros(9_000)]).astype(np.float32)
    for percent in (0, 1, 15, 16, 50, 99, 100):
        assert percentile(values, percent) == np.percentile(values.astype(np.float64), percent)
