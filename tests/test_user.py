"""The user's name comes from the system, not from environment variables."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

from oncoshift.user import find_user_name

if TYPE_CHECKING:
    import pytest


def test_the_name_is_the_systems_and_not_what_the_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    assert find_user_name() == pwd.getpwuid(os.getuid()).pw_name


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987_654)
    assert find_user_name() == "uid 987654"
