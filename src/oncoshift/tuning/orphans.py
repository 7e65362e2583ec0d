"""Trials whose worker is gone: found, and failed, so that the next worker runs them again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from optuna.storages import RDBStorage
from optuna.trial import TrialState

from oncoshift.errors import SettingsError
from oncoshift.tuning.lock import study_lock
from oncoshift.tuning.study import silencing_optuna

if TYPE_CHECKING:
    from collections.abc import Iterable

_GRACE_SECONDS = 300
"""Least time without a heartbeat after which a trial counts as lost; a worker may be slow."""


@dataclass(frozen=True)
class Orphan:
    """A trial that is RUNNING without a worker.

    Attributes:
        study: name of its study.
        number: of the trial.
        id: of the trial in its database.
    """

    study: str
    number: int
    id: int


def list_orphans(url: str, heartbeat_seconds: int) -> list[Orphan]:
    """List the trials of a database that have sent no heartbeat for a long time.

    Args:
        url: SQLAlchemy URL of the database, which must be there.
        heartbeat_seconds: between heartbeats.

    Raises:
        SettingsError: another version of Optuna made its tables.
    """
    storage = RDBStorage(url, skip_compatibility_check=True, skip_table_creation=True)
    if storage.get_current_version() != storage.get_head_version():
        raise SettingsError(
            f"tune.storage: its tables are of Optuna's version {storage.get_current_version()}, and this one needs "
            f"{storage.get_head_version()}; back it up, and run `optuna storage upgrade --storage URL`"
        )
    limit = timedelta(seconds=max(4 * heartbeat_seconds, _GRACE_SECONDS))
    with silencing_optuna():
        storage = RDBStorage(
            url, heartbeat_interval=heartbeat_seconds, grace_period=int(limit.total_seconds()), skip_table_creation=True
        )
    orphans = []
    for study in storage.get_all_studies():
        stale = set(storage._get_stale_trial_ids(study._study_id))
        for trial in storage.get_all_trials(study._study_id, deepcopy=False, states=(TrialState.RUNNING,)):
            began = trial.datetime_start
            claimed = "worker" in trial.user_attrs  # else its worker was killed before the first heartbeat
            if trial._trial_id in stale or (not claimed and began is not None and datetime.now() - began > limit):
                orphans.append(Orphan(study.study_name, trial.number, trial._trial_id))
    return orphans


def fail_orphans(url: str, orphans: Iterable[Orphan]) -> None:
    """Fail orphans, which the next worker of their study queues again with the same values."""
    storage = RDBStorage(url, skip_table_creation=True)
    with study_lock(url):
        for orphan in orphans:
            if storage.get_trial(orphan.id).state == TrialState.RUNNING:
                storage.set_trial_state_values(orphan.id, TrialState.FAIL)
