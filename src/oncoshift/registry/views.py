"""Saved views of MLflow's runs table: which runs, columns, order and charts.

MLflow keeps a view as a tag of the experiment: JSON with a name and the page's state, which the UI
lists under "Views" and opens by the key `viewStateShareKey` of its address. The state is that of
`ExperimentPageUIState` and `ExperimentPageSearchFacetsState` in MLflow's sources (3.17).
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE as NOTE

if TYPE_CHECKING:
    from mlflow import MlflowClient

_TAG = "mlflow.sharedViewState."
_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Makes the UI show an experiment's runs as those of model training, not of a language model."""

_NAME = "attributes.`Run Name`"
_ACCURACY = "target/balanced_accuracy"
_GAIN = ("gain/balanced_accuracy", "gain/balanced_accuracy_low", "gain/balanced_accuracy_high")
_MODE = "workflowType=machine_learning"
"""Parameter of an address that opens the UI for model training, not for language models."""

_CURVES = ("train/source_accuracy", "train/information_maximisation", "train/label_loss", "train/domain_accuracy")


@dataclass(frozen=True)
class View:
    """A saved view.

    Attributes:
        key: identifies it in the address.
        name: its name in the UI's list.
        step: value of the tag `oncoshift.step` of the runs that it shows.
        columns: columns of the table, as MLflow names them.
        order_by: column to sort by, descending.
        bars: metrics to draw as bars, one per run.
        curves: metrics to draw by epoch, one line per run.
    """

    key: str
    name: str
    step: str
    columns: tuple[str, ...]
    order_by: str
    bars: tuple[str, ...]
    curves: tuple[str, ...] = ()


def _list_columns(kind: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{kind}.`{name}`" for name in names)


RETRAININGS = View(
    "retrainings",
    "Retrainings",
    "retrain",
    (
        *_list_columns("metrics", _ACCURACY, *_GAIN, "control/balanced_accuracy"),
        *_list_columns("tags", "oncoshift.verdict", "oncoshift.gate", "oncoshift.version"),
        *_list_columns("params", "target", "sources", "method", "variant", "trunk", "seeds"),
        *_list_columns("attributes", "Models"),
    ),
    "attributes.start_time",
    (_ACCURACY, "gain/balanced_accuracy", "control/balanced_accuracy", "target/auroc"),
)

TRAININGS = View(
    "trainings",
    "Trainings",
    "train",
    (
        *_list_columns("metrics", _ACCURACY, f"{_ACCURACY}_low", f"{_ACCURACY}_high", "target/auroc", *_CURVES[:2]),
        *_list_columns("params", "target", "sources", "method", "seed", "variant", "trunk"),
    ),
    f"metrics.`{_ACCURACY}`",
    (_ACCURACY, "target/auroc"),
    _CURVES,
)

_EVIDENCE = ("candidate/score", "candidate/nuclei", "candidate/agreement", "candidate/stain")

CANDIDATES = View(
    "candidates",
    "Candidates",
    "candidate",
    (
        *_list_columns("metrics", *_EVIDENCE),
        *_list_columns("tags", "oncoshift.verdict", "oncoshift.chosen"),
        *_list_columns("params", "target", "sources", "method", "variant"),
    ),
    "attributes.start_time",
    _EVIDENCE,
)


def save_views(client: MlflowClient, experiment: str) -> None:
    """Save the views in an experiment, and links to them in its description unless it has one."""
    tags = client.get_experiment(experiment).tags
    wanted = _KIND | {f"{_TAG}{view.key}": _format_envelope(view) for view in (TRAININGS, RETRAININGS, CANDIDATES)}
    wanted[NOTE] = tags.get(NOTE) or _render_note(experiment)
    for key, value in wanted.items():
        if tags.get(key) != value:
            client.set_experiment_tag(experiment, key, value)


def build_view_path(experiment: str, view: View, *, charts: bool = False) -> str:
    """Build the path of a view in the UI, from the `#` of the address on."""
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"#/experiments/{experiment}/runs?viewStateShareKey={view.key}&{_MODE}{mode}"


def build_run_path(experiment: str, run_id: str) -> str:
    """Build the path of a run in the UI, from the `#` of the address on."""
    return f"#/experiments/{experiment}/runs/{run_id}?{_MODE}"


def build_artifact_path(experiment: str, run_id: str, artifact: str) -> str:
    """Build the path of a run's artifact in the UI, from the `#` of the address on."""
    return f"#/experiments/{experiment}/runs/{run_id}/artifacts/{artifact}?{_MODE}"


def _render_note(experiment: str) -> str:
    links = (
        f"[retrainings]({build_view_path(experiment, RETRAININGS)}), with the gain of each over its control",
        f"[trainings]({build_view_path(experiment, TRAININGS)}), best first",
        f"[candidates]({build_view_path(experiment, CANDIDATES)}) of a choice of method and stain variant",
        f"[epoch by epoch]({build_view_path(experiment, TRAININGS, charts=True)})",
    )
    return " · ".join(links)  # the UI shows the first line alone


def _format_envelope(view: View) -> str:
    """Format a view as MLflow stores it; the state is compressed to fit into a tag."""
    state = base64.b64encode(zlib.compress(json.dumps(_build_state(view)).encode(), 9)).decode()
    return json.dumps({"name": view.name, "createdAt": 0, "state": f"deflate;{state}"}, ensure_ascii=False)


def _build_state(view: View) -> dict[str, Any]:
    cards = [_build_card(view, "BAR", metric) for metric in view.bars]
    cards += [_build_card(view, "LINE", metric) for metric in view.curves]
    sections = (("results", "Results"), *((("epochs", "Epochs"),) if view.curves else ()))
    return {
        "searchFilter": f"tags.`oncoshift.step` = '{view.step}'",
        "orderByKey": view.order_by,
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": view.columns,
        "columnOrder": [_NAME, *view.columns],
        # As wide as the name, so that two metrics with the same beginning can be told apart.
        "columnWidths": {_NAME: 280} | {column: 36 + 6 * len(column.split("`")[1]) for column in view.columns},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsHiddenMode": "FIRST_20_RUNS",
        "compareRunCharts": cards,
        "compareRunSections": [
            {"uuid": key, "name": name, "display": True, "isReordered": True, "deleted": False, "isGenerated": False}
            for key, name in sections
        ],
        "isAccordionReordered": True,
        "viewMaximized": False,
        "runListHidden": False,
        "groupBy": None,
        "groupsExpanded": {},
        "hideEmptyCharts": True,
        "useGroupedValuesInCharts": True,
    }


def _build_card(view: View, kind: str, metric: str) -> dict[str, Any]:
    card = {
        "uuid": f"{view.key}-{metric}",
        "type": kind,
        "runsCountToCompare": 20,
        "metricSectionId": "results" if kind == "BAR" else "epochs",
        "deleted": False,
        "isGenerated": False,
        "metricKey": metric,
    }
    if kind == "BAR":
        return card
    return card | {
        "selectedMetricKeys": [metric],
        "lineSmoothness": 0,
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "range": {},
    }
