"""Command `doctor`: what is installed and set, what is wrong, and what to do about it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from oncoshift.commands.champions import add_champions, check_champions
from oncoshift.errors import OncoshiftError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator

    from oncoshift.commands.context import Context
    from oncoshift.maintenance.findings import Finding, Scene

_WARNED = 1


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Add the options of `doctor`."""
    add_champions(parser)
    parser.add_argument(
        "--profile", choices=("train", "serve", "server"), default="train", help="what this machine is for"
    )
    parser.add_argument("--fix", action="store_true", help="mend what is safe to mend: see which warnings say so")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def doctor(context: Context) -> int:
    """Report what is installed and set, and what is wrong with its remedy; with `--fix`, mend it.

    Returns:
        0; 1 with warnings alone; 2 where something would stop the work.
    """
    findings = list(_examine(context))
    fixed = [_fix(finding) for finding in findings if finding.fix is not None] if context.arguments.fix else []
    left = [finding for finding in findings if not (context.arguments.fix and finding.fix)]
    errors = [finding for finding in left if finding.level == "error"]
    warnings = [finding for finding in left if finding.level == "warning"]
    if context.arguments.json:
        _print_json(left, errors, warnings, fixed)
    else:
        for finding in left:
            if finding.level == "ok":
                print(f"{finding.check}: {finding.words}")
        for line in fixed:
            print(f"fixed: {line}")
        for finding in (*warnings, *errors):
            print(f"{finding.level}: {_name(finding)}{finding.sentence}", file=sys.stderr)
    return OncoshiftError.exit_code if errors else _WARNED if warnings else 0


def _name(finding: Finding) -> str:
    """Name the check where its words alone would not say what they are about."""
    return f"{finding.check}: " if finding.words == "absent" else ""


def _print_json(
    left: Iterable[Finding], errors: Iterable[Finding], warnings: Iterable[Finding], fixed: Iterable[str]
) -> None:
    facts = {finding.check: finding.words for finding in left if finding.level == "ok"}
    findings = [
        {"check": each.check, "level": each.level, "message": each.words, "remedy": each.remedy,
         "fixable": each.fix is not None}
        for each in left
    ]  # fmt: skip
    problems = {"problems": [each.sentence for each in errors], "warnings": [each.sentence for each in warnings]}
    print(json.dumps({**facts, **problems, "fixed": list(fixed), "findings": findings}, indent=2, ensure_ascii=False))


def _fix(finding: Finding) -> str:
    if finding.fix is not None:
        finding.fix()
    return finding.words


def _examine(context: Context) -> Iterator[Finding]:
    """Run the checks of the profile; what one of them raises is a finding, too."""
    from oncoshift.maintenance import machine_checks, prefect_checks, process_checks, store_checks

    profile = context.arguments.profile
    yield from machine_checks.check_packages(profile)
    try:
        scene = _make_scene(context)
    except OncoshiftError as error:
        yield _report(error)
        return
    yield from _describe(scene)
    checks: list[Callable[[Scene], Iterator[Finding]]] = [
        lambda scene: machine_checks.check_pins(scene.project),
        machine_checks.check_disk,
        machine_checks.check_programs,
    ]
    if profile == "train":
        checks += [machine_checks.check_device]
    checks += [store_checks.check_tracking]
    if profile != "serve":
        checks += [store_checks.check_studies, prefect_checks.check_prefect]
    checks += [store_checks.check_models, lambda _: _check_champions(context)]
    if profile != "serve":
        checks += [process_checks.check_runs, process_checks.check_trials]
    if profile == "train":
        checks += [_check_data]
    seen: set[str] = set()
    for check in checks:
        try:
            yield from check(scene)
        except OncoshiftError as error:
            if str(error) not in seen:  # a store that is away stops several checks
                yield _report(error)
            seen.add(str(error))


def _make_scene(context: Context) -> Scene:
    from oncoshift.experiments import resolve_url
    from oncoshift.maintenance.findings import Scene

    settings, project = context.settings, context.project
    studies = resolve_url(settings.tune.storage, project)
    return Scene(project, settings, context.tracking_uri, studies, context.arguments.profile)


def _report(error: OncoshiftError) -> Finding:
    from oncoshift.maintenance.findings import Finding

    return Finding("error", "error", str(error))


def _describe(scene: Scene) -> Iterator[Finding]:
    from oncoshift.maintenance.findings import Finding

    yield Finding("project", "ok", str(scene.project))
    yield Finding("settings", "ok", f"valid; {scene.settings.target} from {', '.join(scene.settings.sources)}")


def _check_champions(context: Context) -> Iterator[Finding]:
    """Check that champions are those of their histories."""
    from oncoshift.maintenance.findings import Finding

    settled, problems = check_champions(context)
    if settled:
        yield Finding("settled", "ok", "; ".join(settled))
    for problem in problems:
        yield Finding("champions", "error", problem)


def _check_data(scene: Scene) -> Iterator[Finding]:
    """Check the data set and the weights that a retraining would read."""
    from oncoshift.maintenance.findings import Finding
    from oncoshift.retraining.inputs import check_inputs

    yield Finding("data", "ok", _describe_data(scene))
    check_inputs(scene.project, scene.settings)


def _describe_data(scene: Scene) -> str:
    """Describe where the data set is and what it contains."""
    from oncoshift.retraining.inputs import count_tiles_by_organ

    settings = scene.settings.ingest
    raw = scene.project / settings.root
    if settings.adapter == "phantom" and not raw.exists():
        return f"{raw} is made on the first run"
    organs = count_tiles_by_organ(settings, raw)
    if organs is None:
        return f"{raw} is there; what is in it is seen when `oncoshift ingest` has unpacked it"
    return f"{raw}: {', '.join(f'{count} tiles of {organ}' for organ, count in sorted(organs.items()))}"
