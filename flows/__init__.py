"""Prefect, and nothing else: wiring, retries, limits, schedules. The work is in `oncoshift.retraining`.

The environment is set before Prefect is imported: an embedded server that keeps to the project's folder and sends no
telemetry. Variables that are set already stay.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from oncoshift.proxies import spare_loopback

PROJECT = Path(os.environ.get("ONCOSHIFT_PROJECT", Path(__file__).resolve().parent.parent))
"""The project whose params.yaml and dvc.yaml count; default: the one that these flows lie in."""

for _name, _value in {
    "PREFECT_HOME": str(PROJECT / ".prefect"),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}.items():
    os.environ.setdefault(_name, _value)

spare_loopback()

for _name in ("alembic", "lightning_fabric"):
    logging.getLogger(_name).setLevel(logging.WARNING)
