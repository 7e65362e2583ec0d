"""Times in the registry: ISO 8601 in UTC, to the microsecond, so that texts sort as times do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"  # MLflow allows no + in a tag's name


def get_time() -> str:
    """Get the present time."""
    return datetime.now(UTC).strftime(_FORMAT)


def add_time(at: str, **duration: float) -> str:
    """Add a duration to a time.

    Args:
        at: the time.
        duration: as `datetime.timedelta` takes it, for example `hours=72`.
    """
    return (datetime.strptime(at, _FORMAT).replace(tzinfo=UTC) + timedelta(**duration)).strftime(_FORMAT)


def shorten_time(at: str) -> str:
    """Shorten a time to its minute, for people."""
    return f"{at[:16].replace('T', ' ')} UTC"
