"""The page of a sheet in a real browser, as a person labels by it: by keys and clicks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from support.browser import opening_page
from support.tiny_tiles import tissue

from oncoshift.files import sha256_file, write_json
from oncoshift.labels.sheet import Row, read_rows, write_sheet
from oncoshift.steps.labels import SHEET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page, Route

pytestmark = pytest.mark.slow

TILES = 5


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A browser's page, which must not fetch anything but from the program, nor meet an error."""
    with opening_page(900, 900, patience_ms=30_000) as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The CSV of a sheet of five tiles, one of them a TIFF."""
    files = [tmp_path / f"{number}.{'tiff' if number == 2 else 'png'}" for number in range(TILES)]
    for number, file in enumerate(files):
        Image.fromarray(tissue(number)).save(file)
    rows = [Row(file.name, file.stem, "", "train", "", sha256_file(file)) for file in files]
    write_sheet(tmp_path / "sheet", rows, files)
    write_json(tmp_path / "sheet" / SHEET, {"target": "kidney", "experiment": "."})
    return tmp_path / "sheet" / "labels.csv"


@contextmanager
def labelling(path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `oncoshift label page` as a user does; yields the address that it prints."""
    # A shell that runs tests in the background ignores SIGINT, and so would all that they start.
    program = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "from oncoshift.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "label", "page", str(path), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as started:
        try:
            assert started.stdout is not None
            found = re.match(r"label: (http://127\.0\.0\.1:\d+/\S+/) ", started.stdout.readline())
            assert found is not None
            yield found[1], started
        finally:
            started.kill()


def saved(path: Path) -> list[str]:
    return [row.label for row in read_rows(path)]


def wait_for_picture(page: Page, number: int) -> None:
    """Wait until the picture of a number, from 1, is shown, decoded by the browser."""
    page.get_by_text(f"picture {number} of {TILES}").wait_for()
    page.wait_for_function(
        "number => { const tile = document.getElementById('tile'); "
        "return tile.src.endsWith(`tiles/${number}`) && tile.complete && tile.naturalWidth === 32; }",
        arg=number - 1,
    )


def test_tiles_are_labelled_by_keys_and_each_is_saved_at_once(page: Page, path: Path) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    with labelling(path) as (address, program):
        page.goto(address)
        for number, (key, label) in enumerate([("b", "benign"), ("m", "malignant"), ("s", "skip")], start=1):
            wait_for_picture(page, number)
            page.keyboard.press(key)
            page.get_by_text(f"{number}: {label}, saved").wait_for()
            assert saved(path)[number - 1] == label
        page.keyboard.press("ArrowLeft")
        wait_for_picture(page, 3)
        assert page.locator('button[data-label="skip"]').get_attribute("aria-pressed") == "true"
        page.keyboard.press("x")
        page.get_by_text("3: taken back").wait_for()
        assert saved(path) == ["benign", "malignant", "", "", ""]
        page.keyboard.press("ArrowRight")
        wait_for_picture(page, 4)
        page.get_by_role("button", name="malignant").click()
        page.get_by_text("4: malignant, saved").wait_for()
        page.keyboard.press("Control+b")  # a browser's own shortcut is no answer
        page.get_by_text("picture 5 of 5; 3 answered").wait_for()
        assert saved(path) == ["benign", "malignant", "", "malignant", ""]
        assert errors == []
        program.send_signal(signal.SIGINT)
        assert program.stdout is not None
        assert f"3 of 5 answered; next: oncoshift label apply {path}" in program.stdout.read()


def test_a_person_goes_on_where_they_stopped_and_is_told_at_the_end(page: Page, path: Path) -> None:
    with labelling(path) as (address, _):
        page.goto(address)
        wait_for_picture(page, 1)
        for number, key in enumerate("bmb", start=1):
            wait_for_picture(page, number)
            page.keyboard.press(key)
        page.get_by_text("picture 4 of 5; 3 answered").wait_for()
    assert saved(path) == ["benign", "malignant", "benign", "", ""], "though the program was killed"
    with labelling(path) as (address, _):
        page.goto(address)
        wait_for_picture(page, 4)
        page.keyboard.press("m")
        wait_for_picture(page, 5)
        page.keyboard.press("b")
        page.get_by_text("All are answered and saved").wait_for()
        page.locator("#dots button").nth(1).click()
        wait_for_picture(page, 2)
    assert saved(path) == ["benign", "malignant", "benign", "malignant", "benign"]


def test_a_key_that_comes_before_the_next_picture_labels_nothing(page: Page, path: Path) -> None:
    def delay(route: Route) -> None:
        page.wait_for_timeout(1000)
        route.continue_()

    with labelling(path) as (address, _):
        page.goto(address)
        wait_for_picture(page, 1)
        page.route("**/labels", delay)  # the answer takes its time
        for key in "bmm":  # as quick as they come
            page.keyboard.press(key)
        page.get_by_text("1: benign, saved").wait_for()
        page.unroute("**/labels")
        assert saved(path) == ["benign", "", "", "", ""]
        page.route("**/tiles/3", lambda _route: None)  # a picture that does not come
        wait_for_picture(page, 2)
        page.keyboard.press("ArrowRight")
        wait_for_picture(page, 3)
        page.keyboard.press("s")
        page.get_by_text("picture 4 of 5; 2 answered").wait_for()
        page.keyboard.press("m")
        page.keyboard.press("ArrowLeft")
        wait_for_picture(page, 3)
        page.keyboard.press("x")
        page.get_by_text("3: taken back").wait_for()
        page.unroute("**/tiles/3")
    assert saved(path) == ["benign", "", "", "", ""]


def test_an_answer_that_was_not_saved_is_told_and_the_picture_stays(page: Page, path: Path) -> None:
    with labelling(path) as (address, program):
        page.goto(address)
        wait_for_picture(page, 1)
        program.kill()
        program.wait()
        page.keyboard.press("b")
        page.get_by_text("Not saved").wait_for()
        assert page.get_by_text("picture 1 of 5; 0 answered").count() == 1
    assert saved(path) == [""] * TILES
