"""The tests, commands, options and Python files that the documentation names exist."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
import textwrap
from pathlib import Path

import pytest

from flows.automations import NOTICES
from oncoshift.cli import COMMANDS, build_parser

REPOSITORY = Path(__file__).resolve().parent.parent
RELIABILITY = REPOSITORY / "docs" / "reliability.md"
PAGES = [*(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]


def test_the_tests_that_stand_for_mended_faults_are_there() -> None:
    named, missing = 0, []
    for line in RELIABILITY.read_text(encoding="utf-8").splitlines():
        if not line.startswith("| ") or line.startswith("| fault"):
            continue
        file = None
        for path, name in re.findall(r"(tests/[\w/]+\.py)|::(test_\w+)", line.rsplit(" | ", 1)[-1]):
            file = REPOSITORY / path if path else file
            assert file is not None, line
            named += 1
            if not file.is_file() or (name and f"def {name}(" not in file.read_text(encoding="utf-8")):
                missing.append(f"{file.relative_to(REPOSITORY)}::{name}")
    assert missing == []
    assert named > 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_a_page_are_understood(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL):
        for line in re.findall(r"^(?:\.venv/bin/)?oncoshift (.*)$", block.replace("$real", ""), flags=re.MULTILINE):
            build_parser().parse_args(shlex.split(line.split(" > ")[0], comments=True))
    known = {command.name for command in COMMANDS}
    assert set(re.findall(r"`oncoshift ([a-z]+)", text)) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_files_that_a_page_names_are_there(page: Path) -> None:
    named = re.findall(r"`([\w/]+/\w+\.py)`", page.read_text(encoding="utf-8"))
    roots = (REPOSITORY, REPOSITORY / "src" / "oncoshift")
    assert [name for name in named if not any((root / name).is_file() for root in roots)] == []


def test_the_modules_of_the_recipes_can_be_imported(tmp_path: Path) -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    modules = re.findall(r'```python title="src/[\w/]+/(\w+\.py)"\n(.*?)\n *```', text, flags=re.DOTALL)
    assert [name for name, _ in modules] == ["coral.py", "my_lab.py", "margin.py"]
    for name, code in modules:
        (tmp_path / name).write_text(textwrap.dedent(code), encoding="utf-8")
        runpy.run_path(str(tmp_path / name))


def test_the_runbook_has_a_row_for_each_check_of_doctor_and_each_notification() -> None:
    package = REPOSITORY / "src" / "oncoshift"
    checks = set()
    for file in (package / "commands" / "doctor.py", *(package / "maintenance").glob("*_checks.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
                check, level = (each.value if isinstance(each, ast.Constant) else "" for each in node.args[:2])
                checks |= {str(check)} if level != "ok" else set()
    assert len(checks) > 10
    wanted = {f"doctor: {f'`{check}`' if check else 'the package'}" for check in checks}
    wanted |= {f"notification: {name}" for name in NOTICES}
    told = set()
    alarms = (
        (REPOSITORY / "docs" / "runbook.md").read_text(encoding="utf-8").partition("## Alarms")[2].partition("## ")[0]
    )
    for row in re.findall(r"^\|[^|]+\|([^|]+)\|", alarms, flags=re.MULTILINE):
        for source in row.strip().split("; "):
            kind, _, names = source.partition(": ")
            told |= {f"{kind}: {name}" for name in names.split(", ")}
    assert wanted <= told, wanted - told
