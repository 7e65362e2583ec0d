"""The figures of one epoch of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Epoch(Mapping[str, float]):
    """The figures of an epoch; those that every training has are properties.

    Method and settings decide which others there are; they are looked up by name.

    Attributes:
        figures: by name.
    """

    figures: Mapping[str, float]

    def __getitem__(self, name: str) -> float:
        return self.figures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.figures)

    def __len__(self) -> int:
        return len(self.figures)

    @property
    def number(self) -> int:
        """Number of the epoch, from 0."""
        return int(self["epoch"])

    @property
    def ended_ms(self) -> int:
        """End of the epoch, milliseconds since 1970."""
        return int(self["timestamp_ms"])

    @property
    def source_accuracy(self) -> float:
        """Balanced accuracy on source validation tiles, 0 to 1."""
        return self["source_accuracy"]

    @property
    def metrics(self) -> dict[str, float]:
        """All figures except number and time."""
        return {name: value for name, value in self.items() if name not in ("epoch", "timestamp_ms")}

    def with_figures(self, **figures: float) -> Epoch:
        """Return a copy with figures added or replaced."""
        return Epoch({**self, **figures})

    def to_line(self, epochs: int) -> str:
        """Format the epoch as a line for the console.

        Args:
            epochs: how many the training has.
        """
        return (
            f"epoch {self.number + 1}/{epochs}, source accuracy {self.source_accuracy:.3f}, "
            f"IM {self['information_maximisation']:.3f}, {self['epoch_seconds']:.1f} s"
        )


EpochHook = Callable[[Epoch], None]
