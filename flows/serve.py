"""The retraining flow on a schedule: a process that stays, and starts a run whenever the cron expression says.

    python -m flows.serve [--cron "0 2 * * *"] [--timezone UTC] [--preset NAME] [--set KEY=VALUE]

A run with nothing new to train ends at once, so a frequent schedule costs little. On a lasting Prefect server
(PREFECT_API_URL) the schedule shows in its UI; it goes on being active when this process stops. Tests: tests/flows.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from prefect.schedules import Cron

from flows.retrain import retrain

if TYPE_CHECKING:
    from collections.abc import Sequence


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.serve", description=__doc__)
    parser.add_argument("--cron", default="0 2 * * *", help="when, as a cron expression; default: every night at two")
    parser.add_argument("--timezone", default="UTC")
    parser.add_argument("--name", default="scheduled", help="of the deployment")
    parser.add_argument("--preset", metavar="NAME")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until stopped."""
    given = parse(argv)
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
