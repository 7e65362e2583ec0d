"""Transactions of the project's own Prefect server wait for one another instead of failing."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING

import pytest
from prefect.server.database.dependencies import provide_database_interface, set_database_config
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, temporary_settings
from sqlalchemy import text

from flows.server_database import WaitingSqlite, use_waiting_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A database with a table `t` of a number, which Prefect is set to use."""
    file = tmp_path / "prefect.db"
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (0)")
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{file}"}):
        use_waiting_database()
        yield file
        set_database_config(None)


async def count(beginning: asyncio.Event | None = None) -> None:
    """Read the number, let others go on, and write it increased by one."""
    async with provide_database_interface().session_context(begin_transaction=True) as session:
        found = (await session.execute(text("SELECT x FROM t"))).scalar_one()
        if beginning is not None:
            beginning.set()
        await asyncio.sleep(0.05)
        await session.execute(text("UPDATE t SET x = :x"), {"x": found + 1})


def test_transactions_that_read_and_write_at_once_all_succeed(file: Path) -> None:
    async def run() -> None:
        await asyncio.gather(*(count() for _ in range(5)))

    asyncio.run(run())
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT x FROM t").fetchall() == [(5,)]


def test_the_lock_is_taken_before_the_first_write(file: Path) -> None:
    async def run() -> None:
        beginning = asyncio.Event()
        counting = asyncio.create_task(count(beginning))
        await beginning.wait()
        with sqlite3.connect(file, timeout=0) as other, pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        await counting

    asyncio.run(run())


def test_what_is_read_beside_a_transaction_does_not_wait_for_it(file: Path) -> None:
    """As Prefect does where a work queue is paused."""

    async def run() -> int:
        interface = provide_database_interface()
        async with interface.session_context(begin_transaction=True) as session:
            await session.execute(text("UPDATE t SET x = 1"))
            async with interface.session_context() as beside:
                return int((await beside.execute(text("SELECT x FROM t"))).scalar_one())

    assert asyncio.run(asyncio.wait_for(run(), 20)) == 0, "as it was before the transaction"
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]


def test_another_kind_of_database_stays_as_it_is() -> None:
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: "postgresql+asyncpg://host/name"}):
        set_database_config(None)
        use_waiting_database()
        try:
            assert not isinstance(provide_database_interface().database_config, WaitingSqlite)
        finally:
            set_database_config(None)
