"""The context of every command: its command line, with settings and folders derived from it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from oncoshift.layout import Layout
    from oncoshift.settings import Settings


@dataclass(frozen=True)
class Context:
    """The context of a command.

    Attributes:
        arguments: the parsed command line.
    """

    arguments: argparse.Namespace

    @cached_property
    def params(self) -> Path:
        """`--params`, else the params.yaml here, else that of the nearest experiment above."""
        from oncoshift.experiments import is_experiment

        given: Path | None = self.arguments.params
        if given is not None:
            return given
        here = Path("params.yaml")
        around = (folder / here for folder in Path.cwd().parents if is_experiment(folder))
        return here if here.exists() else next(around, here)

    @cached_property
    def settings(self) -> Settings:
        """The validated settings of params.yaml, the preset and the overrides."""
        from oncoshift.settings import load_settings

        given = self.arguments
        return load_settings(self.params, preset=given.preset, overrides=tuple(given.overrides))

    @property
    def preset(self) -> str | None:
        """`--preset`; a path is made absolute, so that it holds in any folder."""
        preset: str | None = self.arguments.preset
        return str(Path(preset).resolve()) if preset and preset.endswith((".yaml", ".yml")) else preset

    @property
    def layout(self) -> Layout:
        """The layout of the experiment that params.yaml belongs to."""
        from oncoshift.experiments import open_layout

        return open_layout(self.params.parent)

    @property
    def raw(self) -> Path:
        """The data set, `ingest.root`; a relative path is within the experiment."""
        return self.layout.folder / self.settings.ingest.root

    @property
    def project(self) -> Path:
        """The project's root, also from inside one of its experiments."""
        from oncoshift.experiments import find_project

        return find_project(self.params.parent)

    @property
    def tracking_uri(self) -> str:
        """The URI of MLflow's store that the settings or the environment name."""
        from oncoshift.experiments import resolve_tracking_uri

        return resolve_tracking_uri(self.project, self.settings.tracking, os.environ)

    def need_project_params(self) -> None:
        """Check that the settings are the project's, for commands that make experiments.

        Raises:
            SettingsError: `--params` is not the project's params.yaml.
        """
        from oncoshift.errors import SettingsError

        path = self.project / "params.yaml"
        if self.params.resolve() != path:
            raise SettingsError(f"{self.arguments.command} reads {path}; change settings by --preset or --set")


def add_last(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the option that limits a list to its newest entries.

    Args:
        parser: of the command.
        what: what the list has, in the plural.
    """
    parser.add_argument(
        "--last", type=int, default=20, metavar="N", help=f"list the N newest {what}; 0: all; default: 20"
    )
