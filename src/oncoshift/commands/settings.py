"""The command `settings`: print the settings in effect, or their JSON schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from oncoshift.commands.context import Context


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options of `settings`."""
    parser.add_argument(
        "--schema", action="store_true", help="print the JSON schema of params.yaml and presets instead, for editors"
    )


def settings(context: Context) -> None:
    """Print all settings with preset and overrides as YAML, or their JSON schema."""
    from oncoshift.settings import Settings, dump_settings

    if context.arguments.schema:
        print(json.dumps(Settings.model_json_schema(), indent=1, ensure_ascii=False))
    else:
        print(dump_settings(context.settings), end="")
