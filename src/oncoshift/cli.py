"""The command `oncoshift`: one subcommand a stage, beside the user's verbs.

A command is a function of a `Context` and a row in `COMMANDS`. It imports what it needs itself, so that `--help` is
quick and commands of the training core work where the platform's packages are absent.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from oncoshift.errors import OncoshiftError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        name: as typed.
        help: one line.
        run: does it; raises `OncoshiftError` for what the user can mend.
        add_arguments: adds the command's own options to its parser.
    """

    name: str
    help: str
    run: Callable[[Context], None]
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None


def phantom(context: Context) -> None:
    """Write the made-up data set to `ingest.root`."""
    from oncoshift.console import progress
    from oncoshift.data.phantom import write_phantom

    with progress("phantom") as step:
        written = write_phantom(context.settings.phantom, context.raw, step)
    print(f"phantom: {'written to' if written else 'already there, unchanged:'} {context.raw}")


def ingest(context: Context) -> None:
    """Stage `ingest`."""
    from oncoshift.console import progress
    from oncoshift.data.ingest import ingest as run

    layout = context.layout
    with progress("ingest") as step:
        report = run(context.settings.ingest, context.raw, layout.tiles, base=layout.folder, progress=step)
    made_up = ", made up" if report.made_up else ""
    print(f"ingest: {report.tiles} tiles{made_up}, {report.quarantined} quarantined: {layout.tiles}")


def split(context: Context) -> None:
    """Stage `split`."""
    from oncoshift.data.split import run_split

    settings, layout = context.settings, context.layout
    frames = run_split(settings.split, settings.target, settings.sources, layout)
    print(f"split: {', '.join(f'{name} {len(frame)}' for name, frame in frames.items())}: {layout.splits}")


def normalize(context: Context) -> None:
    """Stage `normalize`."""
    from oncoshift.console import progress
    from oncoshift.data.normalize import run_normalize

    with progress("normalize") as step:
        packs = run_normalize(context.settings.normalize, context.layout, step)
    for variant, pack in packs.items():
        outcomes = ", ".join(f"{number} {outcome}" for outcome, number in pack.stain.outcomes.items())
        print(f"normalize: {variant}: {outcomes}: {context.layout.packs / variant}")


COMMANDS = (
    Command("phantom", "write the made-up data set to ingest.root", phantom),
    Command("ingest", "stage: open and check every tile, write data/tiles", ingest),
    Command("split", "stage: split by group into training, validation, audit and test", split),
    Command("normalize", "stage: decode, resize and stain-normalise every tile into packs", normalize),
)


def build_parser(commands: Sequence[Command] = COMMANDS) -> argparse.ArgumentParser:
    """The parser; every command takes the options that say where settings come from."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--params", type=Path, default=Path("params.yaml"), metavar="PATH", help="settings; default: ./params.yaml"
    )
    common.add_argument("--preset", metavar="NAME", help="a file of presets/ on top of the settings")
    common.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="one setting on top of those, e.g. model.backbone=resnet18; may be repeated",
    )  # fmt: skip
    parser = argparse.ArgumentParser(prog="oncoshift", description="Adapt a tissue classifier to an unlabelled organ.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in commands:
        subparser = subparsers.add_parser(command.name, parents=[common], help=command.help, description=command.help)
        subparser.set_defaults(run=command.run)
        if command.add_arguments is not None:
            command.add_arguments(subparser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 done, 2 for an error that the user can mend, 130 if interrupted.
    """
    arguments = build_parser().parse_args(argv)
    try:
        arguments.run(Context(arguments))
    except OncoshiftError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
