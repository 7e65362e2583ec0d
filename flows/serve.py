"""The retraining flow on a schedule: a process that stays, and starts a run whenever the cron expression says.

    python -m flows.serve [--cron "0 2 * * *"] [--timezone UTC] [--preset NAME] [--set KEY=VALUE]

A run with nothing new to train ends at once, so a frequent schedule costs little. Only a lasting Prefect server keeps a
schedule: the one at PREFECT_API_URL, or else one that this process starts, with its UI, and stops. Tests: tests/flows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prefect.schedules import Cron
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from flows.retrain import ensure_gpu_limit, retrain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_STARTUP_SECONDS = 180


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.serve", description=__doc__)
    parser.add_argument("--cron", default="0 2 * * *", help="when, as a cron expression; default: every night at two")
    parser.add_argument("--timezone", default="UTC")
    parser.add_argument("--port", type=int, default=4200, help="of the server, where PREFECT_API_URL names none")
    parser.add_argument("--name", default="scheduled", help="of the deployment")
    parser.add_argument("--preset", metavar="NAME")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args(argv)


@contextmanager
def prefect_server(port: int) -> Iterator[None]:
    """A server that keeps the schedule: the one that is configured, or one of our own while the block runs.

    Raises:
        RuntimeError: our own did not come up, for example because the port is taken.
    """
    if get_current_settings().api.url is not None:
        yield
        return
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            _wait_for(f"{address}/api/health", server)
            with temporary_settings({PREFECT_API_URL: f"{address}/api"}):
                ensure_gpu_limit(free=True)
                print(f"Prefect's UI: {address}", flush=True)
                yield
        finally:
            server.terminate()


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _STARTUP_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 - our own server
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
        else:
            return
    raise RuntimeError(f"no Prefect server at {url}; is the port taken? name another with --port")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until stopped."""
    given = parse(argv)
    with prefect_server(given.port):
        retrain.serve(
            name=given.name,
            # The slug keeps a schedule that was paused or changed in the UI as it is when this process starts again.
            schedule=Cron(given.cron, timezone=given.timezone, slug=given.name),
            parameters={"preset": given.preset, "overrides": given.overrides},
            pause_on_shutdown=False,
            global_limit=1,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
