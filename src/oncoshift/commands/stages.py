"""Commands that run one stage of dvc.yaml, and `phantom`, which writes the made-up data set."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from oncoshift.commands.context import Context
    from oncoshift.settings import Settings
    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.training.job import TrainedJob


_LABELS = "labels.sha256"
"""File beside the hashes of code with that of the labels which the method reads."""


def phantom(context: Context) -> None:
    """Write the made-up data set to `ingest.root`."""
    from oncoshift.console import showing_progress
    from oncoshift.files import writing
    from oncoshift.phantom import write_phantom

    with writing(context.raw.parent), showing_progress("phantom") as step:
        written = write_phantom(context.settings.phantom, context.raw, step)
    print(f"phantom: {'written to' if written else 'already there, unchanged:'} {context.raw}")


def add_ingest(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ingest`."""
    parser.add_argument("--list", action="store_true", help="list the adapters (ingest.adapter), and do nothing else")


def code(context: Context) -> None:
    """Run stage `code`: write the hash of the code behind each stage."""
    from oncoshift.files import atomic, writing
    from oncoshift.fingerprint import fingerprint_stages

    with writing(context.layout.code):
        for stage, digest in fingerprint_stages().items():
            with atomic(context.layout.code / f"{stage}.txt") as temporary:
                temporary.write_text(f"{digest}\n", encoding="utf-8")
        with atomic(context.layout.code / _LABELS) as temporary:
            temporary.write_text(f"{_hash_labels(context)}\n", encoding="utf-8")


def _hash_labels(context: Context) -> str:
    """Hash the labels that stage `train` reads, on which DVC then lets it depend."""
    from oncoshift.files import sha256_file
    from oncoshift.labels.table import locate_labels
    from oncoshift.methods.registry import METHODS

    settings = context.settings
    path = locate_labels(context.layout.labels, settings.target)
    return sha256_file(path) if METHODS[settings.train.method].reads_labels and path.is_file() else "none"


def ingest(context: Context) -> None:
    """Run stage `ingest`, or list the adapters."""
    if context.arguments.list:
        _list_adapters()
        return
    from oncoshift.console import showing_phases
    from oncoshift.data.ingest import ingest as run
    from oncoshift.data.names import escape_unprintable
    from oncoshift.data.source.passed_over import summarise
    from oncoshift.files import writing

    layout = context.layout
    with writing(layout.tiles), showing_phases("ingest") as steps:
        report = run(context.settings.ingest, context.raw, layout.tiles, base=layout.folder, phases=steps)
    made_up = ", made up" if report.made_up else ""
    kinds = ", ".join(f"{number} {kind}" for kind, number in report.kinds.items() if kind != "duplicate")
    left_out = f"{report.quarantined} quarantined{f' ({kinds})' if kinds else ''}"
    copies = f", {report.duplicates} byte-identical copies dropped" if report.duplicates else ""
    print(f"ingest: {report.tiles} tiles{made_up}, {left_out}{copies}: {layout.tiles}")
    if report.passed_over:
        print(f"ingest: passed over, not tiles of adapter {report.adapter}: {summarise(report.passed_over)}")
    for warning in report.warnings:
        print(f"ingest: ! {escape_unprintable(warning)}")
    print(f"ingest: report: {layout.tiles / 'report' / 'report.html'}")


def _list_adapters() -> None:
    from oncoshift.data.source.adapters.registry import ADAPTERS, load_adapter

    width = max(map(len, ADAPTERS))
    for name in ADAPTERS:
        print(f"{name:{width}}  {load_adapter(name).title}")


def split(context: Context) -> None:
    """Run stage `split`."""
    from oncoshift.data.split import run_split
    from oncoshift.files import writing

    settings, layout = context.settings, context.layout
    with writing(layout.splits):
        frames = run_split(settings.split, settings.target, settings.sources, layout)
    print(f"split: {', '.join(f'{name} {len(frame)}' for name, frame in frames.items())}: {layout.splits}")
    audited, needed = frames["audit"]["group"].nunique(), settings.gate.min_audit_groups
    if audited < needed:
        print(
            f"split: ! the audit set has {audited} groups, and the gate wants {needed} (gate.min_audit_groups): no "
            "model can be promoted; label more groups, or raise split.audit_share"
        )


