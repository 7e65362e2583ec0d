"""The CI files that a team copies name commands, options and images that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from oncoshift.cli import build_parser

REPOSITORY = Path(__file__).resolve().parents[1]
STEP = re.compile(r"^\s*- (?:run: )?(make|docker build|(?:\.venv/bin/)?oncoshift) (.*)$", re.MULTILINE)


@pytest.mark.parametrize("name", ["github", "gitlab"])
def test_what_a_template_calls_is_there(name: str) -> None:
    text = (REPOSITORY / "ci" / f"{name}.yml").read_text()
    yaml.safe_load(text)
    steps = [(program.removeprefix(".venv/bin/"), shlex.split(words)) for program, words in STEP.findall(text)]
    assert {program for program, _ in steps} == {"make", "docker build", "oncoshift"}
    makefile, dockerfile = ((REPOSITORY / file).read_text() for file in ("Makefile", "Dockerfile"))
    for program, words in steps:
        if program == "make":
            assert re.search(rf"^{words[0]}:", makefile, re.MULTILINE)
        elif program == "oncoshift":
            build_parser().parse_args(words)
        else:
            assert re.search(rf"^FROM .* AS {words[words.index('--target') + 1]}$", dockerfile, re.MULTILINE)
    assert {words[0] for program, words in steps if program == "oncoshift"} == {"pull", "promote"}


def test_gitlabs_containers_get_what_tests_on_postgresql_would_be_skipped_without() -> None:
    """GitHub's machines have it."""
    jobs = yaml.safe_load((REPOSITORY / "ci" / "gitlab.yml").read_text())
    scripts = {name: job["script"] for name, job in jobs.items() if isinstance(job, dict) and "script" in job}
    testing = {name: script for name, script in scripts.items() if any("make test" in line for line in script)}
    assert set(testing) == {"test", "night"}
    for script in testing.values():
        assert re.search(r"apt-get install .*\bpostgresql\b", script[0])
