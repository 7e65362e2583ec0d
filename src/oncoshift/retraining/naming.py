"""Names and parameters by which people tell runs apart in MLflow.

A run has a dozen parameters, which fit beside its metrics in the UI's table; all settings are its
artifact settings.yaml.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_GIT_DIRTY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncoshift.settings import Settings

SETTINGS = "settings.yaml"
"""Artifact with all settings of a retraining or a training; it can be used as a preset."""

_COMMIT_DIGITS, _DATA_DIGITS = 10, 16


def name_retraining(settings: Settings) -> str:
    """Name a retraining, for example `kidney ← lung+colon · dann · 3 seeds`.

    Where a method is yet to be chosen, all that can be are named: `cdan/mcc`. After the choice the
    run is named by the chosen one.
    """
    method = "/".join(settings.retrain.methods) or settings.train.method
    seeds = f"{settings.retrain.seeds} seed{'s' if settings.retrain.seeds > 1 else ''}"
    return f"{settings.target} ← {'+'.join(settings.sources)} · {method} · {seeds}"


def name_training(settings: Settings) -> str:
    """Name a training, for example `dann · seed 0`; charts show it beside each curve."""
    return f"{settings.train.method} · seed {settings.seed}"


def list_retraining_parameters(settings: Settings, data: str, tags: Mapping[str, str]) -> dict[str, str]:
    """List the parameters of a retraining's run.

    Args:
        settings: settings of the experiment.
        data: content hash of the training data.
        tags: tags of the run, which name its commit.
    """
    first, candidates = settings.seed, settings.retrain.methods
    common = _list_common(settings, data, tags)
    if candidates:  # a parameter cannot change, and method and variant are yet to be chosen
        common["candidates"] = ", ".join(candidates)
        common["candidate_variants"] = ", ".join(settings.candidate_variants)
        common = {name: value for name, value in common.items() if name not in list_chosen_parameters(settings, data)}
    return {
        **common,
        "control": settings.retrain.control,
        "seeds": ", ".join(str(seed) for seed in range(first, first + settings.retrain.seeds)),
        "trials": str(settings.tune.trials),
    }


def list_chosen_parameters(settings: Settings, data: str) -> dict[str, str]:
    """List the parameters that a retraining's run gets once method and variant are chosen.

    Args:
        settings: settings of the experiment, with the chosen method and variant.
        data: content hash of the training data, of that variant.
    """
    return {"method": settings.train.method, "variant": settings.train.variant, "data": data[:_DATA_DIGITS]}


def list_training_parameters(settings: Settings, data: str, tags: Mapping[str, str]) -> dict[str, str]:
    """List the parameters of a training's run; see `list_retraining_parameters`."""
    return {**_list_common(settings, data, tags), "seed": str(settings.seed)}


def describe_commit(tags: Mapping[str, str]) -> str:
    """Describe the commit that a run's tags name; outside a git checkout it is unknown."""
    commit = tags.get(MLFLOW_GIT_COMMIT, "")[:_COMMIT_DIGITS] or "unknown"
    return f"{commit} with local changes" if tags.get(MLFLOW_GIT_DIRTY) == "true" else commit


def _list_common(settings: Settings, data: str, tags: Mapping[str, str]) -> dict[str, str]:
    return {
        "target": settings.target,
        "sources": ", ".join(settings.sources),
        **list_chosen_parameters(settings, data),
        "trunk": settings.model.backbone,
        "weights": PurePath(settings.model.weights).name,
        "tile_size": str(settings.normalize.tile_size),
        "epochs": str(settings.train.epochs),
        "commit": describe_commit(tags),
    }
