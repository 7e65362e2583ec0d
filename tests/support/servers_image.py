"""The Dockerfile's stage `server` without an engine: an environment that has what it installs."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_DOCKERFILE = Path(__file__).resolve().parents[2] / "Dockerfile"
_INSTALL = re.compile(r"AS server\n.*?pip install --constraint \S+ (?P<names>.*?[^\\])\n", re.DOTALL)


def hide_what_it_lacks(folder: Path) -> Path:
    """Make a folder for PYTHONPATH with which nothing can be imported that the stage lacks.

    Args:
        folder: in which to make it.
    """
    found = _INSTALL.search(_DOCKERFILE.read_text())
    assert found is not None
    present = _close([name.strip('"') for name in found["names"].replace("\\\n", " ").split()])
    hiding = folder / "absent"
    hiding.mkdir()
    for module, owners in packages_distributions().items():
        if not {canonicalize_name(owner) for owner in owners} & present and module.isidentifier():
            (hiding / f"{module}.py").write_text(f"raise ModuleNotFoundError('not in the image: {module}')\n")
    return hiding


def _close(names: list[str]) -> set[str]:
    """List what is installed with these requirements, beside what is not installed here."""
    wanted = [Requirement(name) for name in names]
    present = {"oncoshift", "pip", "setuptools"}
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        if name in present and not requirement.extras:
            continue
        present.add(name)
        try:
            needs = distribution(name).requires or ()
        except PackageNotFoundError:
            continue
        for need in map(Requirement, needs):
            extras = ["", *requirement.extras]
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras):
                wanted.append(need)
    return present
