"""Prefect flows around `oncoshift.retraining`: tasks, retries, limits and schedules.

Environment variables are set before Prefect is imported, so that its embedded server stays in the
project's folder and sends no telemetry. Variables that are already set are kept.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from oncoshift.logs import log_as_json
from oncoshift.proxies import spare_loopback

PROJECT = Path(os.environ.get("ONCOSHIFT_PROJECT", Path(__file__).resolve().parent.parent))
"""The project whose params.yaml and dvc.yaml are used; default: the one around these flows."""

for _name, _value in {
    "PREFECT_HOME": str(PROJECT / ".prefect"),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}.items():
    os.environ.setdefault(_name, _value)

spare_loopback()

log_as_json(("stderr",))  # before Prefect, which then adds no handler of its own
for _name in ("alembic", "lightning_fabric"):
    logging.getLogger(_name).setLevel(logging.WARNING)
