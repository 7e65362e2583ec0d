"""Who runs this process, for histories that others rely on."""

from __future__ import annotations

import os
import pwd


def find_user_name() -> str:
    """The name of the user that the system runs this process as; `uid 1234` where it has no name for that one.

    Not `getpass.getuser`, which believes the variables LOGNAME and USER, and fails in a container that lacks both.
    """
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"
