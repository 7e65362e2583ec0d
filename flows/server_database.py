"""The SQLite database of the project's own Prefect server: writers wait for one another.

Only the server's process imports this module. Prefect's transactions read before they write; where
another writer comes in between, SQLite refuses the write at once, whatever the time-out. Prefect
answers 503, and its client asks again after two seconds, which a training's turn on the GPU took
nearly every time. Here transactions take SQLite's write lock as they begin, and wait for it.
Tests: tests/flows/test_server_database.py.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration
from prefect.server.database.dependencies import set_database_config
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction


class WaitingSqlite(AioSqliteConfiguration):
    """Prefect's SQLite database, with transactions that take the write lock as they begin."""

    @asynccontextmanager
    async def begin_transaction(
        self,
        session: AsyncSession,
        with_for_update: bool = True,  # noqa: ARG002 - it always is
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        """Begin a transaction that holds the write lock until its end."""
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            await session.connection()  # begins, and waits for the lock
            # What is read beside it, in sessions of its own, must not wait for that lock.
            token = SQLITE_BEGIN_MODE.set("DEFERRED")
            try:
                yield transaction
            finally:
                SQLITE_BEGIN_MODE.reset(token)


def use_waiting_database() -> None:
    """Make Prefect use `WaitingSqlite`, where its database is one of SQLite."""
    url = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if url.startswith("sqlite"):
        set_database_config(WaitingSqlite(connection_url=url))
