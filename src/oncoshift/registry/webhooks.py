"""MLflow's webhooks: an MLflow server tells other programs when a champion changes.

The server sends them, so a change that is made in its database past the server sends none. Each
names model, alias and version, signed with the webhook's secret if it has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException

from oncoshift.errors import RegistryError
from oncoshift.registry.client import shorten_error
from oncoshift.registry.pages import read_pages
from oncoshift.secrets import remove_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.webhook import Webhook, WebhookEventStr

EVENTS: tuple[WebhookEventStr, ...] = ("model_version_alias.created", "model_version_alias.deleted")


def add_webhook(client: MlflowClient, url: str, secret: str | None) -> Webhook:
    """Have the server report each change of an alias to an address, which it adds once.

    Args:
        client: client of the server.
        url: address that receives the reports.
        secret: secret that signs them; None: they are not signed.

    Raises:
        RegistryError: the store is no server, or the server refuses the address.
    """
    check_is_server(client)
    found = [webhook for webhook in list_webhooks(client) if webhook.url == url]
    try:
        if found and secret is not None:
            return client.update_webhook(found[0].webhook_id, secret=secret, status="ACTIVE")
        for webhook in found:  # MLflow cannot take a secret away
            client.delete_webhook(webhook.webhook_id)
        name = f"oncoshift-{len(list_webhooks(client)) + 1}"
        note = "Changes of champion, challenger and previous; filter by alias."
        return client.create_webhook(name, url, list(EVENTS), description=note, secret=secret)
    except MlflowException as error:
        raise RegistryError(
            f"{remove_credentials(url)}: {shorten_error(error)}. The server decides: for http or a private address "
            "start it with MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https and MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true"
        ) from error


def list_webhooks(client: MlflowClient) -> list[Webhook]:
    """List all webhooks of the server."""
    return list(read_pages(lambda token: client.list_webhooks(page_token=token)))


def remove_webhook(client: MlflowClient, url: str) -> None:
    """Remove the webhooks that report to an address.

    Raises:
        RegistryError: there is none.
    """
    found = [webhook for webhook in list_webhooks(client) if webhook.url == url]
    if not found:
        raise RegistryError(f"{remove_credentials(url)}: no webhook reports to it; `oncoshift webhook list` lists them")
    for webhook in found:
        client.delete_webhook(webhook.webhook_id)


def check_is_server(client: MlflowClient) -> None:
    """Check that a store is an MLflow server, which alone sends webhooks.

    Raises:
        RegistryError: it is a database.
    """
    if urlsplit(client.tracking_uri).scheme not in ("http", "https"):
        raise RegistryError(
            f"{remove_credentials(client.tracking_uri)}: only an MLflow server sends webhooks; start one on this "
            "database and name it by MLFLOW_TRACKING_URI=http://…"
        )
