"""Identities of processes, by which others tell whether they have ended."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
from pathlib import Path

PROCESS_TAG = "oncoshift.process"
"""Tag of a run: the process that last worked on it."""

_TEXT = re.compile(r"(\S+) (\S+)-(\d+)-(\d+)")


def describe_process() -> str:
    """Describe this process: host, kernel and set of process ids, process id, start time."""
    process = os.getpid()
    return f"{socket.gethostname()} {identify_machine()}-{process}-{read_start(process) or 0}"


def has_ended(description: str) -> bool | None:
    """Tell whether a described process has ended; None if that cannot be told from here.

    A process of this host from before its last start has ended.
    """
    match = _TEXT.fullmatch(description)
    if match is None:
        return None
    host, machine, process, started = match.groups()
    if machine != identify_machine():
        return True if host == socket.gethostname() else None
    return read_start(int(process)) != int(started)


def identify_machine() -> str:
    """Identify the kernel and its set of process ids, which a container has for itself."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        text = boot + os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - the target is no path
    except OSError:  # not Linux: no process is looked up
        text = secrets.token_hex(8)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def read_start(process: int) -> int | None:
    """Read when a process started, in clock ticks since boot; None if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    state, start = fields[0], fields[19]
    return None if state in "ZX" else int(start)
