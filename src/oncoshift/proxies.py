"""Loopback addresses, which no HTTP proxy may handle."""

from __future__ import annotations

import os

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def spare_loopback() -> None:
    """Add the loopback addresses to `NO_PROXY` and `no_proxy` of this process and its children.

    Otherwise `HTTP_PROXY` would send requests for the local Prefect or MLflow server to the proxy,
    whose 127.0.0.1 is another machine. Hosts that are listed stay; if both variables are set,
    clients read the lower-case one.
    """
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    hosts += [host for host in _LOOPBACK if host not in hosts and hosts != ["*"]]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(hosts)
