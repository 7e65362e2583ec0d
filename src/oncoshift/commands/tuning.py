"""The command `tune`: the study of a retraining alone, with any number of workers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from oncoshift.commands.retraining import add_name
from oncoshift.errors import SettingsError

if TYPE_CHECKING:
    import argparse

    from oncoshift.commands.context import Context


def add_tune(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tune`."""
    parser.add_argument("--trials", type=int, metavar="N", help="until the study has N; default: tune.trials")
    parser.add_argument("--workers", type=int, metavar="N", help="processes; default: tune.workers")
    parser.add_argument("--minutes", type=float, metavar="M", help="begin none after M minutes; default: tune.minutes")
    add_name(parser)


def tune(context: Context) -> None:
    """Run or resume the study; a retraining with the same settings uses its result."""
    from oncoshift.experiments import hold_experiment
    from oncoshift.registry.waiting import waiting_for
    from oncoshift.retraining.prepare import make_plan, prepare_data
    from oncoshift.retraining.recipe import check_stores
    from oncoshift.retraining.recorded import run_study
    from oncoshift.retraining.session import log_start, open_session
    from oncoshift.retraining.workers import TuningError
    from oncoshift.settings import replace_values
    from oncoshift.steps.tune import locate_best_preset
    from oncoshift.training.interruption import stop_on_sigterm

    given, project, preset = context.arguments, context.project, context.preset
    context.need_project_params()
    os.chdir(project)  # from where relative paths in settings go
    plan = make_plan(
        project,
        preset=preset,
        overrides=tuple(given.overrides),
        force=False,
        environ=os.environ,
        say=_say,
        name=given.name,
    )
    # Not settings of the experiment: `retrain` without these options must find the study and its
    # run.
    options = {f"tune.{name}": getattr(given, name) for name in ("trials", "workers", "minutes")}
    asked = {key: value for key, value in options.items() if value is not None}
    section = replace_values(plan.settings, asked).tune
    if section.trials == 0:
        raise SettingsError("tune.trials is 0, so there is nothing to tune; give --trials")
    stop_on_sigterm()
    check_stores(plan)
    with hold_experiment(plan.layout), waiting_for(60 * plan.settings.tracking.wait_minutes):
        session = open_session(plan, prepare_data(plan))
        log_start(session)
        best = locate_best_preset(plan.layout)
        best.unlink(missing_ok=True)
        try:
            run_study(session, section)
        finally:
            session.recorder.tracker.postpone(session.recorder.run)  # the rest of the retraining is still to come
        if not best.is_file():
            raise TuningError("no trial completed, so there is no best configuration; what trials said stands above")
    print(f"\n{best.read_text(encoding='utf-8')}\nwritten to {best}")


def _say(line: str) -> None:
    print(line, flush=True)
