"""A lasting Prefect server for tests of what flows leave in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prefect.settings import PREFECT_HOME, temporary_settings
from support.ports import find_free_port

from flows.server import ensure_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def lasting_server(prefect_home: Callable[[], Path]) -> Iterator[None]:
    """A Prefect server with its services, as `flows.serve` starts it, for this process."""
    home = prefect_home()
    with pytest.MonkeyPatch.context() as patch, temporary_settings({PREFECT_HOME: home}):
        patch.setenv("PREFECT_HOME", str(home))
        with ensure_server(find_free_port(), ui=True):
            yield