def normalize(context: Context) -> None:
    """Run stage `normalize`."""
    from oncoshift.console import showing_phases
    from oncoshift.data.normalize import run_normalize
    from oncoshift.files import writing

    with writing(context.layout.packs), showing_phases("normalize") as steps:
        packs = run_normalize(context.settings.normalize, context.layout, steps)
    for variant, (pack, report) in packs.items():
        outcomes = ", ".join(f"{number} {outcome}" for outcome, number in (pack.stain.outcomes or {}).items())
        damaged = f", {report.damaged} damaged shards" if report.damaged else ""
        kept = f"{report.made} made, {report.kept} kept{damaged}"
        print(f"normalize: {variant}: {kept}; {outcomes}: {context.layout.packs / variant}")


def train(context: Context) -> None:
    """Run stage `train`: train the method, variant and seed of params.yaml into outputs/train.

    It shares its jobs with retrainings, so a job that either has done is not trained again. With
    `train.nodes` above 1, a cluster's launcher starts it on every machine.
    """
    from oncoshift.methods.factory import count_epochs
    from oncoshift.steps import train as step
    from oncoshift.steps.recorder import FolderRecorder
    from oncoshift.training.distributed import is_first_process

    jobs = _open_jobs(context)
    tell = step.make_epoch_reporter(partial(print, flush=True), "train", count_epochs(context.settings))
    training = step.run(jobs, jobs.make_job(_read_settings(context)), tell)
    if not is_first_process(context.settings.train):
        return
    recorder = FolderRecorder(context.layout.outputs / "train")
    training.record(recorder)
    print(f"train: {recorder.folder}")


def evaluate(context: Context) -> None:
    """Run stage `evaluate`: score outputs/train on source_val and test into outputs/evaluate."""
    from oncoshift.steps import evaluate as step
    from oncoshift.steps.recorder import FolderRecorder

    jobs = _open_jobs(context)
    evaluated = step.evaluate_one(jobs, _read_trained(context, jobs), context.settings.evaluate)
    recorder = FolderRecorder(context.layout.outputs / "evaluate")
    evaluated.record(recorder)
    recorder.save_json("metrics.json", evaluated.report.to_dict())
    recorder.save_table("roc", step.compute_roc_points(evaluated.predictions))
    print(evaluated.report.to_markdown())


def explain(context: Context) -> None:
    """Run stage `explain`: Integrated Gradients of outputs/train into outputs/explain."""
    from oncoshift.console import showing_progress
    from oncoshift.steps import explain as step
    from oncoshift.steps.recorder import FolderRecorder

    jobs = _open_jobs(context)
    with showing_progress("explain: attribution maps") as on_progress:
        explained = step.run(jobs, _read_trained(context, jobs), on_progress)
    explained.record(FolderRecorder(context.layout.outputs / "explain"))
    for name, value in explained.explanation.as_dict().items():
        print(f"{name}: {'–' if value is None else f'{value:.3f}'}")


def _read_settings(context: Context) -> Settings:
    """Read the settings of a job; a relative path of weights is within the experiment."""
    from oncoshift.experiments import resolve_weights

    return resolve_weights(context.settings, context.layout.folder)


def _open_jobs(context: Context) -> ExperimentJobs:
    from oncoshift.steps.jobs import ExperimentJobs

    settings = context.settings
    return ExperimentJobs.open(context.layout, settings.train.variant, settings.sources)


def _read_trained(context: Context, jobs: ExperimentJobs) -> TrainedJob:
    """Read the job in outputs/train, which DVC may have restored from its cache."""
    from oncoshift.errors import TrainingError
    from oncoshift.files import DamagedFileError
    from oncoshift.training.job import read_trained

    folder = context.layout.outputs / "train"
    try:
        return read_trained(jobs.make_job(_read_settings(context)), folder)
    except FileNotFoundError:
        raise TrainingError(f"{folder}: nothing trained here; run `dvc repro train` first") from None
    except DamagedFileError as error:
        raise DamagedFileError(f"{error}; remove {folder} and run `dvc repro train`") from None
