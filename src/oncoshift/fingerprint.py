"""Hashes that detect changes: of the code behind a result, and of plain values.

The code behind a result is the module that computes it and all that this module imports within the
package, directly or not. It is derived, so no table of modules can be out of date.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from oncoshift.errors import OncoshiftError
from oncoshift.files import sha256_file

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_PACKAGE = Path(__file__).resolve().parent
_NAME = _PACKAGE.name

SETTINGS = (f"{_NAME}.settings",)
"""Code that a key that contains the settings' values need not cover."""

_MAKERS = "ingest", "split", "normalize", "source", "validation", "stain", "packs.make", "packs.tiles"
SETTINGS_AND_DATA = (
    *SETTINGS,
    *(f"{_NAME}.data.{maker}" for maker in _MAKERS),
    f"{_NAME}.copies",
    f"{_NAME}.phantom",
)
"""Code that a key that contains the settings' values and the data's content hash need not cover.

That is the code that makes the data; the code that reads them still counts.
"""

TILE_LIBRARIES = ("numba", "numpy", "opencv-python", "pillow", "simplejpeg")
"""Libraries whose versions affect how pixels are rounded."""

STAND_INS = {
    "opencv-python": ("opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
}
"""Distributions of the same library; those of OpenCV differ in windows and extra modules."""

_DATA_STAGES = {"ingest": ("data.ingest",), "split": ("data.split",), "normalize": ("data.normalize",)}
_MODEL_STAGES = {
    stage: (f"steps.{stage}", "steps.jobs", "steps.recorder") for stage in ("train", "evaluate", "explain")
}
_IMPORT_STRING = re.compile(rf"{_NAME}(\.\w+)+(:\w+)?")


def fingerprint_code(
    *entries: str, libraries: Iterable[str] = ("torch",), without: Collection[str] = SETTINGS_AND_DATA
) -> str:
    """Hash the source of modules and of all that they import here, and library versions.

    Comments, docstrings, formatting and code for type checkers do not count. An HTML template that
    lies beside a module and has its name does.

    Args:
        entries: full names of modules; a package stands for all modules in it.
        libraries: distributions whose versions count; see `find_library`.
        without: full names of modules and packages that are neither hashed nor followed.

    Raises:
        OncoshiftError: a library is not installed.
    """
    digest = hashlib.sha256(" ".join(f"{name} {find_library(name)[1]}" for name in libraries).encode())
    for name, path in sorted(find_import_closure(entries, without).items()):
        digest.update(f"\n{name} {_read_source(path, path.stat().st_mtime_ns).digest}".encode())
        template = path.with_suffix(".html")
        if template.is_file():
            digest.update(template.read_bytes())
    return digest.hexdigest()[:16]


def find_library(name: str) -> tuple[str, str]:
    """Find the distribution of a library, itself or of `STAND_INS`; return its name and version.

    Raises:
        OncoshiftError: none is installed.
    """
    candidates = name, *STAND_INS.get(name, ())
    for candidate in candidates:
        try:
            return candidate, version(candidate)
        except PackageNotFoundError:
            continue
    raise OncoshiftError(f"{' or '.join(candidates)} is not installed; pip install {name}")


def fingerprint_stages() -> dict[str, str]:
    """Hash the code behind each stage of dvc.yaml; DVC runs a stage again when its hash changes."""
    data = {
        stage: fingerprint_code(*_qualify(names), libraries=TILE_LIBRARIES, without=SETTINGS)
        for stage, names in _DATA_STAGES.items()
    }
    return data | {stage: fingerprint_code(*_qualify(names)) for stage, names in _MODEL_STAGES.items()}


def find_import_closure(entries: Iterable[str], without: Collection[str] = ()) -> dict[str, Path]:
    """Find the modules of this package that the given ones import at run time, directly or not.

    An import within a function counts, and so does an import string (`package.module:name`), as
    registries of lazily imported classes hold. Imports for type checkers do not.

    Args:
        entries: full names of modules; a package stands for all modules in it.
        without: full names of modules and packages that are left out and not followed.

    Returns:
        Full name of each module → its file.

    Raises:
        ModuleNotFoundError: there is no module of an entry's name.
    """
    waiting: list[str] = []
    for entry in entries:
        path = _find_module(entry, _PACKAGE)
        if path is None:
            raise ModuleNotFoundError(f"no module {entry}")
        waiting += _list_modules(path) if path.name == "__init__.py" else [entry]
    left_out = tuple(f"{name}." for name in without)
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        if name in found or f"{name}.".startswith(left_out):
            continue
        if (path := _find_module(name, _PACKAGE)) is not None:
            found[name] = path
            waiting += _read_source(path, path.stat().st_mtime_ns).imports
            waiting.append(name.rpartition(".")[0])  # importing a module runs the __init__ of its packages
    return found


class _Source(NamedTuple):
    """The hash of a module's code, and the modules it imports."""

    digest: str
    imports: frozenset[str]


@cache
def _read_source(path: Path, modified_ns: int) -> _Source:  # noqa: ARG001 - part of the cache key
    code = _RuntimeCode()
    tree = code.visit(ast.parse(path.read_bytes()))
    return _Source(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), frozenset(code.imports))


class _RuntimeCode(ast.NodeTransformer):
    """Strips docstrings and `if TYPE_CHECKING:` blocks, and collects the remaining imports."""

    def __init__(self) -> None:
        self.imports: set[str] = set()

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return [self.visit(statement) for statement in node.orelse]
        return self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> ast.AST:
        self.imports |= {alias.name for alias in node.names}
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        if node.module is not None:
            self.imports |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str) and _IMPORT_STRING.fullmatch(node.value):
            self.imports.add(node.value.partition(":")[0])
        return node


@cache
def _find_module(name: str, package: Path) -> Path | None:
    """Find the file of a module or of a package's `__init__`; None if it is neither, or foreign."""
    first, *parts = name.split(".")
    if first != _NAME:
        return None
    path = package.joinpath(*parts)
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if file.is_file():
            return file
    return None


def _list_modules(init: Path) -> list[str]:
    return [
        ".".join((_NAME, *file.relative_to(_PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for file in init.parent.rglob("*.py")
    ]


def _qualify(names: Iterable[str]) -> list[str]:
    return [f"{_NAME}.{name}" for name in names]


def fingerprint_weights(weights: str) -> str:
    """Identify `model.weights` by content: a file's hash, or the name of published weights."""
    path = Path(weights)
    return sha256_file(path) if path.is_file() else weights


def fingerprint_value(value: Any) -> str:
    """Hash a JSON-like value; the order of keys does not count."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
