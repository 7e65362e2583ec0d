"""Proxies are for the network: what listens on this machine is asked directly."""

from __future__ import annotations

import os

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def spare_loopback() -> None:
    """Add the loopback addresses to `NO_PROXY` and `no_proxy` of this process and of those that it starts.

    Without it `HTTP_PROXY` sends requests for the Prefect or MLflow server on this machine to the proxy, whose
    127.0.0.1 is another one. What is spared already stays; where both variables are set, clients read the lower case.
    """
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    hosts += [host for host in _LOOPBACK if host not in hosts and hosts != ["*"]]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(hosts)
