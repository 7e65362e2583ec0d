"""The user who runs this process, for audit histories."""

from __future__ import annotations

import os
import pwd


def find_user_name() -> str:
    """Return the name of the process's user, or `uid 1234` if the system has no name for it.

    `getpass.getuser` trusts the variables LOGNAME and USER, and fails in a container that lacks
    both.
    """
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"
