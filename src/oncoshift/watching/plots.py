"""Pictures of a batch beside the training tiles, and of all batches over time."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from oncoshift.data.validation.stains import DENSITIES, stain_strengths
from oncoshift.evaluation.plots import OKABE_ITO
from oncoshift.serving.images import decode
from oncoshift.serving.limits import UnreadableImageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from oncoshift.watching.batch import Batch
    from oncoshift.watching.outcome import Outcome
    from oncoshift.watching.page import Row
    from oncoshift.watching.profile import Profile

SHOWN_TILES = 12

_TRAINED, _BATCH = "0.6", OKABE_ITO[1]
_SIGNALS = ("stain", "quality", "embedding", "malignant", "abstained")


def draw_batch(reference: Profile, batch: Profile, outcome: Outcome) -> Figure:
    """Draw training tiles and batch: stain, sharpness, embedding, probabilities, and signals."""
    figure = Figure(figsize=(12.5, 7.2), layout="constrained")
    axes = figure.subplots(2, 3)
    trained, found = reference.usable, batch.usable
    if len(found.tiles):
        _scatter(axes[0, 0], *(_compute_stains(profile) for profile in (trained, found)))
        axes[0, 0].set(xlabel="haematoxylin, optical density", ylabel="eosin, optical density", title="stain")
        sharpness = [np.log10(each.tiles["sharpness"].clip(1e-5).to_numpy(np.float64)) for each in (trained, found)]
        _compare_histograms(axes[0, 1], *sharpness)
        axes[0, 1].set(xlabel="sharpness, log10", title="quality")
        _scatter(axes[0, 2], *_project(trained, found))
        axes[0, 2].set(xlabel="first component", ylabel="second component", title="embedding, principal components")
        _compare_histograms(axes[1, 0], *(each.tiles["probability"].to_numpy(np.float64) for each in (trained, found)))
        axes[1, 0].axvline(batch.threshold, color="0.3", linestyle="--", linewidth=1)
        axes[1, 0].set(xlabel="probability of malignant", title="predictions")
    _draw_signals(axes[1, 1], outcome)
    _draw_estimate(axes[1, 2], outcome)
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
    handles = [axes[0, 0].plot([], [], "o", color=colour)[0] for colour in (_TRAINED, _BATCH)]
    labels = [f"training tiles ({len(trained.tiles)})", f"{outcome.batch} ({len(found.tiles)} of {outcome.total})"]
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(outcome.words, fontsize=12)
    return figure


def draw_strangest(reference: Profile, batch: Profile, tiles: Batch) -> Figure:
    """Draw the tiles of a batch that are least like any training tile."""
    similar = np.nan_to_num(batch.features @ reference.features.T, nan=-1).max(axis=1)
    order = np.argsort(similar)[:SHOWN_TILES]
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    axes = figure.subplots(2, SHOWN_TILES // 2).ravel()
    for each in axes:
        each.set_axis_off()
    for each, number in zip(axes, order, strict=False):
        content = tiles.tiles[number].content
        try:
            each.imshow(decode(content if isinstance(content, bytes) else b""))
        except UnreadableImageError:
            each.text(0.5, 0.5, "unreadable", ha="center", transform=each.transAxes)
        each.set_title(f"…{tiles.tiles[number].name[-22:]}\ncosine {similar[number]:.2f}", fontsize=7)
    figure.suptitle("least like any training tile", fontsize=11)
    return figure


def draw_history(rows: Sequence[Row]) -> Figure:
    """Draw signals, shares and the estimate of all batches, oldest first."""
    places = np.arange(len(rows))
    figure = Figure(figsize=(max(8.0, 2.2 + 0.42 * len(rows)), 7.4), layout="constrained")
    upper, middle, lower = figure.subplots(3, 1, sharex=True, height_ratios=(1.5, 1, 1.2))
    _draw_matrix(upper, rows)
    for name, colour in (("malignant_share", OKABE_ITO[0]), ("abstain_share", OKABE_ITO[4])):
        middle.plot(places, [row.get(name) for row in rows], "o-", color=colour, label=name.replace("_", " "))
    middle.set(ylim=(-0.03, 1.03), ylabel="share of tiles")
    middle.legend(loc="lower center", bbox_to_anchor=(0.5, 0.97), ncols=2, frameon=False, fontsize=8)
    for place, row in zip(places, rows, strict=True):
        point, low, high = (row.get(f"balanced_accuracy{end}") for end in ("", "_low", "_high"))
        if np.isnan(point):
            lower.text(place, 0.5, "withheld", rotation=90, ha="center", va="center", fontsize=7, color="0.4")
        else:
            lower.vlines(place, low, high, color=OKABE_ITO[2], linewidth=3, alpha=0.5)
            lower.plot(place, point, "o", color=OKABE_ITO[2])
    lower.axhline(0.5, color="0.6", linestyle="--", linewidth=1)
    lower.set(ylim=(-0.03, 1.03), ylabel="balanced accuracy,\nestimated")
    lower.set_xticks(places, [f"{row.batch}\n{row.at[:10]}" for row in rows], rotation=60, ha="right", fontsize=7)
    for each in (middle, lower):
        each.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_matrix(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw how near each signal is to its limit; an alarm is red."""
    for place, row in enumerate(rows):
        for height, name in enumerate(reversed(_SIGNALS)):
            shift = abs(row.get(f"{name}_shift"))
            if np.isnan(shift):
                continue
            alarm = name in row.alarms
            colour = "#cf222e" if alarm else OKABE_ITO[5]
            axes.scatter(place, height, s=25 + 150 * min(shift, 2), color=colour, alpha=0.9 if alarm else 0.45)
    axes.set_yticks(range(len(_SIGNALS)), reversed(_SIGNALS))
    axes.set(ylim=(-0.6, len(_SIGNALS) - 0.4), title="shift by signal (area); red: past the limit")
    axes.spines[:].set_visible(False)
    axes.grid(axis="x", color="0.93")
    axes.set_axisbelow(True)


