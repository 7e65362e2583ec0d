"""The report of a retraining: one self-contained HTML file for those who decide on the model.

Figures and tables come from the runs of the steps, so whatever a step saves is in the report.
"""

from __future__ import annotations

import base64
import json
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from markupsafe import Markup
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_LOGGED_ARTIFACTS

from oncoshift.data.names import escape_unprintable
from oncoshift.evaluation.shortcuts import Shortcuts
from oncoshift.evaluation.weighted import METRIC_NAMES
from oncoshift.files import DamagedFileError
from oncoshift.labels.table import OF_PRIOR
from oncoshift.methods.registry import METHODS
from oncoshift.registry.card import LEGEND, MADE_UP, RESEARCH_ONLY, describe_input, describe_scope, describe_use
from oncoshift.registry.decision import CONTRADICTION
from oncoshift.retraining.changes import find_changes, list_datasets, read_profile
from oncoshift.retraining.naming import list_retraining_parameters
from oncoshift.retraining.session import BEFORE_TAG
from oncoshift.steps.shortcuts import PICTURE, TABLE
from oncoshift.training.diagnostics import list_findings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from jinja2 import Template
    from mlflow.entities import Run

    from oncoshift.evaluation.weighted import MetricName
    from oncoshift.registry.card import CardFacts
    from oncoshift.registry.decision import Decision
    from oncoshift.registry.tracking import Tracker
    from oncoshift.retraining.session import Session
    from oncoshift.retraining.summary import Summary
    from oncoshift.steps.evaluate import Evaluation

_TEMPLATE = Path(__file__).with_name("report.html")
_STEPS = ("evaluate", "select", "explain", "register", "gate")
_MAX_ROWS, _MAX_COLUMNS = 40, 12
_WIDE = 900
"""Pixels from which a picture gets the whole width of the page."""

_TITLES = {
    "roc": "ROC curves, first seed",
    "reliability": "Reliability: predicted probability against observed share",
    "confusion": "Confusion matrices",
    "candidates": "Choice of method and stain variant, without target labels",
    "candidates_on_test": "The candidates on the target's test tiles, read after the choice",
    "comparison": "Source-only and adapted on every organ",
    "agreement": "Agreement of models from single organs and the pick on unlabelled tiles",
    "shortcuts": "AUROC of plain measures for malignant, by organ",
    "integrated_gradients": "Integrated Gradients of the pick on target tiles",
    "nuclei": "Share of attribution on nuclei",
    "baselines": "Integrated Gradients by baseline",
}


_LEGENDS = {_TITLES["candidates"]: LEGEND}
"""Title of a table → what its columns are."""


@dataclass(frozen=True)
class Picture:
    """A picture of the report.

    Attributes:
        title: its caption.
        content: the PNG file in base64.
        wide: whether it needs the whole width of the page.
    """

    title: str
    content: str
    wide: bool


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        title: its heading.
        header: names of the columns.
        rows: formatted cells.
        legend: what the columns are; empty where their names say it.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    legend: str = ""


def render_report(session: Session, summary: Summary, evaluation: Evaluation, facts: CardFacts) -> str:
    """Render the report.

    Args:
        session: the retraining, with all steps recorded.
        summary: its result.
        evaluation: performance of control and method.
        facts: the values of the model card.
    """
    tracker = session.recorder.tracker
    run = tracker.client.get_run(session.recorder.run)
    runs = [run, *(found for step in _STEPS if (found := tracker.find_run(f"{session.key}/{step}")))]
    pictures, tables = _collect_artifacts(tracker, runs)
    shortcuts = _describe_shortcuts(session, pictures)
    return _load_template().render(
        **_describe_request(session, run, facts),
        **_describe_data(session, run),
        **_describe_evidence(summary, evaluation, facts),
        **_describe_decision(summary),
        shortcuts=shortcuts,
        pictures=[picture for picture in pictures if picture != shortcuts.get("picture")],
        tables=[_list_organs(evaluation, facts.sources), *tables],
    )


def _describe_request(session: Session, run: Run, facts: CardFacts) -> dict[str, Any]:
    """What was asked, how to repeat it, and what the model must not be used for."""
    started = datetime.fromtimestamp(run.info.start_time / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    parameters = list_retraining_parameters(session.settings, session.jobs.data_digest, run.data.tags)
    commit = run.data.tags.get(MLFLOW_GIT_COMMIT)
    commands = [
        *([f"git checkout {commit}"] if commit else []),
        f"mlflow artifacts download --run-id {run.info.run_id} --artifact-path settings.yaml --dst-path .",
        "oncoshift retrain --preset settings.yaml --set tune.trials=0",
    ]
    packages = ("oncoshift", "torch", "numpy", "mlflow")
    return {
        "title": run.info.run_name,
        "started": started,
        "run": run.info.run_id,
        "commit": parameters["commit"],
        "phantom": MADE_UP if facts.phantom else "",
        "summary_text": f"{describe_use(facts)} {describe_input(facts)}",
        "asked": list(parameters.items()),
        "commands": commands,
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
        ),
        "limits": [RESEARCH_ONLY, describe_scope(facts)],
        "target": session.settings.target,
    }


