"""The table of anchors.

A new anchor is a file in this package and a row here. Rows name functions by import string, because
settings read this table and must not load their dependencies.
"""

from __future__ import annotations

from typing import NamedTuple


class AnchorRow(NamedTuple):
    """An anchor.

    Attributes:
        measure: its function, as `module:function`. It gets the tiles of one group, uint8 [N, S, S,
            3], and section `anchor`, and returns float64 [N], higher for malignant tissue.
        reads: the settings of section `anchor` that it needs, such as a model's file.
        title: what it measures, in a few words.
    """

    measure: str
    title: str
    reads: tuple[str, ...] = ()


ANCHORS: dict[str, AnchorRow] = {
    "nuclei": AnchorRow("oncoshift.anchors.nuclei:measure_nuclei", "share of tissue covered by nuclei"),
    "epithelium": AnchorRow(
        "oncoshift.anchors.epithelium:measure_epithelium",
        "share of tissue that is epithelium, by a map of the user's",
        reads=("epithelium", "epithelium_channel", "epithelium_side"),
    ),
}
"""The anchors by the name that settings, runs and cards use."""
