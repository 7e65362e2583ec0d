"""The tiles of each batch: a pure function of data, seed and epoch, also after a resume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.data.tables import SourceTiles


def make_epoch_generator(seed: int, epoch: int) -> np.random.Generator:
    """Make the generator of one epoch."""
    return np.random.default_rng(np.random.SeedSequence([seed, epoch]))


def make_step_generators(seed: int, epoch: int, step: int) -> tuple[np.random.Generator, np.random.Generator]:
    """Make the generators of one step's views, of source and of target tiles."""
    source, target = np.random.SeedSequence([seed, epoch, step]).spawn(2)
    return np.random.default_rng(source), np.random.default_rng(target)


def derive_dropout_seed(seed: int, epoch: int, step: int) -> int:
    """Derive torch's seed of one step, which decides dropout."""
    return int(np.random.SeedSequence([seed, epoch, step], spawn_key=(2,)).generate_state(1, np.uint64)[0] >> 1)


def cycle(count: int, wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw `wanted` numbers below `count` as consecutive shuffled passes, int64 [wanted]."""
    passes = -(-wanted // count)
    return np.concatenate([rng.permutation(count) for _ in range(passes)])[:wanted].astype(np.int64)


def draw_source_batches(
    tiles: SourceTiles, steps: int, batch: int, balance: bool, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw the positions of each batch in the source split, int64 [steps, batch].

    With `balance`, every batch holds each organ × label as evenly as its size allows, and tiles of
    a small cell repeat more often. Without it, the batches are shuffled passes over all tiles.
    """
    wanted = steps * batch
    if not balance:
        return cycle(len(tiles.rows), wanted, rng).reshape(steps, batch)
    cell_of_tile = tiles.organs * 2 + tiles.labels
    cells = np.unique(cell_of_tile)
    # Rotating the start spreads the remainder of batch / cells over all cells.
    cell_of_slot = cells[np.arange(wanted) % len(cells)]
    positions = np.empty(wanted, np.int64)
    for cell in cells:
        members = np.flatnonzero(cell_of_tile == cell)
        slots = np.flatnonzero(cell_of_slot == cell)
        positions[slots] = members[cycle(len(members), len(slots), rng)]
    return positions.reshape(steps, batch)
