"""What a check finds: a fact, a warning or an error, with its remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oncoshift.settings import Settings

Level = Literal["ok", "warning", "error"]
Profile = Literal["train", "serve", "server"]

PROFILES: tuple[Profile, ...] = ("train", "serve", "server")


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        check: name of the check, a word.
        level: `error` if it would stop work, `warning` if somebody should look.
        words: what is so.
        remedy: what to do; empty where nothing is to be done.
        fix: does it, where that is safe whatever the cause; None: a person must.
    """

    check: str
    level: Level
    words: str
    remedy: str = ""
    fix: Callable[[], object] | None = None

    @property
    def sentence(self) -> str:
        """What is so, and what to do about it."""
        return f"{self.words}; {self.remedy}" if self.remedy else self.words


@dataclass(frozen=True)
class Scene:
    """What checks look at.

    Attributes:
        project: the project's root.
        settings: of the project, with preset and `--set`.
        tracking: URI of MLflow's store.
        studies: URL of Optuna's database.
        profile: what this machine is for.
    """

    project: Path
    settings: Settings
    tracking: str
    studies: str
    profile: Profile
