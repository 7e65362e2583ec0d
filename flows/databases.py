"""The databases of MLflow's and Prefect's servers on one machine: SQLite files, or one PostgreSQL.

Both keep the state of their migrations in a table of the same name, so in PostgreSQL each gets a
schema of its own.
"""

from __future__ import annotations

import os

import sqlalchemy
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from oncoshift.errors import SettingsError, UnavailableError
from oncoshift.secrets import remove_credentials

DATABASE_URL = "ONCOSHIFT_DATABASE_URL"
"""Environment variable with `postgresql://user:password@host/database`."""

_SCHEMAS = ("mlflow", "prefect")


def build_database_environments(store: str) -> tuple[dict[str, str], dict[str, str]]:
    """Build the variables that name the databases of MLflow and of Prefect.

    They are variables and not options, which anybody on the machine could read.

    Args:
        store: URI of MLflow's embedded store, for where `DATABASE_URL` is not set.

    Raises:
        SettingsError: `DATABASE_URL` is not the URL of a PostgreSQL database.
        UnavailableError: the database does not answer, or the schemas cannot be made.
    """
    given = os.environ.get(DATABASE_URL)
    if not given:
        return {"MLFLOW_BACKEND_STORE_URI": store}, {}
    url = _parse(given)
    _create_schemas(url)
    mlflow = url.update_query_dict({"options": "-csearch_path=mlflow"})
    prefect = url.set(drivername="postgresql+asyncpg")
    return (
        {"MLFLOW_BACKEND_STORE_URI": mlflow.render_as_string(hide_password=False)},
        {
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": prefect.render_as_string(hide_password=False),
            # Its extension pg_trgm may be in public already.
            "PREFECT_SERVER_DATABASE_SQLALCHEMY_CONNECT_ARGS_SEARCH_PATH": "prefect,public",
        },
    )


def _parse(given: str) -> URL:
    try:
        url = make_url(given)
    except ArgumentError:
        raise SettingsError(f"{DATABASE_URL}: is not a valid URL") from None
    if url.get_backend_name() != "postgresql":
        raise SettingsError(f"{DATABASE_URL}: expected postgresql://user:password@host/database")
    return url.set(drivername="postgresql+psycopg2")


def _create_schemas(url: URL) -> None:
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.begin() as connection:
            for schema in _SCHEMAS:
                connection.execute(sqlalchemy.schema.CreateSchema(schema, if_not_exists=True))
    except ModuleNotFoundError as error:
        raise SettingsError(f"{DATABASE_URL}: needs {error.name}; pip install psycopg2-binary") from None
    except SQLAlchemyError as error:
        shown = remove_credentials(str(url))
        raise UnavailableError(f"{DATABASE_URL} ({shown}): {str(error).splitlines()[0]}") from None
    finally:
        engine.dispose()
