"""Free ports for the servers that tests start."""

from __future__ import annotations

import socket


def find_free_port() -> int:
    """Find a port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
