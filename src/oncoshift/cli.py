"""The command `oncoshift`: a subcommand for each stage and for each thing a user does.

A command is a function of a `Context` and a row in `COMMANDS`. It imports what it needs when it
runs, so `--help` is quick and the commands of the training core work without the platform's
packages.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oncoshift import __version__
from oncoshift.commands import (
    backup,
    comparison,
    doctor,
    gc,
    labels,
    leaks,
    paper,
    registry,
    retraining,
    scoring,
    settings,
    shortcuts,
    stages,
    tuning,
    users,
    watching,
    webhooks,
)
from oncoshift.commands.context import Context
from oncoshift.errors import OncoshiftError
from oncoshift.logs import FORMAT_VARIABLE, FORMATS, log_as_json, step
from oncoshift.program import run_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        name: as typed.
        help: one line of help.
        run: runs it; raises `OncoshiftError` for what the user can fix; returns an exit code unless
            it is 0.
        add_arguments: adds the command's own options to its parser.
        prints_data: whether its stdout is for programs, which `--log-format json` leaves as it is.
    """

    name: str
    help: str
    run: Callable[[Context], int | None]
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None
    prints_data: bool = False


COMMANDS = (
    Command("retrain", "the main job: data, tuning, training, evaluation, explanation, registry, gate",
            retraining.retrain, retraining.add_retrain),
    Command("tune", "the study of that retraining alone, with any number of workers; goes on where it was",
            tuning.tune, tuning.add_tune),
    Command("compare", "list the finished retrainings of the target, or compare two runs", comparison.compare,
            comparison.add_compare),
    Command("models", "list the versions of a registered model", registry.models, registry.add_model),
    Command("promote", "make a version champion", registry.promote, registry.add_promote),
    Command("approve", "approve or refuse a version that passed the gate (gate.approval: human)", registry.approve,
            registry.add_approve),
    Command("rollback", "go back to the previous champion", registry.rollback, registry.add_rollback),
    Command("pull", "write the champion into a folder that runs by itself", registry.pull, registry.add_pull),
    Command("audit", "print every decision and change of a model, as JSON lines", registry.audit, registry.add_audit,
            prints_data=True),
    Command("webhook", "have an MLflow server report changes of a champion to an address", webhooks.webhook,
            webhooks.add_webhook),
    Command("user", "make a user of an MLflow server: reader, trainer or promoter", users.user, users.add_user),
    Command("relocate", "after a project was copied or moved: correct the artifact paths in its MLflow database",
            registry.relocate),
    Command("backup", "save registry, runs, artifacts, studies, data and settings as one folder", backup.backup,
            backup.add_backup),
    Command("restore", "restore a backup into an empty place, after checking every file", backup.restore,
            backup.add_restore),
    Command("gc", "list what nothing needs any more, with sizes and reasons; --delete removes it", gc.gc, gc.add_gc),
    Command("label", "propose tiles of the target to label, show them on a page, apply the labels", labels.label,
            labels.add_label),
    Command("score", "score images with a registered model: CSV or JSON on stdout, or Parquet",
            scoring.score, scoring.add_score, prints_data=True),
    Command("watch", "compare new unlabelled tiles with what the champion was trained on", watching.watch,
            watching.add_watch),
    Command("groups", "join images that are copies of one original to groups", leaks.groups, leaks.add_groups),
    Command("leaks", "find copies of one original on two sides of a split; exit code 3 if there are any",
            leaks.leaks, leaks.add_leaks),
    Command("shortcuts", "say which plain measures of a tile separate the classes, and flip between organs",
            shortcuts.shortcuts, shortcuts.add_shortcuts),
    Command("paper", "the paper's grid on your tiles, every method and protocol, and its page of results",
            paper.paper, paper.add_paper),
    Command("settings", "print all settings with the preset and --set, or their JSON schema", settings.settings,
            settings.add_settings, prints_data=True),
    Command("doctor", "say what is installed and set, and what is wrong, with its remedy; --fix mends what is safe",
            doctor.doctor, doctor.add_doctor),
    Command("phantom", "write the made-up data set to ingest.root", stages.phantom),
    Command("code", "stage: write the hashes of the code behind each stage, for DVC to compare", stages.code),
    Command("ingest", "stage: open and check every tile, write data/tiles", stages.ingest, stages.add_ingest),
    Command("split", "stage: split by group into training, validation, audit and test", stages.split),
    Command("normalize", "stage: decode, resize and stain-normalise every tile into packs", stages.normalize),
    Command("train", "stage: train the method and seed of params.yaml into outputs/train", stages.train),
    Command("evaluate", "stage: score outputs/train into outputs/evaluate", stages.evaluate),
    Command("explain", "stage: Integrated Gradients of outputs/train into outputs/explain", stages.explain),
)  # fmt: skip


class _PrintCompletion(argparse.Action):
    """Prints a completion script; options that take a path complete to files."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002 - argparse's signature
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        try:
            import shtab
        except ImportError:
            raise OncoshiftError('shell completion needs shtab; pip install "oncoshift[platform]"') from None
        for subparser in _list_subparsers(parser):
            for action in subparser._actions:
                if action.type is Path:
                    action.complete = shtab.FILE  # type: ignore[attr-defined]
        print(shtab.complete(parser, shell=str(values)))
        parser.exit()


def _list_subparsers(parser: argparse.ArgumentParser) -> Iterable[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def build_parser(commands: Sequence[Command] = COMMANDS) -> argparse.ArgumentParser:
    """Build the parser; every command has the options that choose the settings."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--params", type=Path, metavar="PATH", help="settings; default: params.yaml here, or of the project around it"
    )
    common.add_argument("--preset", metavar="NAME", help="a file of presets/ on top of the settings")
    common.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="one setting on top of those, e.g. model.backbone=resnet18; may be repeated",
    )  # fmt: skip
    common.add_argument(
        "--log-format", choices=FORMATS, help=f"json: one JSON object a line, also by {FORMAT_VARIABLE}; default: text"
    )
    parser = argparse.ArgumentParser(prog="oncoshift", description="Adapt a tissue classifier to an unlabelled organ.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument(
        "--print-completion", choices=("bash", "zsh", "tcsh"), action=_PrintCompletion,
        help="print a completion script for this shell, and exit",
    )  # fmt: skip
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in commands:
        subparser = subparsers.add_parser(command.name, parents=[common], help=command.help, description=command.help)
        subparser.set_defaults(run=command.run, prints_data=command.prints_data)
        if command.add_arguments is not None:
            command.add_arguments(subparser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code; `oncoshift.errors` says what each means.
    """

    def run() -> int | None:
        arguments = build_parser().parse_args(argv)
        _begin_logs(arguments)
        code: int | None = arguments.run(Context(arguments))
        return code

    return run_program(run, streams=("stderr",))


def _begin_logs(arguments: argparse.Namespace) -> None:
    """Choose the format of logs, for this process and those that it starts."""
    if arguments.log_format is not None:
        os.environ[FORMAT_VARIABLE] = arguments.log_format
    step.set(arguments.command)
    data = arguments.prints_data or getattr(arguments, "json", False)
    log_as_json(("stderr",) if data else ("stderr", "stdout"))


if __name__ == "__main__":
    sys.exit(main())
