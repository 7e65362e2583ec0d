"""Each test that docs/reliability.md names is there."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
RELIABILITY = REPOSITORY / "docs" / "reliability.md"


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
