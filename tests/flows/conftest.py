"""A lasting Prefect server for tests of what flows leave in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prefect.settings import PREFECT_HOME, temporary_settings
from support.ports import find_free_port

from flows.server import ensure_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def lasting_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Prefect server with its services, as `flows.serve` starts it, for this process."""
    home = tmp_path_factory.mktemp("prefect")
    with pytest.MonkeyPatch.context() as patch, temporary_settings({PREFECT_HOME: home}):
        patch.setenv("PREFECT_HOME", str(home))
        with ensure_server(find_free_port(), ui=True):
            yield
