"""What every command gets: the command line, and lazily the settings and the folders that it points to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from oncoshift.layout import Layout
    from oncoshift.settings import Settings


@dataclass(frozen=True)
class Context:
    """What a command gets.

    Attributes:
        arguments: the parsed command line.
    """

    arguments: argparse.Namespace

    @cached_property
    def settings(self) -> Settings:
        """params.yaml, the preset and the overrides, validated."""
        from oncoshift.settings import load_settings

        given = self.arguments
        return load_settings(given.params, preset=given.preset, overrides=tuple(given.overrides))

    @property
    def layout(self) -> Layout:
        """The experiment in whose folder params.yaml lies."""
        from oncoshift.layout import Layout

        return Layout(self.arguments.params.parent)

    @property
    def raw(self) -> Path:
        """The data set, `ingest.root`; a relative path is the experiment's."""
        return self.layout.folder / self.settings.ingest.root

    @property
    def project(self) -> Path:
        """The project's root, also from inside one of its experiments."""
        from oncoshift.experiments import find_project

        return find_project(self.arguments.params.parent)

    def need_project_params(self) -> None:
        """For a command that makes experiments of its own.

        Raises:
            SettingsError: `--params` is not the project's params.yaml.
        """
        from oncoshift.errors import SettingsError

        given, path = self.arguments, self.project / "params.yaml"
        if given.params.resolve() != path:
            raise SettingsError(f"{given.command} reads {path}; change settings by --preset or --set")
