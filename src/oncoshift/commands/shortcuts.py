"""The command `shortcuts`: which plain measures separate the classes, and which of them flip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from oncoshift.commands.context import Context


def add_shortcuts(parser: argparse.ArgumentParser) -> None:
    """Add the options of `shortcuts`."""
    parser.add_argument(
        "--with-target", action="store_true", help="also the target's test tiles; this reads their labels"
    )
    parser.add_argument("--out", type=Path, default=Path("shortcuts"), metavar="DIR", help="default: ./shortcuts")


def shortcuts(context: Context) -> None:
    """Measure the labelled tiles of the experiment, and write a table and a picture.

    Raises:
        DataError: a data stage has not run.
        SettingsError: `anchor.epithelium` cannot be used.
    """
    from oncoshift.console import showing_progress
    from oncoshift.files import writing
    from oncoshift.steps import shortcuts as step
    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.steps.recorder import FolderRecorder

    settings, out = context.settings, context.arguments.out
    jobs = ExperimentJobs.open(context.layout, settings.train.variant, settings.sources)
    with writing(out), showing_progress("shortcuts") as on_progress:
        with_target = context.arguments.with_target
        audit = step.run(jobs, settings, with_target=with_target, with_epithelium=True, on_progress=on_progress)
    audit.record(FolderRecorder(out))
    print(audit.shortcuts.to_markdown())
    flips = audit.shortcuts.list_measures("flips")
    print(f"\nflip between organs: {', '.join(flips) or 'none'}; written to {out}")