def _describe_data(session: Session, run: Run) -> dict[str, Any]:
    """The splits, their difference to the champion's, and the warnings of the data stage."""
    inputs = run.inputs.dataset_inputs if run.inputs else ()
    organs = {each.dataset.name: {tag.key: tag.value for tag in each.tags} for each in inputs}
    splits = []
    for name, dataset in list_datasets(run).items():
        counts = read_profile(dataset)
        cells = (counts.get("tiles", ""), counts.get("groups", ""), organs[name].get("organs", "").replace(",", ", "))
        splits.append((name, *map(str, cells), dataset.digest[:12]))
    before = run.data.tags.get(BEFORE_TAG, "none")
    changes = find_changes(
        session.recorder.tracker.client,
        session.settings.registered_model,
        None if before == "none" else before,
        run.info.run_id,
    )
    ingested = json.loads((session.plan.layout.tiles / "report.json").read_text(encoding="utf-8"))
    since = f"version {changes.since}, the champion before" if changes.since else "the champion"
    return {
        "splits": splits,
        "changes": {"title": f"Changed since {since}", "lines": changes.lines},
        "quality": ingested["warnings"],
    }


def _describe_evidence(summary: Summary, evaluation: Evaluation, facts: CardFacts) -> dict[str, Any]:
    """Each training, and the figures of the model card beside those of the control."""
    control = evaluation.reports[evaluation.control].organ(evaluation.target)
    header = ("metric", f"control ({evaluation.control}), mean", f"adapted ({evaluation.method}), mean",
              f"the pick, seed {facts.seed}")  # fmt: skip
    figures = [
        (_format_name(name), control.in_words(name), facts.means[name], facts.figures[name]) for name in METRIC_NAMES
    ]
    trainings = [
        (
            f"{name} · seed {done.job.seed}",
            f"{done.last.source_accuracy:.3f}" + (f" ({OF_PRIOR})" if METHODS[name].reads_labels else ""),
            method.report.organ(evaluation.target).in_words("balanced_accuracy", done.job.seed),
            "; ".join(list_findings(done.history, done.job.settings)) or "none",
        )
        for name, method in evaluation.methods.items()
        for done in method.seeds
    ]
    return {
        "trainings": trainings,
        "evidence": (
            f"On labelled {evaluation.target} tiles that took part in no decision (test), "
            f"{summary.mean_of_seeds}, with {summary.confidence:.0%} intervals over groups and seeds."
        ),
        "figures_header": header,
        "figures": figures,
        "gain": summary.gain or f"none: {evaluation.without_gain}",
        "picked": summary.picked,
    }


def _describe_decision(summary: Summary) -> dict[str, Any]:
    """Verdict and gate with their reasons, and the boxes above all else."""
    decision, verdict = summary.gate, summary.verdict
    failed = sum(not reason.passed for reason in decision.reasons)
    gate_words = f"{failed} of {len(decision.reasons)} conditions failed" if failed else "all conditions hold"
    gate_words += f"; {summary.approval.words}" if summary.approval else ""
    gate_words += "".join(f". {flag}" for flag in decision.flags if flag.startswith(CONTRADICTION))
    kinds = {"trust": "good", "doubt": "open", "refuse": "bad"}
    gate_kinds = {"promote": "good", "await": "open", "refuse": "bad"}
    boxes = [
        {"kind": gate_kinds[summary.action], "title": "gate",
         "value": f"{summary.action} version {summary.version}", "words": gate_words},
        {"kind": kinds[verdict.kind.value], "title": "verdict without labels", "value": verdict.kind.value,
         "words": verdict.reasons[0] if verdict.reasons else ""},
        {"kind": "", "title": "gain in balanced accuracy", "value": summary.gain or "–",
         "words": f"{summary.rows[-1].method} over {summary.rows[0].method}"},
        {"kind": "", "title": f"champion of {summary.model}",
         "value": f"version {summary.champion}" if summary.champion else "none", "words": "after this retraining"},
    ]  # fmt: skip
    return {
        "boxes": boxes,
        "verdict": {"kind": verdict.kind.value, "reasons": verdict.reasons},
        "gate": {"action": summary.action, "rows": _list_conditions(decision), "flags": decision.flags},
        "version": summary.version,
        "model": summary.model,
        "champion": f"version {summary.champion}" if summary.champion else "none",
    }


