"""Attributions kept on disk while a model is being explained, so that a killed run can resume."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from oncoshift.files import atomic, is_intact, seal
from oncoshift.serving.attributions import Attribution

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class KeptParts:
    """One file a part, sealed by a digest at its end; a damaged file counts as missing.

    Attributes:
        folder: named by the hash of everything that decides the attributions.
    """

    folder: Path

    def get(self, first: int, make: Callable[[], Attribution]) -> Attribution:
        """Return the part that starts at tile `first`, from disk or else made and kept now."""
        part = self._find(first)
        if part is None:
            part = make()
            with atomic(self._path(first)) as temporary:
                with temporary.open("wb") as file:
                    for array in vars(part).values():
                        np.save(file, array)
                seal(temporary)
        return part

    def _find(self, first: int) -> Attribution | None:
        path = self._path(first)
        if not is_intact(path, "its tiles are explained again"):
            return None
        with path.open("rb") as file:
            return Attribution(*(np.load(file) for _ in fields(Attribution)))

    def _path(self, first: int) -> Path:
        return self.folder / f"{first}.attributions"
