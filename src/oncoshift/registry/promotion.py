"""Promotion and rollback: the aliases challenger, champion and previous of a registered model.

Each function first finishes a change that a killed process left (see `changes`), and records a
change that somebody made outside oncoshift, so that the history has no gap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.errors import RegistryError
from oncoshift.registry.changes import begin_change, finish_change, read_last_change
from oncoshift.registry.history import (
    AWAITED,
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    WITHDRAWN_TAG,
    Event,
    RefusedVersionError,
    choose_time,
    explain_refusal,
    get_version,
    list_failed,
    read_aliases,
    read_events,
)
from oncoshift.registry.lock import changing_aliases

if TYPE_CHECKING:
    from mlflow import MlflowClient

ANY_CHAMPION = "any"
"""For `promote`: whichever version is champion."""


class ChampionMovedError(RegistryError):
    """Another version has become champion since a decision was made against the old one."""


def set_challenger(client: MlflowClient, name: str, version: str | int, reason: str, by: str) -> None:
    """Make a version the challenger, unless it is already challenger or champion.

    Raises:
        RegistryError: no such model or version.
    """
    with changing_aliases(client) as client:
        finish_change(client, name)
        aliases = read_aliases(client, name)
        target = get_version(client, name, version)
        version = str(target.version)
        if version not in (aliases.get(CHALLENGER), aliases.get(CHAMPION)):
            event = Event("challenge", version, None, by, reason, choose_time(None, *read_events(target)))
            begin_change(client, name, event)


def promote(
    client: MlflowClient,
    name: str,
    version: str | int,
    reason: str,
    by: str,
    *,
    force: bool = False,
    expected: str | None = ANY_CHAMPION,
) -> bool:
    """Make a version champion and the present champion previous, unless it already is champion.

    Args:
        client: client of the registry.
        name: name of the registered model.
        version: version to promote.
        reason: reason, for the history.
        by: person or program, for the history.
        force: whether to promote a version that the gate refused, that nobody approved or that was
            rolled back; the history then says what was overruled.
        expected: champion that the decision was made against, None for none; it must still be the
            champion. Default: any.

    Returns:
        Whether this made it champion; False if it already was, and nothing is recorded.

    Raises:
        ChampionMovedError: another version than the expected one is champion.
        RefusedVersionError: the version is refused, not approved or withdrawn.
        RegistryError: no such model or version.
    """
    with changing_aliases(client) as client:
        finished = finish_change(client, name)
        last = read_last_change(client, name)
        champion = last.champion if last else None
        target = get_version(client, name, version)
        version = str(target.version)
        if version == champion:
            return finished is not None and finished.kind == "promote"  # asked again after a crash
        if expected not in (ANY_CHAMPION, champion):
            judged, live = (f"version {each}" if each else "no version" for each in (expected, champion))
            raise ChampionMovedError(f"{name}: {live} is champion now; version {version} was judged against {judged}")
        why = explain_refusal(target)
        if why is not None and not force:
            failed = "".join(f"\n  {check}: {words}" for check, words in list_failed(target).items())
            raise RefusedVersionError(f"{name} version {version}: {why}{failed}", awaits=why == AWAITED)
        at = choose_time(last, *read_events(target))
        begin_change(client, name, Event("promote", version, champion, by, reason, at, why or ""))
        return True


def rollback(client: MlflowClient, name: str, reason: str, by: str) -> str:
    """Swap champion and previous; `promote` refuses the withdrawn version unless forced.

    Returns:
        The version that is champion now.

    Raises:
        RegistryError: no such model, or no previous champion.
    """
    with changing_aliases(client) as client:
        finished = finish_change(client, name)
        if finished is not None and finished.kind == "rollback":
            return finished.version  # asked again after a crash: swapping once more would undo it
        last = read_last_change(client, name)
        previous = read_aliases(client, name).get(PREVIOUS)
        if previous is None:
            raise RegistryError(
                f"{name}: there is no version with the alias {PREVIOUS!r} to go back to; `oncoshift promote` makes "
                "another version champion"
            )
        target = get_version(client, name, previous)
        withdrawn = target.tags.get(WITHDRAWN_TAG)
        if withdrawn is not None:
            why = f"was rolled back itself ({withdrawn})"
            raise RegistryError(f"{name}: version {previous} {why}; `oncoshift promote` makes another version champion")
        champion, at = last.champion if last else None, choose_time(last, *read_events(target))
        begin_change(client, name, Event("rollback", previous, champion, by, reason, at))
        return previous


def recover(client: MlflowClient, name: str) -> Event | None:
    """Finish a change that a killed process left incomplete; return it, or None if there was none.

    Raises:
        RegistryError: no such model, or the version that was to become champion has since been
            deleted.
    """
    with changing_aliases(client) as client:
        return finish_change(client, name)