def _list_conditions(decision: Decision) -> list[dict[str, Any]]:
    """List the gate's conditions, failed ones first."""
    return [
        {
            "outcome": reason.mark,
            "check": reason.check,
            "value": _format_cell(reason.value),
            "limit": _format_cell(reason.limit),
            "words": reason.words,
            "listed": reason.listed,
        }
        for reason in sorted(decision.reasons, key=lambda reason: reason.passed)
    ]


def _list_organs(evaluation: Evaluation, sources: Collection[str]) -> Table:
    """List the adapted method's metrics by organ; it learns from `sources`."""
    names: tuple[MetricName, ...] = ("balanced_accuracy", "auroc", "sensitivity", "specificity")
    rows = []
    for result in evaluation.reports[evaluation.method].organs:
        size = next(iter(result.per_seed.values()))
        role = "source" if result.organ in sources else "source that was left out"
        what = "target, test" if result.organ == evaluation.target else f"{role}, validation"
        figures = (result.in_words(name) for name in names)
        rows.append((result.organ, what, f"{size.tiles} ({size.groups})", *figures))
    header = ("organ", "split", "tiles (groups)", *map(_format_name, names))
    return Table(f"{evaluation.method} by organ", header, tuple(rows))


def _collect_artifacts(tracker: Tracker, runs: Sequence[Run]) -> tuple[list[Picture], list[Table]]:
    """Collect the pictures, one of each title, and the small tables of some runs."""
    pictures: dict[str, Picture] = {}
    tables = []
    with TemporaryDirectory() as scratch:
        for run in runs:
            listed = json.loads(run.data.tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
            names = {entry["path"] for entry in listed if entry.get("type") == "table"} - {f"{TABLE}.json"}
            for path in _list_files(tracker, run.info.run_id):
                if path.endswith(".png") or path in names:
                    content = Path(tracker.client.download_artifacts(run.info.run_id, path, scratch)).read_bytes()
                    if path in names:
                        tables += _read_table(path, content)
                    else:
                        pictures.setdefault(_format_title(path), _make_picture(path, content))
    return list(pictures.values()), tables


def _describe_shortcuts(session: Session, pictures: Sequence[Picture]) -> dict[str, Any]:
    """The audit of plain measures that step `select` recorded; empty without one."""
    tracker, target = session.recorder.tracker, session.settings.target
    run = tracker.find_run(f"{session.key}/select")
    path = f"{TABLE}.json"
    if run is None or path not in set(_list_files(tracker, run.info.run_id)):
        return {}
    try:
        table = tracker.read_table(run.info.run_id, path)
    except DamagedFileError as error:
        session.say(f"report: without the audit of plain measures: {error}")
        return {}
    found = Shortcuts(table.astype(dict.fromkeys(("auroc", "low", "high"), "float64")))
    return {
        "header": tuple(f"{name} (target)" if name == target else name for name in found.header),
        "rows": found.rows,
        "flips": found.list_measures("flips"),
        "one_way": found.list_measures("one way"),
        "picture": next((picture for picture in pictures if picture.title == _format_title(PICTURE)), None),
    }


def _list_files(tracker: Tracker, run_id: str, folder: str | None = None) -> Iterator[str]:
    for entry in tracker.client.list_artifacts(run_id, folder):
        if not entry.is_dir:
            yield entry.path
        elif entry.path != "data":  # the data stage has a report of its own
            yield from _list_files(tracker, run_id, entry.path)


def _make_picture(path: str, content: bytes) -> Picture:
    width = int.from_bytes(content[16:20], "big")  # of a PNG's header
    return Picture(_format_title(path), base64.b64encode(content).decode("ascii"), width >= _WIDE)


def _read_table(path: str, content: bytes) -> list[Table]:
    """Read a table as `Tracker.log_table` saves it; none if it is too large for a page."""
    values = json.loads(content)
    header, rows = values["columns"], values["data"]
    if len(rows) > _MAX_ROWS or len(header) > _MAX_COLUMNS:
        return []
    cells = tuple(tuple(_format_cell(cell) for cell in row) for row in rows)
    title = _format_title(path)
    return [Table(title, tuple(map(_format_name, header)), cells, _LEGENDS.get(title, ""))]


def _format_title(path: str) -> str:
    """Format a path as a title, for example `dann/roc.png` as "dann: ROC curves, first seed"."""
    folder, _, name = path.rpartition("/")
    stem = name.rpartition(".")[0]
    title = _TITLES.get(stem, _format_name(stem))
    return title if folder in ("", "plots") else f"{folder}: {title}"


def _format_name(name: str) -> str:
    return {"auroc": "AUROC", "auprc": "AUPRC", "ece": "ECE", "mcc": "MCC"}.get(name, name.replace("_", " "))


def _format_cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


@cache
def _load_template() -> Template:
    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        # Markup, which a macro returns, is escaped already.
        finalize=lambda value: value if isinstance(value, Markup) else escape_unprintable(str(value)),
    )
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
