"""The registry of adapters: one row each, by its name in `ingest.adapter`.

A new adapter is a file in this package and a row here. Rows name classes by import string, because
settings read this table and must not load the adapters' dependencies.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from oncoshift.data.source.adapters.base import Adapter


class AdapterRow(NamedTuple):
    """An adapter.

    Attributes:
        made_by: its class, as `module:class`; it satisfies
            `oncoshift.data.source.adapters.base.Adapter`.
        reads_tables: whether CSV and HDF5 files are part of the data set.
        takes_file: whether `ingest.root` may be a file other than an archive.
    """

    made_by: str
    reads_tables: bool = False
    takes_file: bool = False


ADAPTERS: dict[str, AdapterRow] = {
    "breakhis": AdapterRow("oncoshift.data.source.adapters.breakhis:BreakhisAdapter"),
    "camelyon17_wilds": AdapterRow(
        "oncoshift.data.source.adapters.camelyon17_wilds:Camelyon17WildsAdapter", reads_tables=True
    ),
    "folder": AdapterRow("oncoshift.data.source.adapters.folder:FolderAdapter"),
    "lc25000": AdapterRow("oncoshift.data.source.adapters.lc25000:Lc25000Adapter"),
    "manifest": AdapterRow(
        "oncoshift.data.source.adapters.manifest:ManifestAdapter", reads_tables=True, takes_file=True
    ),
    "multi_cancer": AdapterRow("oncoshift.data.source.adapters.multi_cancer:MultiCancerAdapter"),
    "nct_crc": AdapterRow("oncoshift.data.source.adapters.nct_crc:NctCrcAdapter"),
    "patchcamelyon": AdapterRow("oncoshift.data.source.adapters.patchcamelyon:PatchCamelyonAdapter", reads_tables=True),
    "phantom": AdapterRow("oncoshift.data.source.adapters.phantom:PhantomAdapter"),
}


def load_adapter(name: str) -> Adapter:
    """Load the adapter of a name in `ADAPTERS`."""
    adapter: Adapter = resolve_name(ADAPTERS[name].made_by)()
    return adapter
