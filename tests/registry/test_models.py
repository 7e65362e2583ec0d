"""All registered models are listed, however many there are."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

from mlflow.store.entities import PagedList

from oncoshift.registry.models import OURS, list_models


def test_every_page_is_read() -> None:
    pages = {None: PagedList(["a", "b"], "next"), "next": PagedList(["c"], "")}

    def search(chosen: str | None, page_token: str | None) -> Any:
        assert chosen == OURS
        return pages[page_token]

    assert list(list_models(Mock(search_registered_models=search))) == ["a", "b", "c"]
