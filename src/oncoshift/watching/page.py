"""The page of a model over time: all batches that it was watched on, in one self-contained file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment

from oncoshift.registry.tracking import quote_text
from oncoshift.watching.plots import draw_history

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncoshift.registry.tracking import Tracker

MODEL, ALARMS = "oncoshift.model", "oncoshift.alarms"
"""Tags of a batch's run: the registered model, and what has passed its limit."""

MOST_BATCHES = 60
"""Batches on a page; older ones are in MLflow."""

_TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class Row:
    """A batch on the page.

    Attributes:
        batch: its name.
        at: when it was first looked at, ISO 8601 in UTC.
        version: of the model.
        run: id of its run.
        alarms: what has passed its limit, or none.
        metrics: of its run.
    """

    batch: str
    at: str
    version: str
    run: str
    alarms: str
    metrics: Mapping[str, float]

    def get(self, name: str) -> float:
        """Return a figure; NaN if there is none."""
        return self.metrics.get(f"watch/{name}", float("nan"))


def list_rows(tracker: Tracker, model: str) -> list[Row]:
    """List the last batches of a model, oldest first."""
    runs = tracker.client.search_runs(
        [tracker.experiment_id],
        f"tags.`{MODEL}` = {quote_text(model)} and tags.`{ALARMS}` != ''",
        max_results=MOST_BATCHES,
        order_by=["attributes.start_time DESC"],
    )
    return [
        Row(
            batch=Path(run.data.params["batch"]).name,
            at=datetime.fromtimestamp(run.info.start_time / 1000, UTC).isoformat(sep=" ", timespec="minutes"),
            version=run.data.tags.get("oncoshift.version", ""),
            run=run.info.run_id,
            alarms=run.data.tags[ALARMS],
            metrics=run.data.metrics,
        )
        for run in reversed(runs)
    ]


def render_page(model: str, rows: Sequence[Row]) -> str:
    """Render the page as HTML without outside parts."""
    picture = io.BytesIO()
    draw_history(rows).savefig(picture, format="png", dpi=110)
    template = Environment(autoescape=True, trim_blocks=True).from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        model=model, rows=list(reversed(rows)), picture=base64.b64encode(picture.getvalue()).decode("ascii")
    )
