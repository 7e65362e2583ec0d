"""The lock under which aliases change: one process at a time, on all machines of a store."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, cast

from mlflow.exceptions import MlflowException

from oncoshift.errors import RegistryError
from oncoshift.registry.client import shorten_error
from oncoshift.registry.embedded import find_database
from oncoshift.registry.lease import hold_lease, is_lock_in_use
from oncoshift.registry.store import hold_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient

    from oncoshift.registry.lease import Lease

_WRITES = ("create_", "delete_", "set_")


@contextmanager
def changing_aliases(client: MlflowClient) -> Iterator[MlflowClient]:
    """Exclude other changes of aliases during the block, and shorten MLflow's errors to a line.

    Yields:
        A client whose writes fail once the lock is lost.

    Raises:
        RegistryError: MLflow refuses a name, a version or a reason.
    """
    try:
        with ExitStack() as stack:
            stack.enter_context(hold_store(client.tracking_uri))
            # The file lock suffices for an embedded store until a server on it is used, too.
            if find_database(client.tracking_uri) is not None and not is_lock_in_use(client):
                yield client
            else:
                lease = stack.enter_context(hold_lease(client))
                yield cast("MlflowClient", _FencedClient(client, lease))
    except MlflowException as error:
        raise RegistryError(shorten_error(error)) from error


class _FencedClient:
    """A client that confirms a lease before each write."""

    def __init__(self, client: MlflowClient, lease: Lease) -> None:
        self._client, self._lease = client, lease

    def __getattr__(self, name: str) -> Any:
        if name.startswith(_WRITES):
            self._lease.confirm()
        return getattr(self._client, name)
