"""What a retraining ends with, for people: a table in the terminal, Markdown for Prefect, JSON for the next run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from oncoshift.markdown import escape
from oncoshift.retraining.session import SUMMARY
from oncoshift.training.diagnostics import findings

if TYPE_CHECKING:
    from oncoshift.registry.gate import Decision
    from oncoshift.retraining.evaluate import Evaluation, Trained
    from oncoshift.retraining.select import Selection
    from oncoshift.retraining.session import Session

_METRICS = ("balanced_accuracy", "auroc", "sensitivity", "specificity")


@dataclass(frozen=True)
class Outcome:
    """What the steps came to.

    Attributes:
        trained: method → its seeds' jobs.
        evaluation: of these.
        selection: the pick, and whether to believe it.
        decision: the gate's.
        version: of the pick.
        champion: the version that is champion now, or None.
    """

    trained: Trained
    evaluation: Evaluation
    selection: Selection
    decision: Decision
    version: str
    champion: str | None


def close(session: Session, outcome: Outcome) -> dict[str, Any]:
    """Write the summary to the parent run and end it; after this there is nothing left to do.

    Returns:
        The summary, JSON-safe.
    """
    settings, evaluation = session.plan.settings, outcome.evaluation
    methods = {"source-only": settings.retrain.control, "adapted": settings.train.method}
    summary: dict[str, Any] = {
        "target": settings.target,
        "sources": list(settings.sources),
        "made_up_data": settings.ingest.adapter == "phantom",
        "seeds": settings.retrain.seeds,
        "confidence": settings.evaluate.confidence,
        "rows": [_row(role, method, evaluation, settings.target) for role, method in methods.items()],
        "gain": str(evaluation.gain) if evaluation.gain is not None else None,
        "picked": outcome.selection.how,
        "verdict": {"kind": outcome.selection.verdict.kind.value, "reasons": list(outcome.selection.verdict.reasons)},
        "findings": [
            f"{method} seed {job.settings.seed}: {finding}"
            for method, jobs in outcome.trained.items()
            for job, done in jobs
            for finding in findings(done.history, job.settings)
        ],
        "gate": outcome.decision.to_dict(),
        "model": session.plan.model_name,
        "version": outcome.version,
        "champion": outcome.champion,
        "run": session.parent,
        "experiment": session.tracker.experiment_id,
    }
    session.tracker.log_sealed(session.parent, summary, SUMMARY)
    text = to_markdown(summary)
    session.tracker.log_text(session.parent, text, "summary.md")
    tags = {"oncoshift.champion": outcome.champion or "none", "mlflow.note.content": text}
    tags["oncoshift.findings"] = "; ".join(summary["findings"])[:4000] or "none"
    session.tracker.set_tags(session.parent, tags)
    session.tracker.finish(session.parent)
    return summary


def to_markdown(summary: dict[str, Any]) -> str:
    """The summary as Markdown."""
    lines = [f"**{escape(_title(summary))}**", "", "| model | " + " | ".join(_METRICS) + " |", "|---" * 5 + "|"]
    lines += [
        f"| {row['role']} ({row['method']}) | " + " | ".join(row[name] for name in _METRICS) + " |"
        for row in summary["rows"]
    ]
    lines += ["", f"Gain in balanced accuracy, paired: {summary['gain'] or 'too few groups for an interval'}.", ""]
    lines += [f"Picked: {summary['picked']}. Verdict without labels: **{summary['verdict']['kind']}**.", ""]
    lines += [f"- {escape(reason)}" for reason in summary["verdict"]["reasons"]]
    lines += [
        "",
        f"Gate: **{summary['gate']['verdict']}** for version {summary['version']}; champion: {_champion(summary)}.",
        "",
    ]
    lines += [f"- {_mark(each)} {each['check']}: {escape(each['words'])}" for each in summary["gate"]["reasons"]]
    lines += [f"- {escape(flag)}" for flag in summary["gate"]["flags"]]
    if summary["findings"]:
        lines += ["", "Found in the trainings:", "", *(f"- {escape(finding)}" for finding in summary["findings"])]
    return "\n".join(lines) + "\n"


def to_table(summary: dict[str, Any]) -> Table:
    """The summary as a terminal table: target, source-only against adapted, gate with reasons, champion."""
    # Text, as a table's strings are console markup.
    table = Table(title=Text(_title(summary), "table.title"), title_justify="left", show_lines=False)
    for column in ("model", *(name.replace("_", " ") for name in _METRICS)):
        table.add_column(column, no_wrap=True)
    for row in summary["rows"]:
        table.add_row(f"{row['role']} ({row['method']})", *(row[name] for name in _METRICS))
    return table


def to_lines(summary: dict[str, Any]) -> list[str]:
    """What stands under the table: findings, gain, pick and verdict, gate with reasons, champion."""
    reasons = [f"  {_mark(reason)} {reason['check']}: {reason['words']}" for reason in summary["gate"]["reasons"]]
    return [
        *(f"! {finding}" for finding in summary["findings"]),
        f"gain in balanced accuracy (paired): {summary['gain'] or 'too few groups for an interval'}",
        f"picked: {summary['picked']}",
        f"verdict without labels: {summary['verdict']['kind']}",
        *(f"  {reason}" for reason in summary["verdict"]["reasons"]),
        f"gate: {summary['gate']['verdict']} version {summary['version']}",
        *reasons,
        *(f"  ! {flag}" for flag in summary["gate"]["flags"]),
        f"champion of {summary['model']}: {_champion(summary)}",
    ]


def _row(role: str, method: str, evaluation: Evaluation, target: str) -> dict[str, str]:
    result = evaluation.reports[method].organ(target)
    cells = {name: str(interval) for name, interval in result.intervals.items() if name in _METRICS}
    means = {name: result.mean(name) for name in _METRICS}
    plain = {name: "–" if mean is None else f"{mean:.3f}" for name, mean in means.items()}
    return {"role": role, "method": method} | plain | cells


def _title(summary: dict[str, Any]) -> str:
    made_up = ", made-up data" if summary["made_up_data"] else ""
    return (
        f"{summary['target']} ← {', '.join(summary['sources'])}{made_up}: test tiles, mean of {summary['seeds']} seeds "
        f"[{summary['confidence']:.0%} interval over groups and seeds]"
    )


def _champion(summary: dict[str, Any]) -> str:
    if not summary["champion"]:
        return "none yet"
    live = f"version {summary['champion']}"
    if summary["champion"] == summary["version"] and summary["gate"]["verdict"] == "refuse":
        # Taking it down would leave nothing, or a version that nobody judged by the present data: a person decides.
        return f"{live}, judged again and refused; it is live until a better one comes or `oncoshift rollback`"
    return live


def _mark(reason: dict[str, Any]) -> str:
    return "✓" if reason["passed"] else "✗"
