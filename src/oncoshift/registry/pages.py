"""MLflow's searches answer page by page; here all pages are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlflow.store.entities import PagedList

T = TypeVar("T")


def read_pages(search: Callable[[str | None], PagedList[T]]) -> Iterator[T]:
    """Yield what a search finds on all its pages.

    Args:
        search: returns the page of a token; None asks for the first.
    """
    token: str | None = None
    while True:
        page = search(token)
        yield from page
        if not (token := page.token):
            return
