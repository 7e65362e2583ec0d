"""The result of a retraining: a terminal table, Markdown for Prefect, JSON for the next run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from rich.table import Table
from rich.text import Text

from oncoshift.files import DamagedFileError
from oncoshift.markdown import escape, render_table
from oncoshift.registry.approval import Approval
from oncoshift.registry.card import LEGEND
from oncoshift.registry.decision import Decision
from oncoshift.registry.history import find_champion, get_version
from oncoshift.registry.views import RETRAININGS, build_artifact_path, build_view_path
from oncoshift.selection.choice import HEADER, read_choice
from oncoshift.selection.verdict import Kind, Verdict
from oncoshift.training.diagnostics import list_findings

if TYPE_CHECKING:
    from oncoshift.evaluation.weighted import MetricName
    from oncoshift.registry.history import Action
    from oncoshift.registry.policy import Reason
    from oncoshift.retraining.session import Session
    from oncoshift.selection.choice import Choice
    from oncoshift.steps.evaluate import EvaluatedMethod, Evaluation
    from oncoshift.steps.recorder import RunRecorder
    from oncoshift.steps.select import Selection

SUMMARY = "summary.json"
REPORT = "report.html"
"""Artifact with the report of `retraining.report`."""

_METRICS: tuple[MetricName, ...] = ("balanced_accuracy", "auroc", "sensitivity", "specificity")


@dataclass(frozen=True)
class Row:
    """Formatted metrics of a method on the target's test tiles, with intervals if there are any.

    Attributes:
        role: source-only or adapted.
        method: its name.
        balanced_accuracy: mean over seeds, as for the other metrics.
        auroc: area under the ROC curve.
        sensitivity: share of malignant tiles called malignant.
        specificity: share of benign tiles called benign.
    """

    role: str
    method: str
    balanced_accuracy: str
    auroc: str
    sensitivity: str
    specificity: str

    @classmethod
    def from_evaluated(cls, role: str, method: str, evaluated: EvaluatedMethod, target: str) -> Self:
        """Make the row of an evaluated method."""
        result = evaluated.report.organ(target)
        return cls(role, method, *(result.in_words(name) for name in _METRICS))

    @property
    def title(self) -> str:
        """Title of the row."""
        return f"{self.role} ({self.method})"

    @property
    def cells(self) -> tuple[str, ...]:
        """Metrics in the order of the table's columns."""
        return self.balanced_accuracy, self.auroc, self.sensitivity, self.specificity


