"""The cross-organ matrix does not say of a method that reads labels that it reads none."""

from __future__ import annotations

import pandas as pd

from oncoshift.steps.cross_organ import CrossOrgan


def test_the_title_says_whether_labels_of_the_target_trained_the_model() -> None:
    titles = [CrossOrgan(pd.DataFrame(), "kidney", method).title for method in ("dann", "few_labels")]
    assert titles == [
        "dann, adapted to kidney without its labels",
        "few_labels, adapted to kidney by a handful of its labels",
    ]
