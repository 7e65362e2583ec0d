"""Kernels also work where numba cannot write a cache."""

from __future__ import annotations

import pytest

from oncoshift.serving.stain.compiled import compiled, compiled_reordering


@pytest.mark.parametrize("compile_", [compiled, compiled_reordering])
def test_a_function_that_cannot_be_cached_is_compiled_all_the_same(compile_) -> None:  # type: ignore[no-untyped-def]
    names: dict[str, object] = {}
    exec("def double(x):\n    return 2 * x", names)  # noqa: S102 - numba finds no file to put a cache beside
    double = compile_(names["double"])
    assert double(21) == 42
    assert len(double.signatures) == 1
