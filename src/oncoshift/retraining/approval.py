"""Approval of a retraining's version, and the retraining's summary that says so."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from oncoshift.files import DamagedFileError
from oncoshift.registry.answers import settle_approval
from oncoshift.registry.approval import Approval
from oncoshift.registry.history import find_champion, get_version
from oncoshift.registry.promotion import ChampionMovedError
from oncoshift.registry.tracking import KEY_TAG
from oncoshift.retraining.summary import Summary
from oncoshift.steps.recorder import RunRecorder

if TYPE_CHECKING:
    from oncoshift.registry.answers import Answer
    from oncoshift.registry.tracking import Tracker


def answer_by_version(tracker: Tracker, model: str, version: str, answer: Answer) -> Approval:
    """Answer a request for approval, and bring the summary of the retraining that asked up to date.

    Args:
        tracker: the store.
        model: name of the registered model.
        version: version that awaits approval.
        answer: a person's.

    Returns:
        The approval as it stands now; the first answer counts.

    Raises:
        ChampionMovedError: see `settle_approval`.
        RegistryError: see `settle_approval`.
    """
    approval = settle_approval(tracker.client, model, version, answer)
    with suppress(DamagedFileError):  # then the next retraining writes it again
        recorder = _open_recorder(tracker, approval.retraining)
        refresh_summary(recorder, Summary.read(recorder))
    return approval


def answer_request(tracker: Tracker, summary: Summary, answer: Answer) -> Summary:
    """Answer the request of a retraining, and return its summary with the answer.

    Raises:
        ChampionMovedError: see `settle_approval`.
    """
    settle_approval(tracker.client, summary.model, summary.version, answer)
    return refresh_summary(_open_recorder(tracker, summary.run), summary)


def refresh_summary(recorder: RunRecorder, summary: Summary) -> Summary:
    """Bring a retraining's summary up to date: the champion now, and the approval.

    A request that nobody answered in time is refused; a changed approval is saved in the run.
    """
    client, approval = recorder.tracker.client, summary.approval
    if approval is not None:
        try:
            approval = settle_approval(client, summary.model, summary.version)
        except ChampionMovedError:
            approval = Approval.read(get_version(client, summary.model, summary.version).tags)
    now = replace(summary, champion=find_champion(client, summary.model), approval=approval)
    if approval != summary.approval:
        now.record(recorder)
    return now


def _open_recorder(tracker: Tracker, run: str) -> RunRecorder:
    return RunRecorder(tracker, run, tracker.client.get_run(run).data.tags[KEY_TAG])
