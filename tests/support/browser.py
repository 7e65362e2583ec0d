"""A page of a real browser, for tests that read and click as a person does."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page


def find_chromium() -> str:
    """Return the path of Chromium; skip the test where it or playwright is absent."""
    pytest.importorskip("playwright", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium here; apt install chromium")
    return path


@contextmanager
def opening_page(width: int, height: int, patience_ms: int, address: str | None = None) -> Iterator[Page]:
    """Open a page of this size, in pixels; relative addresses are below `address`."""
    chromium = find_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # The sandbox of Chromium cannot start for root, as which tests run in a container.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(base_url=address, viewport={"width": width, "height": height})
        page.set_default_timeout(patience_ms)
        yield page
        browser.close()
