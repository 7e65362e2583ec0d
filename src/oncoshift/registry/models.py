"""The registered models of oncoshift, one for each target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.registry.pages import read_pages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

OURS = "name LIKE 'oncoshift-%'"
"""Filter for oncoshift's own; a registry may hold models of others."""


def list_models(client: MlflowClient, chosen: str | None = OURS) -> Iterator[RegisteredModel]:
    """List registered models.

    Args:
        client: of the registry.
        chosen: filter of MLflow's search; None for all.
    """
    return read_pages(lambda token: client.search_registered_models(chosen, page_token=token))
