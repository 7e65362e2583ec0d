"""Compilation of the kernels by numba, without the interpreter's lock and cached if possible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable

Function = TypeVar("Function", bound="Callable[..., Any]")

HARMLESS = {"contract", "nnan", "nsz", "arcp"}
"""Fast-math flags that keep the order of sums, so that the vector width changes no result."""


def compiled(function: Function) -> Function:
    """Compile a function of arrays and numbers on its first call."""
    return _compile(function, HARMLESS)


def compiled_strictly(function: Function) -> Function:
    """Compile a function that rounds every step as NumPy does."""
    return _compile(function, set())


def compiled_reordering(function: Function) -> Function:
    """Compile a function that may add in any order; for sums whose last bits do not matter."""
    return _compile(function, {*HARMLESS, "reassoc"})


def _compile(function: Function, fastmath: set[str]) -> Function:
    try:
        return cast("Function", njit(nogil=True, cache=True, fastmath=fastmath, error_model="numpy")(function))
    except RuntimeError:  # no cache can be written, neither beside this file nor in the user's cache folder
        return cast("Function", njit(nogil=True, fastmath=fastmath, error_model="numpy")(function))
