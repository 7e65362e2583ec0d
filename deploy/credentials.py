"""Generate the credentials of the platform, from the *.example.env beside this file.

    python3 deploy/credentials.py                   .env, for compose.yaml
    python3 deploy/credentials.py --kubernetes      secrets.env and worker.env in deploy/kubernetes

A value that is empty in the example becomes a password; ${NAME} in one becomes the value of NAME.
It needs nothing but Python, and replaces no file: with other passwords than those that the
databases were made with, nothing would start.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path
from string import Template

_DEPLOY = Path(__file__).resolve().parent
_COMPOSE = {_DEPLOY / "compose" / "example.env": _DEPLOY.parent / ".env"}
_KUBERNETES = {
    _DEPLOY / "kubernetes" / f"{name}.example.env": _DEPLOY / "kubernetes" / f"{name}.env"
    for name in ("secrets", "worker")
}


def fill(example: str, values: dict[str, str]) -> str:
    """Fill in an example.

    Args:
        example: lines NAME=VALUE, and comments.
        values: those of all names so far, to which the example's are added.
    """
    lines = []
    for line in example.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            values[name] = Template(value).substitute(values) or secrets.token_urlsafe(24)
            line = f"{name}={values[name]}"
        lines.append(f"{line}\n")
    return "".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Write the files; 1 if one of them is there already."""
    parser = argparse.ArgumentParser(description="Generate the credentials of the platform.")
    parser.add_argument("--kubernetes", action="store_true", help="for deploy/kubernetes, in place of compose.yaml")
    wanted = _KUBERNETES if parser.parse_args(argv).kubernetes else _COMPOSE
    if there := [path for path in wanted.values() if path.exists()]:
        print(f"{', '.join(map(str, there))}: there already, and left as it is", file=sys.stderr)
        return 1
    values: dict[str, str] = {}
    for example, path in wanted.items():
        text = fill(example.read_text(encoding="utf-8"), values)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        print(f"{path}: written; only you can read it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
