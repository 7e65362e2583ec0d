"""The command `label`: propose tiles of the target, show them on a page, apply their labels."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from oncoshift.commands.context import Context

_FOLDER = "labels"


def add_label(parser: argparse.ArgumentParser) -> None:
    """Add the options of `label`."""
    parser.add_argument(
        "action", choices=("propose", "page", "apply"),
        help="propose: write a CSV to fill in, with pictures; page: label by keys in a browser; apply: check and keep",
    )  # fmt: skip
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="page, apply: the CSV; default: labels/TARGET/labels.csv"
    )
    parser.add_argument("--target", metavar="ORGAN", help="the organ; default: target of the settings")
    parser.add_argument("--budget", type=int, default=20, metavar="N", help="propose: tiles in all; default: 20")
    parser.add_argument(
        "--gate", type=int, metavar="N", help="propose: how many of them gate and do not train; default: half"
    )
    parser.add_argument("--name", help="propose: of the experiment's folder, as of retrain")
    parser.add_argument("--out", type=Path, metavar="DIR", help="propose: default: labels/TARGET")
    parser.add_argument("--correct", action="store_true", help="apply: replace earlier labels of the same tiles")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="page: default: any free one")
    parser.add_argument("--no-browser", action="store_true", help="page: print the address, and open nothing")


def label(context: Context) -> None:
    """Propose tiles, serve the page of a sheet, or apply its labels.

    Raises:
        DataError: a sheet cannot be used; the message lists what is wrong.
        SettingsError: an option is not allowed.
    """
    {"propose": _propose, "page": _page, "apply": _apply}[context.arguments.action](context)


def _propose(context: Context) -> None:
    from oncoshift.experiments import hold_experiment
    from oncoshift.files import writing
    from oncoshift.retraining.prepare import make_plan, prepare_data
    from oncoshift.steps import labels as step
    from oncoshift.training.interruption import stop_on_sigterm

    given, project = context.arguments, context.project
    counts = _share_budget(given.budget, given.gate)
    context.need_project_params()
    stop_on_sigterm()
    plan = make_plan(
        project,
        preset=context.preset,
        overrides=(*given.overrides, *_name_target(context)),
        force=False,
        environ=os.environ,
        say=_say,
        name=given.name,
    )
    out = given.out or Path(_FOLDER, plan.settings.target)
    step.check_out(out, plan.layout, plan.settings.target)
    with writing(out), hold_experiment(plan.layout):
        found = step.propose(prepare_data(plan), plan.settings, counts, out, project, _say)
    for use, count in counts.items():
        tiles, groups = found.uses.get(use, 0), found.groups.get(use, 0)
        fewer = f"; {count} were wanted, and there are no more" if tiles < count else ""
        print(f"label: {tiles} tiles of {groups} groups to {use}{fewer}")
    print(f"label: fill in column label of {found.path} (benign, malignant or skip), or `oncoshift label page`")


def _page(context: Context) -> None:
    import webbrowser

    from oncoshift.labels.page import Sheet, open_server
    from oncoshift.steps.labels import read_sheet

    path, given = _locate_file(context), context.arguments
    target, _ = read_sheet(path)
    sheet = Sheet(path)
    server, address = open_server(sheet, f"Tiles of {target}", given.port)
    print(f"label: {address} (Ctrl-C ends it; each answer is saved in {path} at once)", flush=True)
    if not given.no_browser:
        webbrowser.open(address)
    with server, suppress(KeyboardInterrupt):  # the way to end it
        server.serve_forever()
    answered = sum(bool(each) for each in sheet.labels)
    print(f"\nlabel: {answered} of {len(sheet.labels)} answered; next: oncoshift label apply {path}")


def _apply(context: Context) -> None:
    from oncoshift.files import writing
    from oncoshift.labels.table import USES
    from oncoshift.layout import Layout
    from oncoshift.steps import labels as step

    path, project = _locate_file(context), context.project
    target, experiment = step.read_sheet(path)
    layout = Layout(project / experiment, project)
    with writing(layout.labels):
        applied = step.apply(path, layout, target, project, correct=context.arguments.correct)
    merged = applied.merged
    corrected = f", {merged.corrected} corrected" if merged.corrected else ""
    open_ = f", {merged.unanswered} rows without a label left out" if merged.unanswered else ""
    print(f"label: {merged.new} new labels of {target}{corrected}{open_}")
    print(f"label: now {' and '.join(step.summarise(merged.table, use) for use in USES)}")
    version = f"DVC {applied.digest}; commit {applied.path.name}.dvc" if applied.digest else "not versioned by DVC"
    print(f"label: {applied.path} ({version})")


def _share_budget(budget: int, gate: int | None) -> dict[str, int]:
    """Share the budget between training and the gate."""
    from oncoshift.errors import SettingsError
    from oncoshift.labels.table import GATE, TRAIN

    gating = budget // 2 if gate is None else gate
    if budget < 1 or not 0 <= gating <= budget:
        raise SettingsError(
            f"--budget {budget} --gate {gating}: name at least one tile, and of them 0 to all for the gate"
        )
    return {TRAIN: budget - gating, GATE: gating}


def _name_target(context: Context) -> list[str]:
    """Name `--target` as overrides; as a target is no source, it leaves `sources`."""
    settings, target = context.settings, context.arguments.target
    if target in (None, settings.target):
        return []
    sources = ", ".join(organ for organ in settings.sources if organ != target)
    return [f"target={target}", f"sources=[{sources}]"]


def _locate_file(context: Context) -> Path:
    """Return the CSV, by default that of the target."""
    given = context.arguments
    if given.file is not None:
        return Path(given.file)
    return Path(_FOLDER, given.target or context.settings.target, "labels.csv")


def _say(line: str) -> None:
    print(line, flush=True)
