"""Scoring in several threads, which share the cores.

A model's `predict` decodes a batch and classifies it. Decoders and the network release Python's
global lock, so a few threads with a batch each keep the cores busy, and none waits for another.
Rows are written in the order of the input.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from oncoshift.parallel import count_usable_cores
from oncoshift.serving.limits import UnreadableImageError
from oncoshift.training.memory import keeping_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    import pandas as pd

    from oncoshift.parallel import Progress
    from oncoshift.scoring.inputs import Tile, TileInput
    from oncoshift.scoring.output import Scores

    Predict = Callable[[pd.DataFrame], pd.DataFrame]

BATCH_TILES = 64
BATCH_BYTES = 2**26
"""Largest number of tiles in a batch, and bytes of files (64 MiB) that complete it."""

PART_TILES = 10_000
PART_SECONDS = 30.0
"""Most rows of a part, and seconds after which it is written; a kill costs no more than that."""

MAX_THREADS = 8
"""More threads than this do not make one GPU faster, and each holds a batch in memory."""

_ANSWERED = ("label", "probability", "shift", "abstain", "error", "scale")

Row = dict[str, Any]
"""The values of a tile's row except those of the model; see `output.SCHEMA`."""


def score_tiles(predict: Predict, source: TileInput, scores: Scores, progress: Progress) -> int:
    """Score the tiles that have no row yet.

    Memory holds a few batches, the rows of one part, and the names of all tiles.

    Args:
        predict: of the model; called from several threads.
        source: the tiles.
        scores: where the rows go.
        progress: called with the number of tiles done, including earlier ones, and the total.

    Returns:
        The number of tiles that were scored now.

    Raises:
        DataError: the input cannot be read, has no tiles or names one twice.
    """
    total, earlier = source.count(), scores.list_done()
    done, rows, began = 0, list[Row](), time.monotonic()
    with keeping_freed_memory():
        for batch in _map_ahead(lambda tiles: score_batch(predict, tiles), _split(source.read(earlier))):
            rows += batch
            done += len(batch)
            progress(min(len(earlier) + done, total), total)
            if len(rows) >= PART_TILES or time.monotonic() - began >= PART_SECONDS:
                scores.write(rows)
                rows, began = [], time.monotonic()
    if rows:
        scores.write(rows)
    return done


def count_network_threads() -> int:
    """Count the threads that the network should have for each of the batches scored at once.

    More would wait for one another, and for the threads that decode.
    """
    return -(-count_usable_cores() // _count_batches())


def _count_batches() -> int:
    """Count the batches that are scored at once."""
    return min(max(count_usable_cores(), 2), MAX_THREADS)


def score_batch(predict: Predict, tiles: Sequence[Tile]) -> list[Row]:
    """Read and score a few tiles; one that cannot be read gets a row with the reason."""
    rows: list[Row] = []
    images: list[bytes] = []
    scales: list[float | None] = []
    waiting: list[Row] = []

    def flush() -> None:
        for row, answer in zip(waiting, predict_rows(predict, images, scales), strict=True):
            row.update(answer)
        images.clear()
        scales.clear()
        waiting.clear()

    for tile in tiles:
        row: Row = {"tile": tile.name, "group": tile.group}
        rows.append(row)
        try:
            images.append(tile.read())
        except UnreadableImageError as error:
            row["error"] = str(error)
            continue
        scales.append(tile.um_per_pixel)
        waiting.append(row)
        if sum(map(len, images)) >= BATCH_BYTES:
            flush()
    flush()
    return rows


def predict_rows(predict: Predict, images: Sequence[bytes], scales: Sequence[float | None]) -> Iterator[Row]:
    """Predict a batch of image files; yield a row for each, with None for what has no value.

    Args:
        predict: of the model.
        images: the bytes of the files.
        scales: µm per pixel of each, None where it is unknown.
    """
    import pandas as pd

    if not images:
        return
    batch = pd.DataFrame({"image": list(images)})
    if any(scale is not None for scale in scales):
        batch["um_per_pixel"] = np.array(scales, dtype=np.float64)  # None becomes NaN
    answers = predict(batch)  # a model of an earlier version answers with fewer columns
    for values in answers.reindex(columns=list(_ANSWERED)).to_dict("records"):
        yield {str(name): None if value != value else value for name, value in values.items()}


def _split(tiles: Iterable[Tile]) -> Iterator[list[Tile]]:
    """Divide tiles into batches; those of an archive hold their bytes already."""
    batch: list[Tile] = []
    held = 0
    for tile in tiles:
        batch.append(tile)
        held += len(tile.content) if isinstance(tile.content, bytes) else 0
        if len(batch) == BATCH_TILES or held >= BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _map_ahead(work: Callable[[list[Tile]], list[Row]], batches: Iterable[list[Tile]]) -> Iterator[list[Row]]:
    """Apply `work` to batches in threads, in order, with one batch more in line than threads."""
    threads = _count_batches()
    waiting: deque[Future[list[Row]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for batch in batches:
                waiting.append(pool.submit(work, batch))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
