"""The deployments of prefect.yaml for workers: hands each to its work pool at PREFECT_API_URL.

    python -m flows.deploy [--file prefect.yaml] [--pool NAME] [--set KEY=VALUE]

`--pool` hands all to one pool, whatever the file names; `--set` gives a setting to all runs.

A work pool is made once, by `prefect work-pool create process --type process`, and served by any
number of workers: `prefect worker start --pool process`. A worker finds flows and settings in the
folder in which this was called, which it must see under the same path.

Prefect's own `prefect deploy` and `Flow.deploy` ask for the pool's workers with `limit: null`,
which the server refuses with status 422 under the pinned fastapi: the one after it has made a
deployment, the other before. Here nobody asks.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from flows import PROJECT
from flows.automations import bring_up_to_date, build_notifications, build_trigger_automations
from flows.deployments import read_deployments
from flows.server import HOW_TO_START, check_server_answers
from oncoshift.errors import SettingsError
from oncoshift.program import run_program

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import DeploymentScheduleCreate

    from flows.deployments import ServedDeployment


def deploy(given: argparse.Namespace) -> None:
    """Hand the deployments to their work pools; what is wrong in the list is said before.

    Raises:
        SettingsError: see `read_deployments`; no server is named, or by an address that is not that
            of its API; a deployment has no work pool, or the server lacks one of the pools.
        UnavailableError: the server does not answer.
    """
    deployments = read_deployments(given.file, given.overrides)
    if given.pool is not None:
        deployments = [replace(each, work_pool={"name": given.pool}) for each in deployments]
    if without := [each.name for each in deployments if not each.work_pool]:
        raise SettingsError(f"{given.file}: {', '.join(without)} has no work_pool; name the one whose workers run it")
    url = get_current_settings().api.url
    if url is None:
        raise SettingsError(
            "PREFECT_API_URL is not set; it names the server whose workers run the deployments: "
            f"{HOW_TO_START}, and set it to the server's address with /api, as http://127.0.0.1:4200/api"
        )
    check_server_answers(url, lasting=True)
    _check_pools(given.file, deployments)
    automations = []
    for each in deployments:
        automations += build_trigger_automations(_apply(each), each.triggers)
        print(f"{each.name}: work pool {each.work_pool['name']}")
    bring_up_to_date([*automations, *build_notifications(each.flow.name for each in deployments)])


def _check_pools(file: Path, deployments: Sequence[ServedDeployment]) -> None:
    """Check that the server has the work pools of all deployments, before any is handed over.

    Raises:
        SettingsError: it lacks some; the error names the command that makes each.
    """
    users: dict[str, list[str]] = {}
    for each in deployments:
        users.setdefault(each.work_pool["name"], []).append(each.name)
    with get_client(sync_client=True) as client:
        missing = [pool for pool in users if not _has_pool(client, pool)]
    if missing:
        for_whom = "; ".join(f"{pool} (for {', '.join(users[pool])})" for pool in missing)
        commands = "; ".join(f"`prefect work-pool create {shlex.quote(pool)} --type TYPE`" for pool in missing)
        raise SettingsError(
            f"{file}: the server has no work pool {for_whom}; nothing was deployed. Make what is missing by "
            f"{commands}, where TYPE is process, docker or kubernetes"
        )


def _has_pool(client: SyncPrefectClient, name: str) -> bool:
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        return False
    return True


def _apply(deployment: ServedDeployment) -> UUID:
    """Make a deployment, or bring it up to date, as `prefect deploy` does; return its id."""
    pool, flow = deployment.work_pool, deployment.flow
    with get_client(sync_client=True) as client:
        return client.create_deployment(
            client.create_flow_from_name(flow.name),
            **{**deployment.options, "schedules": _keep_switches(client, deployment)},
            work_pool_name=pool["name"],
            work_queue_name=pool.get("work_queue_name"),
            job_variables=pool.get("job_variables"),
            entrypoint=deployment.entrypoint,
            pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(Path.cwd())}}],
            parameter_openapi_schema=flow.parameters.model_dump_for_openapi(),
            enforce_parameter_schema=True,
        )


def _keep_switches(client: SyncPrefectClient, deployment: ServedDeployment) -> list[DeploymentScheduleCreate]:
    """List the schedules, each on or off as a person has left it; the server would forget that."""
    schedules: list[DeploymentScheduleCreate] = deployment.options["schedules"]
    try:
        known = client.read_deployment_by_name(deployment.name).schedules
    except ObjectNotFound:
        return schedules
    switched = {each.slug: each.active for each in known if each.slug}
    return [each.model_copy(update={"active": switched.get(each.slug or "", each.active)}) for each in schedules]


def main(argv: Sequence[str] | None = None) -> int:
    """Hand deployments to work pools; `oncoshift.errors` lists the exit codes."""
    parser = argparse.ArgumentParser(prog="python -m flows.deploy", description="Hand deployments to work pools.")
    parser.add_argument("--file", type=Path, default=PROJECT / "prefect.yaml", help="list of deployments")
    parser.add_argument("--pool", help="work pool for all of them, with its own variables; default: as the file says")
    parser.add_argument(
        "--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[], help="a setting for all runs"
    )
    given = parser.parse_args(argv)
    return run_program(lambda: deploy(given))


if __name__ == "__main__":
    sys.exit(main())
