"""The local page serves its own browser alone, and saves each answer before it confirms it."""

from __future__ import annotations

import http.client
import io
import json
from contextlib import contextmanager
from dataclasses import replace
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import pytest
from PIL import Image
from support.tiny_tiles import tissue

from oncoshift.errors import DataError
from oncoshift.files import sha256_file
from oncoshift.labels.page import Sheet, open_server
from oncoshift.labels.sheet import Row, read_rows, write_rows, write_sheet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TILES = 3


class Reply(NamedTuple):
    """What the server answered."""

    status: int
    body: bytes
    headers: dict[str, str]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The CSV of a sheet of three tiles, one of them a TIFF, which browsers do not show."""
    files = [tmp_path / name for name in ("a.png", "b.tiff", "c.png")]
    for number, file in enumerate(files):
        Image.fromarray(tissue(number)).save(file)
    rows = [Row(file.name, file.stem, "", "train", "", sha256_file(file)) for file in files]
    write_sheet(tmp_path / "sheet", rows, files)
    return tmp_path / "sheet" / "labels.csv"


@contextmanager
def serving(path: Path) -> Iterator[str]:
    """Serve a sheet's page; yields its address."""
    server, address = open_server(Sheet(path), "Tiles of kidney")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield address
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(address: str, path: str = "", method: str = "GET", body: bytes | None = None, **headers: str) -> Reply:
    """Send one request, with headers whose underscores are dashes."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, parts.path + path, body, given)
    reply = connection.getresponse()
    found = Reply(reply.status, reply.read(), dict(reply.getheaders()))
    connection.close()
    return found


def answer(address: str, number: object, label: object, **headers: str) -> Reply:
    body = json.dumps({"number": number, "label": label}).encode()
    return ask(address, "labels", "POST", body, **{"Content_Type": "application/json", **headers})


def test_an_answer_is_in_the_file_before_it_is_confirmed(path: Path) -> None:
    with serving(path) as address:
        assert json.loads(ask(address, "labels").body) == ["", "", ""]
        assert json.loads(answer(address, 1, "malignant").body) == ["", "malignant", ""]
        assert [row.label for row in read_rows(path)] == ["", "malignant", ""]
        assert json.loads(answer(address, 1, "").body) == ["", "", ""], "an answer can be taken back"
        assert [row.label for row in read_rows(path)] == ["", "", ""]


def test_pictures_are_sent_as_png_whatever_their_format(path: Path) -> None:
    with serving(path) as address:
        for number in range(TILES):
            reply = ask(address, f"tiles/{number}")
            assert reply.headers["Content-Type"] == "image/png"
            assert Image.open(io.BytesIO(reply.body)).size == (32, 32)
        assert ask(address, f"tiles/{TILES}").status == 404


def test_the_page_runs_its_own_script_alone_and_is_served_to_this_machine_alone(path: Path) -> None:
    with serving(path) as address:
        assert urlsplit(address).hostname == "127.0.0.1"
        reply = ask(address)
        policy = reply.headers["Content-Security-Policy"]
        nonce = policy.partition("script-src 'nonce-")[2].partition("'")[0]
        assert f'<script nonce="{nonce}">' in reply.body.decode()
        assert policy.startswith("default-src 'none';")
        assert nonce not in ask(address).headers["Content-Security-Policy"], "each page has another"


def test_a_title_cannot_be_markup(path: Path) -> None:
    server, address = open_server(Sheet(path), "<script>alert(1)</script>")
    with server:
        thread = Thread(target=server.handle_request)
        thread.start()
        assert b"<script>alert" not in ask(address).body
        thread.join()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "localhost"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Length": "100000"}, 400),
    ],
)
def test_requests_of_other_sites_change_nothing(path: Path, headers: dict[str, str], status: int) -> None:
    with serving(path) as address:
        assert answer(address, 0, "benign", **headers).status == status
        assert [row.label for row in read_rows(path)] == ["", "", ""]


def test_who_does_not_know_the_address_sees_nothing(path: Path) -> None:
    with serving(path) as address:
        parts = urlsplit(address)
        root = f"http://{parts.netloc}"
        for guess in ("/", "/labels", "/tiles/0", "/x/labels", parts.path.rstrip("/") + "x/labels"):
            assert ask(root, guess).status == 404, guess


@pytest.mark.parametrize(
    ("number", "label"), [(0, "tumour"), (-1, "benign"), (TILES, "benign"), ("a", "benign"), (None, "benign")]
)
def test_an_answer_that_cannot_be_is_refused_and_told(path: Path, number: object, label: str) -> None:
    with serving(path) as address:
        assert answer(address, number, label).status == 400
        assert ask(address, "labels", "POST", b"{}", Content_Type="application/json").status == 400
        assert ask(address, "labels", "POST", b"[1", Content_Type="application/json").status == 400
        assert json.loads(ask(address, "labels").body) == ["", "", ""]


def test_answers_that_meet_are_all_saved(path: Path) -> None:
    with serving(path) as address:
        threads = [Thread(target=answer, args=(address, number, "benign")) for number in range(TILES)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [row.label for row in read_rows(path)] == ["benign"] * TILES


def test_a_disk_that_is_full_is_told_and_nothing_is_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(path) as address:
        assert answer(address, 0, "benign").status == 200
        with monkeypatch.context() as patch:

            def fail(*_: object) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr("oncoshift.labels.page.write_rows", fail)
            reply = answer(address, 1, "benign")
            assert (reply.status, reply.body) == (507, b"not saved: No space left on device\n")
        assert json.loads(ask(address, "labels").body) == ["benign", "", ""]
        assert json.loads(answer(address, 1, "skip").body) == ["benign", "skip", ""]


def test_what_a_spreadsheet_has_written_meanwhile_is_not_lost(path: Path) -> None:
    with serving(path) as address:
        assert answer(address, 0, "benign").status == 200
        rows = read_rows(path)
        write_rows(path, [*rows[:2], replace(rows[2], label="malignant")])
        reply = answer(address, 1, "benign")
        assert (reply.status, reply.body) == (409, b"another program has written labels.csv; start the page again\n")
    assert [row.label for row in read_rows(path)] == ["benign", "", "malignant"]


def test_only_pictures_beside_the_csv_are_shown(path: Path) -> None:
    rows = read_rows(path)
    write_rows(path, [replace(rows[0], file="../../secret.png"), *rows[1:]])
    with pytest.raises(DataError, match=r"line 2: \.\./\.\./secret\.png is not beside the CSV"):
        Sheet(path)


def test_a_port_in_use_is_told(path: Path) -> None:
    with serving(path) as address, pytest.raises(DataError, match="cannot be used"):
        open_server(Sheet(path), "x", urlsplit(address).port or 0)
