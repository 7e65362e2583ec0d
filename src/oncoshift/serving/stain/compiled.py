"""How the kernels are compiled: without the interpreter's lock, cached on disk where a folder can be written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable

Function = TypeVar("Function", bound="Callable[..., Any]")

HARMLESS = {"contract", "nnan", "nsz", "arcp"}
"""Liberties that never change the order of a sum, so that a result does not depend on the width of the vectors."""


def compiled(function: Function) -> Function:
    """Compile a function of arrays and numbers on its first call."""
    return _compile(function, HARMLESS)


def compiled_strictly(function: Function) -> Function:
    """The same, rounding every step as NumPy does."""
    return _compile(function, set())


def compiled_reordering(function: Function) -> Function:
    """The same, free to add in any order; for sums that do not need their last bits."""
    return _compile(function, {*HARMLESS, "reassoc"})


def _compile(function: Function, fastmath: set[str]) -> Function:
    try:
        return cast("Function", njit(nogil=True, cache=True, fastmath=fastmath, error_model="numpy")(function))
    except RuntimeError:  # neither beside this file nor in the user's cache may anything be written
        return cast("Function", njit(nogil=True, fastmath=fastmath, error_model="numpy")(function))
