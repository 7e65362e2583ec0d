"""Sections about data: the phantom, and the stages `ingest`, `split` and `normalize`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from oncoshift.data.source.adapters.registry import ADAPTERS
from oncoshift.settings.base import Names, OneOf, Organ, Section, Share, StainVariant


class PhantomSettings(Section):
    """The synthetic data set that `oncoshift phantom` writes to `ingest.root`."""

    organs: Names[Organ] = Field(
        ("lung", "colon", "breast", "kidney"), description="organs to draw tiles of; each is a domain"
    )
    tile_size: int = Field(64, ge=32, le=1024, description="side of a tile in pixels")
    groups_per_class: int = Field(20, ge=2, description="groups of each organ and class (benign, malignant)")
    tiles_per_group: int = Field(8, ge=1, description="tiles in a group; a group is never split")
    seed: int = Field(0, ge=0, description="seed of all its random numbers")


class IngestSettings(Section):
    """Stage `ingest`: list the tiles, and quarantine those that are unusable."""

    adapter: Annotated[str, OneOf(tuple(ADAPTERS))] = Field(
        "phantom", description="layout of the data set; see `oncoshift ingest --list`"
    )
    root: str = Field("data/raw", description="folder, .zip or .tar of the data set (for `manifest` also a CSV file)")
    include_squamous: bool = Field(False, description="lc25000, multi_cancer: whether to include lung_scc")
    magnification: Literal[40, 100, 200, 400] = Field(200, description="breakhis: magnification of the microscope")
    allow_ct: bool = Field(
        False, description="multi_cancer: whether to include its kidney images, which are abdominal CT"
    )
    min_size: int = Field(
        32, ge=8, description="least length of a tile's shorter side in pixels; smaller ones are quarantined"
    )
    min_tissue: Share = Field(0.05, description="least share of tissue pixels; with less a tile is blank")
    min_sharpness: float = Field(
        0.0025, ge=0.0, description="least sharpness; below it a tile is blurred (see serving.tissue)"
    )
    min_saturation: float = Field(
        0.03, ge=0.0, description="least saturation of optical density; below it a tile is grey, so not H&E"
    )
    min_stain_share: Share = Field(0.5, description="least share of tissue with a hue of H&E")
    min_eosin_share: Share = Field(
        0.05, description="least share of tissue with a hue towards eosin; with less a tile is a blue picture"
    )
    max_quarantine_share: Share = Field(0.02, description="largest share of unusable files; duplicates do not count")
    join_near_duplicates: bool = Field(
        True, description="whether tiles that come from one original are joined into one group"
    )


class SplitSettings(Section):
    """Stage `split`: a stratified, seeded split by group; shares are shares of groups."""

    val_share: Share = Field(0.2, description="share of each source organ's groups, for source validation")
    audit_share: Share = Field(0.2, description="share of the target's labelled groups, for the gate alone")
    test_share: Share = Field(0.3, description="share of the target's labelled groups, for the report alone")
    by: Literal["group", "tile"] = Field(
        "group", description="tile: as if each tile were a group; for `oncoshift paper`, which shows what that hides"
    )
    seed: int = Field(0, ge=0, description="seed of the random split")

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.audit_share + self.test_share > 0.8:
            raise ValueError("audit_share + test_share must leave at least 0.2 of the target's groups for training")
        return self


class NormalizeSettings(Section):
    """Stage `normalize`: decode, resize and stain-normalise every tile once, into packs."""

    variants: Names[StainVariant] = Field(
        ("none", "reinhard"), description="stain normalisations; each gets a pack of its own"
    )
    tile_size: int = Field(64, ge=32, le=512, description="side of a packed tile in pixels")
    standardize_luminosity: bool = Field(
        True, description="whether to stretch L first so that its 95th percentile is white"
    )
    fit: Literal["tile", "group"] = Field(
        "tile", description="whether stains are fitted to each tile, or to all tiles of a group together"
    )
    precision: Literal["fast", "exact"] = Field(
        "fast", description="exact: the values of staintools to within 0.1 grey levels"
    )
    backend: Literal["auto", "numba", "staintools"] = Field(
        "auto", description="auto: numba, on every machine; staintools: the original, up to 2,400 times slower"
    )
    shard_tiles: int = Field(2048, ge=1, description="largest number of tiles in a shard of a pack")
    workers: int | None = Field(None, ge=1, description="number of processes; null: one per core")


class DataSections(Section):
    """The sections about data."""

    phantom: PhantomSettings = PhantomSettings()
    ingest: IngestSettings = IngestSettings()
    split: SplitSettings = SplitSettings()
    normalize: NormalizeSettings = NormalizeSettings()
