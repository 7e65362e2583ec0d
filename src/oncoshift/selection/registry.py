"""The table of validators that score a model from its predictions.

A new validator is a file in this package and a row here. Rows name functions by import string,
because settings read this table and must not load their dependencies.
"""

from __future__ import annotations

from typing import NamedTuple


class ValidatorRow(NamedTuple):
    """A validator.

    Attributes:
        score: its function, as `module:function`, which returns a score; higher is better.
        reads: the fields of `oncoshift.selection.validators.Predictions` that it takes, in order.
        lowest: the least value that it returns.
    """

    score: str
    reads: tuple[str, ...] = ("target",)
    lowest: float = 0.0


VALIDATORS: dict[str, ValidatorRow] = {
    "source_accuracy": ValidatorRow("oncoshift.selection.source_accuracy:source_accuracy", ("source", "labels")),
    "information_maximisation": ValidatorRow("oncoshift.selection.information_maximisation:information_maximisation"),
    "entropy": ValidatorRow("oncoshift.selection.entropy:negative_entropy", lowest=-1.0),
    "bnm": ValidatorRow("oncoshift.selection.bnm:batch_nuclear_norm"),
    "snd": ValidatorRow("oncoshift.selection.snd:prediction_density"),
    "nuclei": ValidatorRow("oncoshift.selection.anchor:correlate_with_anchor", ("target", "nuclei"), lowest=-1.0),
    "atc": ValidatorRow("oncoshift.selection.atc:average_thresholded_confidence", ("source", "labels", "target")),
}
