"""Automations in Prefect: events that start deployments, and notifications.

An automation that is defined as before is left alone, since the server counts in it the time for
which its trigger does not fire again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect import get_client
from prefect.blocks.notifications import SlackWebhook
from prefect.client.schemas.sorting import AutomationSort
from prefect.events import EventTrigger
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, Posture
from pydantic import SecretStr

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from prefect.events import DeploymentTriggerTypes

NOTIFY_URL = "ONCOSHIFT_NOTIFY_URL"
"""Environment variable with the Apprise URL to notify, such as `mailto://…` or `slack://…`."""

_TAG = "oncoshift"
_BLOCK = "oncoshift-notifications"
_PAGE = 200


@dataclass(frozen=True)
class Notice:
    """What is notified of.

    Attributes:
        events: Events of Prefect or of a flow.
        subject: Template of the message's subject.
        body: Template of the message.
        of_runs: Whether the events are states of runs of `flows`.
    """

    events: frozenset[str]
    subject: str = "{{ flow_run.name }} · {{ flow_run.state.name }}"
    body: str = "{{ flow_run.state.message }}\n{{ flow_run | ui_url }}"
    of_runs: bool = True


NOTICES = {
    "failure": Notice(frozenset({"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"})),
    "approval wanted": Notice(frozenset({"prefect.flow-run.Suspended"})),
    "promotion": Notice(frozenset({"prefect.flow-run.Promoted"})),
    "drift": Notice(
        frozenset({"oncoshift.drift"}),
        subject="{{ event.resource.id }} · drift",
        body="{{ event.payload }}",
        of_runs=False,
    ),
}
"""What is notified of, by name."""


def build_trigger_automations(deployment: UUID, triggers: Iterable[DeploymentTriggerTypes]) -> list[AutomationCore]:
    """Build the automations that start a deployment."""
    built = []
    for trigger in triggers:
        trigger.set_deployment_id(deployment)
        # Prefect makes those that a deployment owns anew whenever it is registered. Left out, as an
        # update may not name an owner, not even none.
        built.append(AutomationCore.model_validate(trigger.as_automation().model_dump(exclude={"owner_resource"})))
    return built


def build_notifications(flows: Iterable[str]) -> list[AutomationCore]:
    """Build the automations that notify, and the block that they use; none without `NOTIFY_URL`.

    Args:
        flows: names of the flows whose runs count.
    """
    url = os.environ.get(NOTIFY_URL)
    if not url:
        return []
    # Any server knows this block, and it gives what is no URL of Slack's to Apprise as it is.
    block: Any = SlackWebhook(url=SecretStr(url))
    document: UUID = block.save(_BLOCK, overwrite=True, _sync=True)
    of_runs = {"prefect.resource.role": "flow", "prefect.resource.name": sorted(flows)}
    return [
        AutomationCore(
            name=f"notify of {name}",
            trigger=EventTrigger(
                expect=set(notice.events),
                match_related=of_runs if notice.of_runs else {},
                posture=Posture.Reactive,
                threshold=1,
            ),
            actions=[SendNotification(block_document_id=document, subject=notice.subject, body=notice.body)],
        )
        for name, notice in NOTICES.items()
    ]


def bring_up_to_date(wanted: Iterable[AutomationCore]) -> None:
    """Create, change or delete oncoshift's automations in Prefect, so that they are as wanted."""
    with get_client(sync_client=True) as client:
        made = client.read_automations(sort=AutomationSort.NAME_ASC, limit=_PAGE)
        existing = {each.name: each for each in made if _TAG in each.tags}
        for core in wanted:
            tagged = core.model_copy(update={"tags": [_TAG]})
            found = existing.pop(core.name, None)
            if found is None:
                client.create_automation(tagged)
            elif _dump(found) != _dump(tagged):
                client.update_automation(found.id, tagged)
        for unwanted in existing.values():
            client.delete_automation(unwanted.id)


def _dump(automation: AutomationCore) -> dict[str, Any]:
    return automation.model_dump(mode="json", include=set(AutomationCore.model_fields) - {"enabled"})
