"""Lines that tell people of a training's epochs as they are done."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from oncoshift.training.loop import EpochHook


def epoch_lines(say: Callable[[str], None], label: str, epochs: int) -> EpochHook:
    """A hook that says a line an epoch.

    Epochs that were trained before the hook was made are no news: one line says that they are behind.

    Args:
        say: takes a line.
        label: what is trained.
        epochs: how many there are to be.
    """
    began, behind = int(1000 * time.time()), 0

    def tell(row: dict[str, float]) -> None:
        nonlocal behind
        epoch = int(row["epoch"]) + 1
        if row["timestamp_ms"] < began:
            behind = epoch
            return
        if behind:
            say(f"{label}: goes on after epoch {behind}/{epochs}")
            behind = 0
        say(
            f"{label}: epoch {epoch}/{epochs}, source accuracy {row['source_accuracy']:.3f}, "
            f"IM {row['information_maximisation']:.3f}, {row['epoch_seconds']:.1f} s"
        )

    return tell
