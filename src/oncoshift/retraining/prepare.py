"""The preparation of a retraining: its plan, and bringing its data up to date."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from oncoshift.errors import SettingsError
from oncoshift.experiments import locate_experiment, prepare_experiment, resolve_tracking_uri, resolve_weights
from oncoshift.files import atomic, sweep
from oncoshift.fingerprint import fingerprint_stages, fingerprint_value
from oncoshift.layout import Layout
from oncoshift.logs import working_on
from oncoshift.phantom import is_written, write_phantom
from oncoshift.retraining.inputs import check_inputs
from oncoshift.retraining.session import RetrainingPlan
from oncoshift.settings import load_settings
from oncoshift.steps.jobs import ExperimentJobs
from oncoshift.versioning import DvcError, ensure_local_remote, is_current, is_versioned, push, repro, version_raw

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from oncoshift.retraining.session import Say

_STAMP_FORMAT = "%Y%m%dT%H%M%S"
_STAMP = re.compile(r"\d{8}T\d{6}")


def make_plan(
    project: Path,
    *,
    preset: str | None,
    overrides: tuple[str, ...],
    force: bool,
    environ: MutableMapping[str, str],
    say: Say,
    name: str | None = None,
    trusted: bool = True,
) -> RetrainingPlan:
    """Read the settings, check the inputs that they name, and choose the experiment's folder.

    Without preset, overrides and name the experiment is the project's root, with params.yaml as it
    is. Otherwise it is `experiments/<name>`, by default `<preset or custom>-<target>`, followed by
    a hash if overrides change more than the organs.

    Args:
        project: the project's root.
        preset: a name under `presets/`, or the path of a YAML file.
        overrides: `section.key=value` strings.
        force: train even if nothing has changed.
        environ: the process's environment, read and changed by `resolve_tracking_uri`.
        say: receives lines of progress.
        name: of the experiment's folder.
        trusted: whether the preset may be any file; otherwise only one in the project.

    Raises:
        DataError: see `check_inputs`.
        ExperimentError: the name cannot be used.
        SettingsError: a setting is not allowed.
        WeightsError: see `check_inputs`.
    """
    settings = load_settings(project / "params.yaml", preset=preset, overrides=overrides, trusted=trusted)
    if name is None and (preset is not None or overrides):
        name = _make_default_name(settings.target, preset, overrides)
    if settings.split.by == "tile":
        raise SettingsError(
            "split.by tile: tiles of one patient would train and judge a model, and its figures would be too high; it "
            "is for `oncoshift paper`, which shows by how much; set it to group"
        )
    layout = Layout(project) if name is None else locate_experiment(project, name)
    check_inputs(project, settings)
    settings = resolve_weights(settings, project)
    forced = _ensure_force_stamp(layout, say) if force else ""
    return RetrainingPlan(
        project, layout, settings, resolve_tracking_uri(project, settings.tracking, environ), forced, say
    )


def _make_default_name(target: str, preset: str | None, overrides: tuple[str, ...]) -> str:
    name = f"{Path(preset).stem if preset else 'custom'}-{target}"
    others = sorted(each for each in overrides if each.split("=")[0] not in ("target", "sources"))
    return f"{name}-{fingerprint_value(others)[:6]}" if others else name


def _ensure_force_stamp(layout: Layout, say: Say) -> str:
    """Return the time at which a forced retraining began, and keep it until the retraining ends.

    It makes its key differ from all earlier ones, and stays the same when it resumes after a crash.
    """
    path = layout.folder / "runs" / "forced.txt"
    kept = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if _STAMP.fullmatch(kept):
        return kept
    if path.is_file():
        say(f"{path}: damaged: {kept[:40]!r} is not a time; a new forced retraining begins")
    stamp = time.strftime(_STAMP_FORMAT)
    with atomic(path) as temporary:
        temporary.write_text(stamp, encoding="utf-8")
    return stamp


def remove_force_stamp(plan: RetrainingPlan) -> None:
    """Remove the stamp of a finished forced retraining, so that the next one gets its own."""
    if plan.forced:
        (plan.layout.folder / "runs" / "forced.txt").unlink(missing_ok=True)


@working_on("data")
def prepare_data(plan: RetrainingPlan) -> ExperimentJobs:
    """Version the raw data, and bring the stages `ingest`, `split` and `normalize` up to date.

    The phantom is written first if it is absent, and pushed to a DVC remote, by default a local
    folder.

    Raises:
        DvcError: a stage failed; the message has its last lines.
    """
    from oncoshift.training.job import sweep_jobs

    settings = plan.settings
    if plan.layout.folder != plan.project:
        prepare_experiment(plan.project, settings, plan.layout.folder.name)
    raw = plan.project / settings.ingest.root
    made_up = settings.ingest.adapter == "phantom"
    if made_up and write_phantom(settings.phantom, raw):
        plan.say(f"phantom: made-up data set written to {raw}")
    version_raw(plan.project, raw)
    if made_up:
        ensure_local_remote(plan.project)
        push(plan.project)
    ran = repro(plan.layout.folder, "normalize", plan.say)
    plan.say(f"data: {'stages ' + ', '.join(ran) + ' ran' if ran else 'nothing changed'}")
    jobs = open_jobs(plan)
    sweep(plan.layout.folder / "runs")  # safe, since this retraining holds the lock
    sweep_jobs(jobs.folder)
    return jobs


def is_data_current(plan: RetrainingPlan) -> bool:
    """Tell whether `prepare_data` would certainly change nothing; no stage runs."""
    settings = plan.settings
    if plan.layout.folder != plan.project:
        prepare_experiment(plan.project, settings, plan.layout.folder.name)
    raw = plan.project / settings.ingest.root
    if settings.ingest.adapter == "phantom" and not is_written(settings.phantom, raw):
        return False
    if not (is_versioned(plan.project, raw) and (plan.layout.folder / "dvc.lock").is_file()):
        return False
    try:
        return is_current(plan.layout.folder, "normalize", fingerprint_stages())
    except DvcError:  # running the stages repairs it or reports what to do
        return False


def open_jobs(plan: RetrainingPlan) -> ExperimentJobs:
    """Open the jobs of the experiment on the present data, in a separate folder if forced.

    Raises:
        DataError: a data stage has not run.
    """
    folder = plan.layout.folder / "runs" / "forced" / plan.forced if plan.forced else None
    return ExperimentJobs.open(plan.layout, plan.settings.train.variant, plan.settings.sources, folder)
