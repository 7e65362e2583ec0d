"""How data sets are laid out: one file an adapter, by its name in `ingest.adapter`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.data.adapters.folder import FolderAdapter
from oncoshift.data.adapters.manifest import ManifestAdapter
from oncoshift.data.adapters.phantom import PhantomAdapter

if TYPE_CHECKING:
    from oncoshift.data.adapters.base import Adapter

ADAPTERS: dict[str, Adapter] = {
    "folder": FolderAdapter(),
    "manifest": ManifestAdapter(),
    "phantom": PhantomAdapter(),
}
