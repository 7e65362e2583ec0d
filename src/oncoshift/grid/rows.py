"""The rows of the grid: what is trained, from where to where, under which protocol."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from oncoshift.grid.registry import HONEST, PROTOCOLS
from oncoshift.methods.registry import METHODS
from oncoshift.selection.choice import leave_out
from oncoshift.settings import replace_values

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from oncoshift.settings import Settings

CONTROL, SINGLE, ENSEMBLE = "erm", "single", "ensemble"
"""The methods that learn from the sources alone: pooled, from one organ, and their ensemble."""

LEAVING_OUT = " without contradicting sources"
"""Part of the name of a row that leaves sources out."""

_UNDER_EVERY_PROTOCOL = (CONTROL, SINGLE, "dann")


@dataclass(frozen=True)
class Pool:
    """A target and the organs that it is adapted from.

    Attributes:
        target: the organ adapted to.
        sources: the labelled organs.
    """

    target: str
    sources: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.target} ← {', '.join(self.sources)}"


@dataclass(frozen=True)
class Row:
    """One line of a table: a method on a pool, with all its seeds.

    Attributes:
        pool: target and sources.
        method: name of the method.
        variant: stain variant of all tiles.
        protocol: name of the protocol.
        organ: the one source organ that `single` learns from; None for any other method.
        leaves_out: whether it is trained again without sources that contradict the others, as a
            candidate of a retraining is.
    """

    pool: Pool
    method: str
    variant: str
    protocol: str = HONEST
    organ: str | None = None
    leaves_out: bool = False

    @property
    def name(self) -> str:
        """The method, with the one organ that it learns from, or that it leaves sources out."""
        if self.leaves_out:
            return f"{self.method}{LEAVING_OUT}"
        return self.method if self.organ is None else f"{self.organ} alone"

    @property
    def title(self) -> str:
        """The row in words."""
        return f"{self.pool.target} ← {'+'.join(self.pool.sources)} · {self.name} · {self.variant} · {self.protocol}"

    @property
    def adapts(self) -> bool:
        """Whether the method learns from target tiles."""
        return METHODS[self.method].uses_target

    def make_settings(self, settings: Settings, without: Collection[str] = ()) -> Settings:
        """Make the settings that the row's jobs are trained with, without some of its sources."""
        own = {"train.method": self.method, "train.variant": self.variant, "single.organ": self.organ}
        made = replace_values(make_pool_settings(settings, self.pool), PROTOCOLS[self.protocol].changes | own)
        return leave_out(made, without)


def make_pool_settings(settings: Settings, pool: Pool) -> Settings:
    """Make the settings of a pool's data: its organs, and the stain variants that its rows have."""
    variants = settings.paper.variants
    values = {
        "target": pool.target,
        "sources": pool.sources,
        "single.organ": None,
        "normalize.variants": variants,
        "train.variant": variants[0],
        "retrain.methods": (),
        "retrain.variants": (),
        "retrain.left_out": (),
    }
    return replace_values(settings, values)


def list_pools(settings: Settings) -> list[Pool]:
    """List the pools of `paper.pools`."""
    return [Pool(target, tuple(sources)) for target, *sources in settings.paper.pools]


def list_rows(settings: Settings) -> list[Row]:
    """List the rows: under `honest` all methods and stain variants, then other protocols.

    After those under `honest` come the candidates of a retraining once more, as it has them:
    without sources that contradict the others.

    Other protocols are about what a protocol is worth, so they have pools of two sources, as the
    paper does, the first variant, and three methods: pooled, from one organ, and DANN. A protocol
    that changes nothing here has no rows, nor has one with a random start where the trunk is
    frozen: features of random weights separate nothing.
    """
    paper, pools = settings.paper, list_pools(settings)
    of_two = [pool for pool in pools if len(pool.sources) == 2]
    rows: list[Row] = []
    for protocol in paper.protocols:
        if settings.model.freeze == "all" and PROTOCOLS[protocol].changes.get("model.weights") == "none":
            continue
        if protocol == HONEST:
            for variant in paper.variants:
                rows += _list_methods(pools, [CONTROL, SINGLE, ENSEMBLE, *paper.methods], variant, protocol)
            rows += _list_candidates(settings, pools)
        else:
            listed = _list_methods(of_two, _UNDER_EVERY_PROTOCOL, paper.variants[0], protocol)
            rows += [row for row in listed if row.make_settings(settings) != _make_honest(row).make_settings(settings)]
    return rows


def _list_candidates(settings: Settings, pools: Sequence[Pool]) -> list[Row]:
    """List the candidates of a retraining that may be trained again without some sources."""
    if settings.retrain.leave_out_below is None:
        return []
    return [
        Row(pool, method, variant, leaves_out=True)
        for variant in settings.candidate_variants
        for pool in pools
        if len(pool.sources) > 2  # of two, neither is the majority
        for method in settings.retrain.methods
        if not METHODS[method].reads_anchor
    ]


def _make_honest(row: Row) -> Row:
    return replace(row, protocol=HONEST)


def _list_methods(pools: Sequence[Pool], methods: Sequence[str], variant: str, protocol: str) -> list[Row]:
    return [
        Row(pool, method, variant, protocol, organ)
        for pool in pools
        for method in methods
        for organ in (pool.sources if METHODS[method].one_organ else (None,))
    ]


def is_judged(row: Row) -> bool:
    """Tell whether a row is judged without labels: adapted, honest, from two organs or more."""
    return row.adapts and row.protocol == HONEST and len(row.pool.sources) > 1
