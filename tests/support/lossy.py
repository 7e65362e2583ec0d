"""A proxy in front of a server that does what it is asked and loses its answer, now and then."""

from __future__ import annotations

import http.client
import random
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOST = "/api/2.0/mlflow/"
"""The calls whose answers are lost; an upload of many files repeats all, and would never end."""

_OF_THE_CONNECTION = frozenset({"connection", "transfer-encoding", "content-length"})


@dataclass
class LossyProxy:
    """The proxy as its user sees it.

    Attributes:
        uri: its address.
        lost: number of answers lost so far.
    """

    uri: str
    lost: int = 0


@contextmanager
def losing_answers(uri: str, share: float, seed: int = 0) -> Iterator[LossyProxy]:
    """Run a proxy for as long as the block does.

    Args:
        uri: the server.
        share: of the requests whose answers are lost.
        seed: of the choice.
    """
    draw, lock = random.Random(seed), threading.Lock()
    server = str(urlsplit(uri).netloc)

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            upstream = http.client.HTTPConnection(server, timeout=60)
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            content = answer.read()
            with lock:
                lost = self.path.startswith(_LOST) and draw.random() < share
                state.lost += lost
            if lost:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _OF_THE_CONNECTION:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward  # noqa: N815 - the base class's names

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        state = LossyProxy(f"http://127.0.0.1:{proxy.server_port}")
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        try:
            yield state
        finally:
            proxy.shutdown()
