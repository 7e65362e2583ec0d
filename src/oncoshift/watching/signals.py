"""Signals of drift: how far a batch is from the training tiles, and whether that may be chance.

Stain, quality, embedding, predicted class share and abstention are compared by the same two-sample
test, the maximum mean discrepancy (Gretton 2012, JMLR 13:723) with a Gaussian kernel. Tiles of one
patient, slide or original resemble one another, so groups are compared, each with the mean of its
tiles, and the p-value is that of a permutation of groups: which of them are the batch's would not
matter if nothing had changed. As there are several tests, p-values are adjusted by Benjamini and
Hochberg (1995), which keeps the probability of any alarm in an unchanged batch at the limit.

A difference that is sure may still be too small to matter. So an alarm needs a distance, too: of a
batch as a multiple of that which a training group keeps from the others, or of shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control
from sklearn.metrics.pairwise import rbf_kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.settings import WatchSettings
    from oncoshift.watching.profile import Profile

SignalName = Literal["stain", "quality", "embedding", "malignant", "abstained"]

STAIN = ("density_red", "density_green", "density_blue", "eosin_share")
QUALITY = ("sharpness", "contrast", "tissue")

SEED = 0


@dataclass(frozen=True)
class Signal:
    """One comparison of a batch with the training tiles.

    Attributes:
        name: what was compared.
        shift: distance of the batch; 1 is that of a training group. For `malignant` and
            `abstained` the change of the share.
        limit: least shift of an alarm.
        p: p-value, adjusted for the number of signals.
        alarm: whether the difference is neither chance nor small.
        words: the comparison in a line.
    """

    name: SignalName
    shift: float
    limit: float
    p: float
    alarm: bool
    words: str


class _Compared(NamedTuple):
    """A comparison before its p-value is adjusted."""

    name: SignalName
    shift: float
    limit: float
    p: float
    words: str


def compare(reference: Profile, batch: Profile, settings: WatchSettings) -> tuple[Signal, ...]:
    """Compare a batch with the training tiles.

    Faults of tissue, such as blur, take part as abstentions alone, since ingest has left such tiles
    out of the training tiles.

    Args:
        reference: of the training tiles of the target.
        batch: of the batch.
        settings: section `watch`.
    """
    trained, found = _match_sizes(reference, batch), batch.usable
    compared = []
    if len(found.tiles):
        compared += [
            _compare_measures("stain", STAIN, trained, found, settings),
            _compare_measures("quality", QUALITY, trained, found, settings),
            _compare_embeddings(trained, found, settings),
            _compare_shares("malignant", trained, found, settings),
        ]
    compared.append(_compare_shares("abstained", trained, batch, settings))
    adjusted = false_discovery_control([each.p for each in compared]).tolist()
    return tuple(
        Signal(
            each.name,
            each.shift,
            each.limit,
            p,
            p <= settings.false_alarms and abs(each.shift) >= each.limit,
            each.words,
        )
        for each, p in zip(compared, adjusted, strict=True)
    )


def find_least_p(reference: Profile, batch: Profile) -> float:
    """Find the least p-value that a permutation of the groups can give."""
    return 1 / comb(reference.groups + batch.groups, batch.groups)


def _match_sizes(reference: Profile, batch: Profile) -> Profile:
    """Take no more tiles of a training group than a group of the batch has.

    The mean of few tiles varies more than that of many.
    """
    size = int(batch.tiles["group"].value_counts().median())
    return reference.select(reference.tiles.groupby("group").cumcount() < size)


def _compare_measures(
    name: SignalName, measures: tuple[str, ...], reference: Profile, batch: Profile, settings: WatchSettings
) -> _Compared:
    """Compare measurements, each in standard deviations of the training groups."""
    before, now = (_tabulate(profile, measures) for profile in (reference, batch))
    groups = before.groupby(reference.tiles["group"].to_numpy()).mean()
    centre, spread = groups.mean(), groups.std().fillna(0).replace(0, 1)
    before, now = (before - centre) / spread, (now - centre) / spread
    moved = now.groupby(batch.tiles["group"].to_numpy()).mean().mean()
    most = str(moved.abs().idxmax())
    shift, p = _test(before.to_numpy(), reference, now.to_numpy(), batch, settings.permutations)
    words = f"{most.replace('_', ' ')} {moved[most]:+.1f} standard deviations of training groups"
    return _Compared(name, shift, settings.least_shift, p, words)


def _compare_embeddings(reference: Profile, batch: Profile, settings: WatchSettings) -> _Compared:
    shift, p = _test(reference.features, reference, batch.features, batch, settings.permutations)
    far, before = (_average(profile, profile.tiles["abstain"] == "far") for profile in (batch, reference))
    words = f"{far:.0%} of the tiles are far from all training organs ({before:.0%} of the training tiles)"
    return _Compared("embedding", shift, settings.least_shift, p, words)


def _compare_shares(name: SignalName, reference: Profile, batch: Profile, settings: WatchSettings) -> _Compared:
    of_reference, of_batch = (
        profile.is_called_malignant if name == "malignant" else profile.abstains for profile in (reference, batch)
    )
    before, now = _average(reference, of_reference), _average(batch, of_batch)
    columns = (of_reference[:, None].astype(np.float64), of_batch[:, None].astype(np.float64))
    _, p = _test(columns[0], reference, columns[1], batch, settings.permutations)
    return _Compared(name, now - before, settings.least_share, p, f"{now:.1%} of the tiles, {before:.1%} in training")


def _average(profile: Profile, values: NDArray[np.bool_] | pd.Series[bool]) -> float:
    """Average over groups, each with the mean of its tiles."""
    return float(pd.Series(np.asarray(values, np.float64)).groupby(profile.tiles["group"].to_numpy()).mean().mean())


def _tabulate(profile: Profile, measures: tuple[str, ...]) -> pd.DataFrame:
    """Tabulate measurements; sharpness as a logarithm, as blur divides it."""
    table = profile.tiles[list(measures)].reset_index(drop=True)
    return table.assign(sharpness=np.log(table["sharpness"].clip(lower=1e-5))) if "sharpness" in table else table


def _test(
    before: NDArray[np.floating], reference: Profile, now: NDArray[np.floating], batch: Profile, permutations: int
) -> tuple[float, float]:
    """Compare values [N, D] of training tiles with those of a batch [M, D].

    Returns:
        The distance, with 0 for none and 1 for that of a training group from the others, and the
        p-value.
    """
    values = np.concatenate([before, now]).astype(np.float64)
    kernel, trained = _average_kernel(values, reference, batch)
    count = len(kernel)
    picked = np.zeros((1 + permutations, count))
    picked[:, trained:] = 1.0
    picked[1:] = np.random.default_rng(SEED).permuted(picked[1:], axis=1)
    discrepancy = _compute_discrepancy(kernel, picked)
    p = float((discrepancy >= discrepancy[0] * (1 - 1e-9)).mean())  # the batch counts as one permutation
    own = kernel[:trained, :trained]
    spread = max(float(np.diag(own).mean() - own.mean()) * trained / max(trained - 1, 1), 1e-12)
    # Means of n groups are apart even if nothing has changed, by 1/n of what single groups are.
    excess = float(discrepancy[0]) / spread - 1 / trained - 1 / (count - trained)
    return float(np.sqrt(max(excess, 0.0))), p


def _compute_discrepancy(kernel: NDArray[np.float64], picked: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute MMD² of some groups and all others, [P], for each row of `picked`, 0 or 1, [P, G]."""
    n = picked.sum(axis=1)
    m = picked.shape[1] - n
    within, of_picked = ((picked @ kernel) * picked).sum(axis=1), picked @ kernel.sum(axis=1)
    rest = kernel.sum() - 2 * of_picked + within
    return np.asarray(within / n**2 - 2 * (of_picked - within) / (n * m) + rest / m**2)


def _average_kernel(values: NDArray[np.float64], reference: Profile, batch: Profile) -> tuple[NDArray[np.float64], int]:
    """Average the kernel over the tiles of each pair of groups.

    Returns:
        [G, G], the training groups first, and their number.
    """
    trained, of_reference = np.unique(reference.tiles["group"], return_inverse=True)
    of_batch = np.unique(batch.tiles["group"], return_inverse=True)[1] + len(trained)
    members = np.eye(of_batch.max() + 1)[np.concatenate([of_reference, of_batch])].T
    members /= members.sum(axis=1, keepdims=True)
    gamma = 1 / (2 * float(values.var(axis=0).sum()) or 1.0)  # the mean squared distance
    return members @ rbf_kernel(values, gamma=gamma) @ members.T, len(trained)
