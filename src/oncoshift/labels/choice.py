"""The choice of tiles to label: a tile a group in turn, spread over a score.

The score is that of a model without labels, so tiles of both classes are among those chosen even
where the model is wrong. A group trains or gates, never both: groups that are neighbours by their
mean score take the two uses in turn, so both see the whole range.

Only the spread is made by the score. What gates must stand for the target, so neither easy nor hard
tiles are preferred.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import rankdata

from oncoshift.labels.table import GATE, TRAIN, USES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class Chosen(NamedTuple):
    """A tile to label.

    Attributes:
        position: of the tile, from 0.
        use: one of `USES`.
    """

    position: int
    use: str


def choose_tiles(
    groups: NDArray[np.str_],
    score: NDArray[np.float64],
    counts: Mapping[str, int],
    known: Mapping[str, str] | None = None,
    asked: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> list[Chosen]:
    """Choose tiles, as many for each use as are wanted and there are.

    Args:
        groups: str [N], the tiles' groups.
        score: [N], by which the tiles are spread.
        counts: number of tiles wanted for each use.
        known: uses of the groups that have labels; they keep them.
        asked: bool [N], tiles that are labelled already, and are not chosen.
        seed: of the order in which equals come.

    Returns:
        The tiles in random order, so that neither use nor score shows.
    """
    rng = np.random.default_rng(seed)
    known, asked = known or {}, np.zeros(len(groups), bool) if asked is None else asked
    rank = (rankdata(score) - 0.5) / max(len(score), 1)
    uses = _share_groups(groups, rank, counts, known, rng)
    chosen: list[Chosen] = []
    for use in USES:
        mine = np.array([uses.get(group) == use for group in groups], bool)
        labelled = Counter(groups[asked & mine].tolist())
        free = np.flatnonzero(mine & ~asked)
        chosen += [Chosen(int(each), use) for each in _spread(free, groups, rank, counts[use], labelled, rng)]
    return [chosen[number] for number in rng.permutation(len(chosen))]


def _share_groups(
    groups: NDArray[np.str_],
    rank: NDArray[np.float64],
    counts: Mapping[str, int],
    known: Mapping[str, str],
    rng: np.random.Generator,
) -> dict[str, str]:
    """Give each group a use: known ones theirs, the others in turn by their mean rank.

    Each use gets its share of the groups, and a wanted one at least one if there are two.
    """
    uses = dict(known)
    found, number = np.unique(groups, return_inverse=True)
    unknown = np.array([name not in known for name in found.tolist()], bool)
    means = (np.bincount(number, weights=rank) / np.bincount(number))[unknown]
    names = found[unknown]
    total = counts[TRAIN] + counts[GATE]
    share = counts[GATE] / total if total else 0.0
    owed = float(rng.uniform())  # which of two neighbours comes first
    for name in names[np.argsort(means, kind="stable")].tolist():
        owed += share
        uses[name] = GATE if owed >= 1 else TRAIN
        owed -= owed >= 1
    missing = [use for use in USES if counts[use] and use not in uses.values()]
    if missing and len(names) > 1:
        uses[str(names[len(names) // 2])] = missing[0]
    return uses


def _spread(
    free: NDArray[np.int64],
    groups: NDArray[np.str_],
    rank: NDArray[np.float64],
    count: int,
    labelled: Counter[str],
    rng: np.random.Generator,
) -> list[int]:
    """Choose tiles of `free`, each from a group with the fewest so far, spread over the rank."""
    names, group = np.unique(groups[free], return_inverse=True)
    taken = np.array([labelled[name] for name in names.tolist()], np.int64)
    left = np.ones(len(free), bool)
    chosen: list[int] = []
    for slot in rng.permutation((np.arange(count) + 0.5) / max(count, 1))[: len(free)]:
        asked = taken[group]
        candidates = np.flatnonzero(left & (asked == asked[left].min()))
        best = candidates[np.abs(rank[free[candidates]] - slot).argmin()]
        chosen.append(int(free[best]))
        left[best] = False
        taken[group[best]] += 1
    return chosen
