"""New data: versions the data set with DVC, and has Prefect start retrainings if it has changed.

    python -m flows.data [--preset NAME] [--set KEY=VALUE]

For whatever delivers tiles to call afterwards, as often as it likes. The event `oncoshift.data` is
emitted once for each version, whoever made it: Prefect keeps the version that was reported last.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import TYPE_CHECKING

from prefect.events import Event, get_events_client
from prefect.settings import get_current_settings
from prefect.variables import Variable

from flows import PROJECT
from flows.server import HOW_TO_START, check_server_answers
from oncoshift import cli
from oncoshift.errors import DataError, SettingsError
from oncoshift.program import run_program
from oncoshift.settings import load_settings
from oncoshift.versioning import version_raw

if TYPE_CHECKING:
    import argparse

EVENT = "oncoshift.data"
"""Event of a changed data set; its resource is `oncoshift.data.<name of the data set>`."""


def report_data(given: argparse.Namespace) -> str:
    """Version the data set, emit the event if its version is a new one, and say which.

    Raises:
        DataError: there is no data set, or DVC does not version it, as it is outside the project.
        DvcError: DVC cannot version it.
        SettingsError: no server is named, or by an address that is not that of its API.
        UnavailableError: the server does not answer.
    """
    url = get_current_settings().api.url
    if url is None:
        raise SettingsError(f"PREFECT_API_URL is not set; it names the server to report to: {HOW_TO_START}")
    check_server_answers(url, lasting=True)
    settings = load_settings(PROJECT / "params.yaml", preset=given.preset, overrides=tuple(given.overrides))
    raw = PROJECT / settings.ingest.root
    if not raw.exists():
        raise DataError(f"{raw}: there is no data set; see ingest.root")
    version = version_raw(PROJECT, raw)
    if version is None:
        raise DataError(
            f"{raw}: outside the project, so DVC does not version it; report a change by "
            f"`prefect event emit {EVENT} --resource-id {EVENT}.{raw.name}`"
        )
    kept = f"{re.sub('[^a-z0-9]', '_', EVENT)}_{re.sub('[^a-z0-9]', '_', raw.name.lower())}"
    before = Variable.get(kept)
    if version == before:
        return f"{raw}: version {version}, as reported before"
    event = Event(
        event=EVENT,
        resource={"prefect.resource.id": f"{EVENT}.{raw.name}", "prefect.resource.name": raw.name},
        payload={"version": version, "before": before},
    )
    asyncio.run(_emit(event))
    Variable.set(kept, version, overwrite=True)
    return f"{raw}: version {version}, reported as {EVENT}"


async def _emit(event: Event) -> None:
    """Emit an event, and return when the server has it."""
    async with get_events_client() as client:
        await client.emit(event)


def main(argv: list[str] | None = None) -> int:
    """Report the data set with the options of `oncoshift ingest`; return the exit code."""
    given = cli.build_parser().parse_args(["ingest", *(sys.argv[1:] if argv is None else argv)])
    return run_program(lambda: print(report_data(given)))


if __name__ == "__main__":
    sys.exit(main())
