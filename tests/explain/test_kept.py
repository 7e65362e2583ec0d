"""A killed explanation resumes after its finished tiles, with the same bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from oncoshift.explain import attributions
from oncoshift.explain.attributions import attribute_tiles
from oncoshift.explain.kept import KeptParts
from oncoshift.serving.attributions import Attribution, Convergence

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from oncoshift.serving.classifier import TileClassifier


class PulledPlugError(Exception):
    """A simulated kill."""


@pytest.fixture(autouse=True)
def two_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of tiles 0 and 1, 2 and 3, 4."""
    monkeypatch.setattr(attributions, "_PART", 2)


def attribute(
    classifier: TileClassifier,
    tiles: NDArray[np.uint8],
    kept: KeptParts | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    return attribute_tiles(
        classifier,
        tiles,
        tiles.mean(axis=0),
        Convergence(2, 4),
        batch_size=8,
        kept=kept,
        on_progress=on_progress,
    )


def same(one: Attribution, other: Attribution) -> bool:
    return all(np.array_equal(value, vars(other)[name], equal_nan=True) for name, value in vars(one).items())


@pytest.fixture
def killed(classifier: TileClassifier, tiles: NDArray[np.uint8], tmp_path: Path) -> KeptParts:
    """The kept parts of an explanation that was killed after four of five tiles."""

    def pull(done: int, of: int) -> None:
        if done == 4:
            raise PulledPlugError

    kept = KeptParts(tmp_path / "kept")
    with pytest.raises(PulledPlugError):
        attribute(classifier, tiles, kept, pull)
    return kept


@pytest.fixture
def passes(classifier: TileClassifier) -> list[int]:
    """The number of tiles in each pass through the network."""
    seen: list[int] = []
    classifier.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    return seen


def test_progress_counts_tiles_to_their_number(classifier: TileClassifier, tiles: NDArray[np.uint8]) -> None:
    told: list[tuple[int, int]] = []
    attribute(classifier, tiles, on_progress=lambda done, of: told.append((done, of)))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_a_killed_one_goes_on_to_the_same_bits(
    classifier: TileClassifier, tiles: NDArray[np.uint8], killed: KeptParts, passes: list[int]
) -> None:
    told: list[int] = []
    resumed = attribute(classifier, tiles, killed, lambda done, _of: told.append(done))
    assert told == [2, 4, 5]
    assert sum(passes) == 5, "the fifth tile's points"
    assert same(resumed, attribute(classifier, tiles))


@pytest.mark.parametrize("content", [b"", b"\xff\x00 garbage", None])
def test_a_damaged_part_is_made_again(
    classifier: TileClassifier,
    tiles: NDArray[np.uint8],
    killed: KeptParts,
    caplog: pytest.LogCaptureFixture,
    content: bytes | None,
) -> None:
    path = killed.folder / "2.attributions"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data if content is None else content)
    resumed = attribute(classifier, tiles, killed)
    assert f"{path}: damaged" in caplog.text
    assert same(resumed, attribute(classifier, tiles))
