"""Approval of a retraining's version, and the retraining's summary that says so."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from oncoshift.errors import RegistryError
from oncoshift.files import DamagedFileError
from oncoshift.registry.answers import settle_approval
from oncoshift.registry.history import find_champion
from oncoshift.registry.tracking import KEY_TAG
from oncoshift.retraining.summary import Summary
from oncoshift.steps.recorder import RunRecorder

if TYPE_CHECKING:
    from oncoshift.registry.answers import Answer
    from oncoshift.registry.approval import Approval
    from oncoshift.registry.tracking import Tracker


def answer_request(tracker: Tracker, model: str, version: str, answer: Answer) -> Approval:
    """Answer a request for approval, and bring the summary of the retraining that asked up to date.

    Args:
        tracker: the store.
        model: name of the registered model.
        version: version that awaits approval.
        answer: a person's.

    Returns:
        The approval as it stands now; the first answer counts.

    Raises:
        RegistryError: see `settle_approval`.
    """
    approval = settle_approval(tracker.client, model, version, answer)
    run = tracker.client.get_run(approval.retraining)
    recorder = RunRecorder(tracker, run.info.run_id, run.data.tags[KEY_TAG])
    with suppress(DamagedFileError):  # then the next retraining writes it again
        refresh_summary(recorder, Summary.read(recorder))
    return approval


def refresh_summary(recorder: RunRecorder, summary: Summary) -> Summary:
    """Bring a retraining's summary up to date: the champion now, and the approval.

    A request that nobody answered in time is refused; a changed approval is saved in the run.
    """
    client, approval = recorder.tracker.client, summary.approval
    if approval is not None:
        try:
            approval = settle_approval(client, summary.model, summary.version)
        except RegistryError:  # the version was deleted, or judged again by other rules
            if approval.state == "awaited":
                approval = replace(approval, state="overtaken", reason="its version asks for no approval any more")
    now = replace(summary, champion=find_champion(client, summary.model), approval=approval)
    if approval != summary.approval:
        now.record(recorder)
    return now