@dataclass(frozen=True)
class Summary:
    """The result of a retraining.

    Attributes:
        target: the organ adapted to.
        sources: the labelled organs.
        made_up_data: whether the data are the phantom's.
        seeds: number of seeds of each method.
        confidence: of the intervals, in (0, 1).
        rows: of control and method.
        gain: in balanced accuracy, with its interval; None if there are too few groups for one.
        picked: how the model was picked.
        verdict: on the pick, without target labels.
        findings: faults that the trainings' figures reveal.
        gate: decision of the gate.
        model: name of the registered model.
        version: version of the pick.
        champion: version that is champion, or None.
        run: id of the retraining's MLflow run.
        experiment: id of its MLflow experiment.
        approval: a person's approval of the version, as it stood when this was written; None if
            none was asked for.
        choice: how the method was chosen; None if it was given.
    """

    target: str
    sources: tuple[str, ...]
    made_up_data: bool
    seeds: int
    confidence: float
    rows: tuple[Row, ...]
    gain: str | None
    picked: str
    verdict: Verdict
    findings: tuple[str, ...]
    gate: Decision
    model: str
    version: str
    champion: str | None
    run: str
    experiment: str
    approval: Approval | None = None
    choice: Choice | None = None

    @property
    def action(self) -> Action:
        """What became of the version: the gate's decision, or a person's after it."""
        return self.gate.action if self.approval is None else self.approval.action

    @classmethod
    def from_steps(
        cls, session: Session, evaluation: Evaluation, selection: Selection, version: str, decision: Decision
    ) -> Self:
        """Summarise the results of a session's steps."""
        settings, recorder = session.settings, session.recorder
        client, model = recorder.tracker.client, settings.registered_model
        methods = {"source-only": settings.retrain.control, "adapted": settings.train.method}
        return cls(
            target=settings.target,
            sources=settings.sources,
            made_up_data=settings.ingest.adapter == "phantom",
            seeds=settings.retrain.seeds,
            confidence=settings.evaluate.confidence,
            rows=tuple(
                Row.from_evaluated(role, name, evaluation.methods[name], settings.target)
                for role, name in methods.items()
            ),
            gain=None if evaluation.gain is None else str(evaluation.gain),
            picked=selection.description,
            verdict=selection.verdict,
            findings=tuple(
                f"{name} seed {trained.job.seed}: {finding}"
                for name, method in evaluation.methods.items()
                for trained in method.seeds
                for finding in list_findings(trained.history, trained.job.settings)
            ),
            gate=decision,
            model=model,
            version=version,
            champion=find_champion(client, model),
            run=recorder.run,
            experiment=recorder.tracker.experiment_id,
            approval=Approval.read(get_version(client, model, version).tags),
            choice=session.choice,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        return {
            **asdict(self),
            "verdict": {"kind": self.verdict.kind.value, "reasons": list(self.verdict.reasons)},
            "gate": self.gate.to_dict(),
            "choice": self.choice and self.choice.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Make a summary from the result of `to_dict`.

        Raises:
            DamagedFileError: another version wrote it, with other fields.
        """
        try:
            verdict = Verdict(Kind(values["verdict"]["kind"]), tuple(values["verdict"]["reasons"]))
            parts = {
                "sources": tuple(values["sources"]),
                "rows": tuple(Row(**row) for row in values["rows"]),
                "verdict": verdict,
                "findings": tuple(values["findings"]),
                "gate": Decision.from_dict(values["gate"]),
                "approval": Approval(**values["approval"]) if values["approval"] else None,
                "choice": values["choice"] and read_choice(values["choice"]),
            }
            return cls(**{**values, **parts})
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(f"{SUMMARY}: another version of oncoshift wrote it: {error}") from error

    @classmethod
    def read(cls, recorder: RunRecorder) -> Self:
        """Read the summary that `record` wrote to a retraining's run.

        Raises:
            DamagedFileError: it cannot be read, its bytes have changed, or another version wrote
                it.
        """
        return cls.from_dict(recorder.tracker.read_sealed(recorder.run, SUMMARY, "version", "gate", "champion"))

    def record(self, recorder: RunRecorder) -> None:
        """Save the summary in the retraining's run."""
        recorder.save_sealed(SUMMARY, self.to_dict())
        text = self.to_markdown()
        recorder.save_text("summary.md", text)
        tags = {"oncoshift.gate": self.action, "oncoshift.champion": self.champion or "none"}
        tags["mlflow.note.content"] = self.to_note()
        tags["oncoshift.findings"] = "; ".join(self.findings)[:4000] or "none"
        recorder.set_tags(tags)

    def to_note(self) -> str:
        """Render the run's description; the UI folds one that is higher than 100 pixels."""
        gate = f"Gate: **{self.action}** version {self.version}"
        parts = [gate, f"verdict: **{self.verdict.kind.value}**", f"gain: **{self._gain}**"]
        parts += [
            f"[report]({build_artifact_path(self.experiment, self.run, REPORT)})",
            f"[all retrainings]({build_view_path(self.experiment, RETRAININGS)})",
        ]
        parts += ["made-up data"] if self.made_up_data else []
        # The UI's tables have no space between columns.
        rows = [("on test tiles", *(name.replace("_", " ") for name in _METRICS))]
        rows += [(row.title, *row.cells) for row in self.rows]
        lines = ["| " + " | ".join(f"{cell}&emsp;" for cell in row) + " |" for row in rows]
        lines.insert(1, "|---" * len(rows[0]) + "|")
        return "\n".join([" · ".join(parts), "", *lines])

    def to_markdown(self) -> str:
        """Format it as Markdown."""
        lines = [f"**{escape(self._title)}**", "", "| model | " + " | ".join(_METRICS) + " |", "|---" * 5 + "|"]
        lines += [f"| {row.title} | " + " | ".join(row.cells) + " |" for row in self.rows]
        lines += ["", f"Gain in balanced accuracy, paired: {self._gain}.", ""]
        if self.choice is not None:
            lines += [f"Method: {self.choice.words}.", "", render_table(HEADER, self.choice.rows), ""]
            lines += [f"({LEGEND}.)", ""]
        lines += [f"Picked: {self.picked}. Verdict without labels: **{self.verdict.kind.value}**.", ""]
        lines += [f"- {escape(reason)}" for reason in self.verdict.reasons]
        lines += ["", f"Gate: **{self.action}** for version {self.version}; champion: {self._champion}.", ""]
        lines += [f"- Approval: {escape(self.approval.words)}"] if self.approval else []
        for reason in self.gate.reasons:
            lines += [f"- {_choose_mark(reason)} {reason.check}: {escape(reason.words)}"]
            lines += [f"  - {escape(each)}" for each in reason.listed]
        lines += [f"- {escape(flag)}" for flag in self.gate.flags]
        if self.findings:
            lines += ["", "Found in the trainings:", "", *(f"- {escape(finding)}" for finding in self.findings)]
        return "\n".join(lines) + "\n"

    def to_table(self) -> Table:
        """Build a terminal table of source-only and adapted."""
        # Text, as a table's strings are console markup.
        table = Table(title=Text(self._title, "table.title"), title_justify="left", show_lines=False)
        for column in ("model", *(name.replace("_", " ") for name in _METRICS)):
            table.add_column(column, no_wrap=True)
        for row in self.rows:
            table.add_row(row.title, *row.cells)
        return table

    def to_lines(self) -> list[str]:
        """List the lines below the table: findings, gain, pick, verdict, gate, champion."""
        return [
            *(f"! {finding}" for finding in self.findings),
            f"gain in balanced accuracy (paired): {self._gain}",
            *self._list_choice(),
            f"picked: {self.picked}",
            f"verdict without labels: {self.verdict.kind.value}",
            *(f"  {reason}" for reason in self.verdict.reasons),
            f"gate: {self.action} version {self.version}",
            *([f"  approval: {self.approval.words}"] if self.approval else []),
            *(line for reason in self.gate.reasons for line in _list_reason(reason)),
            *(f"  ! {flag}" for flag in self.gate.flags),
            f"champion of {self.model}: {self._champion}",
        ]

    def _list_choice(self) -> list[str]:
        if self.choice is None:
            return []
        facts = (zip(HEADER, row, strict=True) for row in self.choice.rows)
        lines = [", ".join(f"{name} {value}" for name, value in row if value) for row in facts]
        return [f"method: {self.choice.words}", *(f"  {line}" for line in lines), f"  ({LEGEND})"]

    @property
    def mean_of_seeds(self) -> str:
        """What the figures are the mean of, in words."""
        return "one seed" if self.seeds == 1 else f"mean of {self.seeds} seeds"

    @property
    def _title(self) -> str:
        made_up = ", made-up data" if self.made_up_data else ""
        return (
            f"{self.target} ← {', '.join(self.sources)}{made_up}: test tiles, {self.mean_of_seeds} "
            f"[{self.confidence:.0%} interval over groups and seeds]"
        )

    @property
    def _gain(self) -> str:
        return self.gain or "too few groups for an interval"

    @property
    def _champion(self) -> str:
        if not self.champion:
            return "none yet"
        live = f"version {self.champion}"
        if self.champion == self.version and self.action == "refuse":
            # Demoting it would leave no champion, or one not judged on the present data: a person
            # decides.
            return f"{live}, refused by the gate; it is live until a better one comes or `oncoshift rollback`"
        return live


def _list_reason(reason: Reason) -> list[str]:
    return [f"  {_choose_mark(reason)} {reason.check}: {reason.words}", *(f"      {each}" for each in reason.listed)]


def _choose_mark(reason: Reason) -> str:
    return {"passed": "✓", "recorded": "·", "unmeasured": "–", "failed": "✗"}[reason.mark]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a requested retraining.

    Attributes:
        summary: its result, or that of the previous retraining if nothing has changed.
        unchanged_since_ms: end of the previous one, in milliseconds since 1970; None if this one
            trained.
    """

    summary: Summary
    unchanged_since_ms: int | None = None

    @property
    def trained(self) -> bool:
        """Whether the retraining trained anything."""
        return self.unchanged_since_ms is None

    @property
    def name(self) -> str:
        """Outcome in one word: Unchanged, Promoted, Refused or Awaiting."""
        if not self.trained and self.summary.action != "await":
            return "Unchanged"
        return {"promote": "Promoted", "refuse": "Refused", "await": "Awaiting"}[self.summary.action]

    @property
    def champion(self) -> str:
        """Live version, in words."""
        version = self.summary.champion
        return f"version {version} is champion" if version else "there is no champion"

    @property
    def message(self) -> str:
        """Outcome in one sentence."""
        summary = self.summary
        if self.unchanged_since_ms is None:
            words = f"{summary.model}: the gate says {summary.gate.action} for version {summary.version}"
            words += f" ({summary.approval.words})" if summary.approval else ""
        else:
            ended = datetime.fromtimestamp(self.unchanged_since_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
            words = f"Nothing was trained: data, settings and code are those of the retraining that ended {ended}"
        return f"{words}; {self.champion}."

    def to_markdown(self) -> str:
        """Format it as Markdown."""
        text = self.summary.to_markdown()
        return text if self.trained else f"**{self.message}**\n\nIts result was:\n\n{text}"

    def to_lines(self) -> list[str]:
        """List the lines below the table: reasons, and what to do next."""
        summary = self.summary
        lines = summary.to_lines()
        if summary.champion not in (None, summary.version):
            lines.append(f"live is version {summary.champion}, not {summary.version}: `oncoshift models` says why")
        if summary.action == "await":
            lines.append(f"approve:  oncoshift approve {summary.version} --reason WHY   (or --refuse)")
        lines += ["", "look:  make ui   (MLflow on http://127.0.0.1:5000)"]
        if summary.champion:
            lines.append(f"pull:  oncoshift score --model models:/{summary.model}@champion TILE.jpg")
        return lines