def _compute_stains(profile: Profile) -> NDArray[np.float64]:
    return stain_strengths(profile.tiles[list(DENSITIES)].to_numpy(np.float64))[:, :2]


def _project(reference: Profile, batch: Profile) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project features on the two principal components of the training tiles."""
    centre = reference.features.mean(axis=0)
    axes = np.linalg.svd(reference.features - centre, full_matrices=False)[2][:2].T
    first, second = ((profile.features - centre) @ axes for profile in (reference, batch))
    return first, second


def _scatter(axes: Axes, trained: NDArray[np.float64], batch: NDArray[np.float64]) -> None:
    for points, colour, layer in ((trained, _TRAINED, 1), (batch, _BATCH, 2)):
        axes.scatter(points[:, 0], points[:, 1], s=9, color=colour, alpha=0.6, linewidths=0, zorder=layer)


def _compare_histograms(axes: Axes, trained: NDArray[np.float64], batch: NDArray[np.float64]) -> None:
    edges = np.histogram_bin_edges(np.concatenate([trained, batch]), 30).tolist()
    for values, colour in ((trained, _TRAINED), (batch, _BATCH)):
        axes.hist(values, edges, weights=np.full(len(values), 1 / len(values)), color=colour, alpha=0.55)
    axes.set_ylabel("share of tiles")


def _draw_signals(axes: Axes, outcome: Outcome) -> None:
    signals = outcome.signals
    shifts = [abs(signal.shift) for signal in signals]
    colours = ["#cf222e" if signal.alarm else OKABE_ITO[5] for signal in signals]
    axes.barh(range(len(signals)), shifts, color=colours)
    for place, signal in enumerate(signals):
        axes.plot([signal.limit] * 2, [place - 0.4, place + 0.4], color="0.2", linestyle="--", linewidth=1)
        axes.text(shifts[place], place, f" p {signal.p:.3f}", va="center", fontsize=8)
    axes.set_yticks(range(len(signals)), [signal.name for signal in signals])
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set(title="shift and its limit; red: an alarm", xlabel="of training groups; of shares")


def _draw_estimate(axes: Axes, outcome: Outcome) -> None:
    found = outcome.estimate
    axes.axvline(outcome.floor, color="0.3", linestyle="--", linewidth=1)
    if found.point is not None and found.low is not None and found.high is not None:
        axes.hlines(0, found.low, found.high, color=OKABE_ITO[2], linewidth=4, alpha=0.5)
        axes.plot(found.point, 0, "o", color=OKABE_ITO[2], markersize=9)
    else:
        axes.text(0.5, 0, "withheld", ha="center", va="center")
    axes.set(xlim=(-0.02, 1.02), ylim=(-1, 1), yticks=[], title="balanced accuracy, estimated")
    axes.set_xlabel(textwrap.fill(found.words, 60), fontsize=8)
