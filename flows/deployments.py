"""Deployments as prefect.yaml lists them: flows with parameters, schedules and triggers.

The file means what it means to `prefect deploy`, whose functions read its schedules and triggers,
but a copy of a deployment has triggers of its own: their names begin with the deployment's, and on
drift without a `match` it is that of the model that the deployment's parameters choose. Work pools
are for workers (`flows.deploy`); builds and pulls are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from prefect.cli.deploy._schedules import _schedule_config_to_deployment_schedule
from prefect.cli.deploy._triggers import _initialize_deployment_triggers
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.exceptions import MissingFlowError
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.schema_tools.validation import validate
from pydantic import ValidationError

from flows.parameters import load_chosen_settings
from flows.watch import EVENT as DRIFT
from flows.watch import build_resource
from oncoshift.errors import OncoshiftError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from prefect.events import DeploymentTriggerTypes

_SERVED = ("description", "tags", "version", "concurrency_limit", "paused", "parameters")


@dataclass(frozen=True)
class ServedDeployment:
    """A deployment to serve.

    Attributes:
        flow: Its flow.
        options: For `Runner.add_flow`, among them name, parameters and schedules.
        triggers: The events that start it.
        entrypoint: Where workers find the flow.
        work_pool: The pool whose workers run it, with its variables; empty if none is named.
    """

    flow: Flow[..., Any]
    options: dict[str, Any]
    triggers: list[DeploymentTriggerTypes]
    entrypoint: str
    work_pool: dict[str, Any]

    @property
    def name(self) -> str:
        """Flow and name, as Prefect writes them."""
        return f"{self.flow.name}/{self.options['name']}"


def read_deployments(path: Path, overrides: Sequence[str] = ()) -> list[ServedDeployment]:
    """Read the deployments of a prefect.yaml, and check what their runs would be given.

    Args:
        path: the file.
        overrides: settings for all flows that have a parameter `overrides`, after the file's own.

    Raises:
        SettingsError: one line with the file, the deployment, and what is wrong in it.
    """
    try:
        listed = yaml.safe_load(path.read_text(encoding="utf-8"))["deployments"]
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file; it lists what runs when") from None
    except (KeyError, TypeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: expected a mapping with the list `deployments`: {_to_line(error)}") from None
    return [_read_deployment(each, overrides, f"{path}, deployment {each.get('name')}") for each in listed]


def _read_deployment(given: dict[str, Any], overrides: Sequence[str], where: str) -> ServedDeployment:
    try:
        flow: Flow[..., Any] = load_flow_from_entrypoint(given["entrypoint"], use_placeholder_flow=False)
        if overrides and "overrides" in flow.parameters.properties:
            given = _add_overrides(given, overrides)
        schedules = [
            DeploymentScheduleCreate.model_validate(_schedule_config_to_deployment_schedule(each))
            for each in given.get("schedules") or ()
        ]
        triggers = _initialize_deployment_triggers(given["name"], _list_own_triggers(given))
        options = {key: given[key] for key in _SERVED if key in given}
        options |= {"name": given["name"], "schedules": schedules}
        served = ServedDeployment(flow, options, triggers, given["entrypoint"], given.get("work_pool") or {})
        for parameters in _list_parameters(served):
            _check_parameters(flow, parameters)
    except (KeyError, ImportError, MissingFlowError, OncoshiftError, TypeError, ValueError) as error:
        raise SettingsError(f"{where}: {_to_line(error)}") from None
    return served


def _list_own_triggers(given: dict[str, Any]) -> list[dict[str, Any]]:
    """List the triggers of a deployment, under names of its own, for drift of its own model."""
    own = []
    for trigger in given.get("triggers") or ():
        named = {**trigger, "name": f"{given['name']} {trigger['name']}"} if "name" in trigger else {**trigger}
        if trigger.get("expect") == [DRIFT] and "match" not in trigger:
            model = load_chosen_settings(given.get("parameters") or {}, trusted=False).registered_model
            named["match"] = {"prefect.resource.id": build_resource(model)}
        own.append(named)
    return own


def _add_overrides(given: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Add overrides to a deployment's parameters, and to schedules and triggers with their own."""

    def add(holder: dict[str, Any]) -> dict[str, Any]:
        parameters = holder.get("parameters") or {}
        return {**holder, "parameters": {**parameters, "overrides": [*(parameters.get("overrides") or ()), *overrides]}}

    def add_to_all(name: str) -> list[dict[str, Any]]:
        return [add(each) if "overrides" in (each.get("parameters") or {}) else each for each in given.get(name) or ()]

    return {**add(given), "schedules": add_to_all("schedules"), "triggers": add_to_all("triggers")}


def _list_parameters(served: ServedDeployment) -> Iterator[dict[str, Any]]:
    """List the parameters of the runs that schedules start, or of one started by hand."""
    given = served.options.get("parameters") or {}
    schedules: list[DeploymentScheduleCreate] = served.options["schedules"]
    yield from ({**given, **schedule.parameters} for schedule in schedules)
    if not schedules:
        yield given


def _check_parameters(flow: Flow[..., Any], parameters: dict[str, Any]) -> None:
    """Check parameters as the server will, and the settings that they choose.

    Raises:
        SettingsError: the flow has no such parameter, or a value is not allowed.
    """
    schema = flow.parameters.model_dump_for_openapi()
    if unknown := parameters.keys() - schema["properties"].keys():
        known = ", ".join(schema["properties"])
        raise SettingsError(f"parameter {', '.join(sorted(unknown))}: unknown; {flow.name} has {known}")
    if errors := validate(parameters, schema, allow_none_with_default=True):
        raise SettingsError(f"parameter {errors[0].json_path.removeprefix('$.')}: {errors[0].message}")
    load_chosen_settings(parameters, trusted=False)


def _to_line(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        return f"{field}: {first['msg'].removeprefix('Value error, ')}"
    return " ".join(str(error).split())
