"""A registry client whose process ends before one of its writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

WRITES = ("set_", "delete_")


class PlugPulledError(Exception):
    """A simulated end of the process."""


class Unplugged:
    """A client that dies instead of performing write number `last`, counted from 0."""

    def __init__(self, client: MlflowClient, last: int) -> None:
        self._client, self._left = client, last

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if not name.startswith(WRITES):
            return method

        def write(*arguments: Any, **options: Any) -> Any:
            if self._left == 0:
                raise PlugPulledError
            self._left -= 1
            return method(*arguments, **options)

        return write
