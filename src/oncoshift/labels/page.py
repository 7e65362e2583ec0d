"""A local page on which a person labels a sheet's tiles: a picture at a time, by keys.

It is served on 127.0.0.1 alone, below a random path. A request that names another host, or that
another site's page sends, is refused, so no page in the same browser can read tiles or give labels.
Each answer is saved into the CSV before it is confirmed.
"""

from __future__ import annotations

import io
import json
import secrets
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from PIL import Image

from oncoshift.errors import DataError
from oncoshift.labels.sheet import read_rows, write_rows
from oncoshift.labels.table import WORDS
from oncoshift.serving.images import UnreadableImageError, decode, read_image_file

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "127.0.0.1"
_TEMPLATE = Path(__file__).with_name("page.html")
_MOST_BYTES = 1000
"""Length of a request's body; an answer takes some fifty."""


class ChangedSheetError(DataError):
    """Another program has written the CSV since the page was opened."""


class Sheet:
    """A sheet that is being labelled; safe to use from several threads.

    Args:
        path: of the CSV.

    Raises:
        DataError: see `read_rows`; or a picture is not in the CSV's folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = read_rows(path)
        self._lock, self._written = Lock(), path.read_bytes()
        folder = path.parent.resolve()
        for row in self._rows:
            if not (folder / row.file).resolve().is_relative_to(folder):
                raise DataError(f"{path}, line {row.line}: {row.file} is not beside the CSV")
        if not self._rows:
            raise DataError(f"{path}: has no rows; `oncoshift label propose` writes some")

    @property
    def labels(self) -> list[str]:
        """The labels given so far, empty where there is none, in the CSV's order."""
        with self._lock:
            return [row.word for row in self._rows]

    def answer(self, number: int, label: str) -> None:
        """Set the label of row `number`, from 0, and save the CSV; an empty one takes it back.

        Raises:
            ChangedSheetError: another program has written the CSV; its changes would be lost.
            ValueError: there is no such row or word.
        """
        if label not in ("", *WORDS):
            raise ValueError(f"label {label!r} is none of {', '.join(WORDS)}")
        with self._lock:
            if not 0 <= number < len(self._rows):
                raise ValueError(f"there is no row {number}")
            if not self.path.is_file() or self.path.read_bytes() != self._written:
                raise ChangedSheetError(f"another program has written {self.path.name}; start the page again")
            rows = list(self._rows)
            rows[number] = replace(rows[number], label=label)
            write_rows(self.path, rows)
            self._rows, self._written = rows, self.path.read_bytes()

    def draw(self, number: int) -> bytes:
        """Return the picture of a row as PNG, whatever its format.

        Raises:
            IndexError: there is no such row.
            UnreadableImageError: the picture cannot be decoded.
        """
        picture = io.BytesIO()
        pixels = decode(read_image_file(self.path.parent / self._rows[number].file))
        Image.fromarray(pixels).save(picture, format="PNG")
        return picture.getvalue()


def open_server(sheet: Sheet, title: str, port: int = 0) -> tuple[ThreadingHTTPServer, str]:
    """Open the server of a sheet's page; `serve_forever` of it answers.

    Args:
        sheet: what to label.
        title: of the page.
        port: 0: any free one.

    Returns:
        The server, and the page's address.

    Raises:
        DataError: the port is in use, or not allowed.
    """
    token = secrets.token_urlsafe(16)
    try:
        server = ThreadingHTTPServer((HOST, port), partial(_Handler, sheet, title, f"/{token}/"))
    except (OSError, OverflowError) as error:
        raise DataError(f"--port {port}: cannot be used ({error}); without --port a free one is taken") from None
    server.daemon_threads = True
    return server, f"http://{HOST}:{server.server_port}/{token}/"


class _Handler(BaseHTTPRequestHandler):
    """Answers one request of the page."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def __init__(self, sheet: Sheet, title: str, root: str, *args: Any) -> None:
        self.sheet, self.title, self.root = sheet, title, root
        super().__init__(*args)

    def do_GET(self) -> None:
        """Send the page, a picture, or the labels so far."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Save a label."""
        self._answer(self._post)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Keep the console for what the person needs."""

    @property
    def _own(self) -> str:
        server = self.server
        assert isinstance(server, ThreadingHTTPServer)  # noqa: S101 - for the type
        return f"{HOST}:{server.server_port}"

    def _answer(self, handle: Callable[[str], None]) -> None:
        if self.headers.get("Host") != self._own:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, f"this page is at {self._own} alone")
        elif self.headers.get("Origin", f"http://{self._own}") != f"http://{self._own}":
            self._refuse(HTTPStatus.FORBIDDEN, "another site's page may not ask this one")
        elif not self.path.startswith(self.root):
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here; the whole address is on the console")
        else:
            handle(self.path.removeprefix(self.root))

    def _get(self, path: str) -> None:
        name, _, number = path.partition("/")
        if path == "":
            nonce = secrets.token_urlsafe(16)
            self._send(_render(self.title, nonce).encode(), "text/html; charset=utf-8", nonce)
        elif path == "labels":
            self._send(json.dumps(self.sheet.labels).encode(), "application/json")
        elif name == "tiles" and number.isascii() and number.isdigit():
            try:
                self._send(self.sheet.draw(int(number)), "image/png")
            except (IndexError, UnreadableImageError) as error:
                self._refuse(HTTPStatus.NOT_FOUND, str(error))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")

    def _post(self, path: str) -> None:
        size = self.headers.get("Content-Length", "")
        if path != "labels" or not size.isdigit() or int(size) > _MOST_BYTES:
            self._refuse(HTTPStatus.BAD_REQUEST, "not an answer of the page")
            return
        if self.headers.get("Content-Type") != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "answers are JSON")
            return
        try:
            given = json.loads(self.rfile.read(int(size)))
            self.sheet.answer(int(given["number"]), str(given["label"]))
        except (ValueError, TypeError, KeyError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except ChangedSheetError as error:
            self._refuse(HTTPStatus.CONFLICT, str(error))
        except OSError as error:  # the page shows it, and the person goes on when there is room
            self._refuse(HTTPStatus.INSUFFICIENT_STORAGE, f"not saved: {error.strerror}")
        else:
            self._send(json.dumps(self.sheet.labels).encode(), "application/json")

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True  # a body that was not read would be taken for the next request
        self._send(f"{why}\n".encode(), "text/plain; charset=utf-8", status=status)

    def _send(self, body: bytes, kind: str, nonce: str = "", status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        allowed = f" script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data:; connect-src 'self';"
        never = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        self.send_header("Content-Security-Policy", f"default-src 'none';{allowed if nonce else ''} {never}")
        self.end_headers()
        self.wfile.write(body)


def _render(title: str, nonce: str) -> str:
    template = Environment(autoescape=True).from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title, nonce=nonce)
