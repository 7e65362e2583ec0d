"""Loopback addresses bypass the proxy, and other exceptions from it stay."""

from __future__ import annotations

import os
from urllib.request import getproxies, proxy_bypass

import pytest
from requests.utils import should_bypass_proxies

from oncoshift.proxies import spare_loopback


@pytest.fixture(autouse=True)
def behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:3128")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_is_asked_directly_and_the_rest_through_the_proxy(host: str) -> None:
    address = f"http://[{host}]:4200" if ":" in host else f"http://{host}:4200"
    assert not should_bypass_proxies(address, no_proxy=None)
    spare_loopback()
    assert should_bypass_proxies(address, no_proxy=None)
    assert proxy_bypass(host)
    assert not should_bypass_proxies("http://mlflow.example:5000", no_proxy=None)
    assert getproxies()["no"] == "127.0.0.1,localhost,::1"


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_hosts_that_are_spared_already_stay(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "intranet.example, localhost")
    spare_loopback()
    spare_loopback()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "intranet.example,localhost,127.0.0.1,::1"


def test_no_proxy_for_anything_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    spare_loopback()
    assert os.environ["no_proxy"] == "*"


def test_an_empty_lower_case_variable_hides_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "corp.example")
    spare_loopback()
    assert os.environ["no_proxy"] == "corp.example,127.0.0.1,localhost,::1"
