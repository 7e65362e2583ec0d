"""Step `explain`: Integrated Gradients of the picked model on target tiles, beside those of the control."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.console import tenths

if TYPE_CHECKING:
    from oncoshift.explain.explanation import Explanation
    from oncoshift.retraining.session import Session
    from oncoshift.training.job import Job, TrainedJob


def explain_step(session: Session, job: Job, trained: TrainedJob) -> Explanation:
    """Explain one model and log the gallery, the table and the share of attribution on nuclei."""
    tracker = session.tracker
    with session.child("explain") as run:
        explanation = session.jobs.explain(job, trained, tenths("explain: tiles", session.plan.say))
        tracker.set_tags(run, {"oncoshift.job": job.id})
        tracker.log_figure(run, explanation.figure, "integrated_gradients.png")
        tracker.log_figure(session.parent, explanation.figure, "plots/integrated_gradients.png")
        tracker.log_table(run, explanation.table, "integrated_gradients.json")
        ended = trained.ended_ms
        values = {name: float(value) for name, value in explanation.as_dict().items() if value is not None}
        tracker.log_metrics(run, [(0, ended, values)])
        tracker.log_metrics(session.parent, [(0, ended, {f"explain/{name}": value for name, value in values.items()})])
    return explanation
