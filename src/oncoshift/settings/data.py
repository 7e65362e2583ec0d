"""Sections about data: the phantom, and the stages `ingest`, `split` and `normalize`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from oncoshift.data.source.adapters.registry import ADAPTERS
from oncoshift.settings.base import Names, OneOf, Organ, Section, Share, StainVariant


class PhantomSettings(Section):
    """The made-up data set; read by `oncoshift phantom` alone, which writes it to `ingest.root`."""

    organs: Names[Organ] = Field(("lung", "colon", "breast", "kidney"), description="domains to make tiles of")
    tile_size: int = Field(64, ge=32, le=1024, description="side of a tile, pixels")
    groups_per_class: int = Field(20, ge=2, description="of each organ, benign and malignant")
    tiles_per_group: int = Field(8, ge=1, description="tiles that are never split")
    seed: int = Field(0, ge=0, description="of all that is random in it")


class IngestSettings(Section):
    """Stage `ingest`: which tiles there are, and which are unusable."""

    adapter: Annotated[str, OneOf(tuple(ADAPTERS))] = Field(
        "phantom", description="how the data set is laid out; see `oncoshift ingest --list`"
    )
    root: str = Field("data/raw", description="folder, .zip or .tar (`manifest`: also the CSV) as the adapter expects")
    include_squamous: bool = Field(False, description="lc25000, multi_cancer: take lung_scc, too")
    magnification: Literal[40, 100, 200, 400] = Field(200, description="breakhis: of the microscope")
    allow_ct: bool = Field(False, description="multi_cancer: take its kidney, which is abdominal CT")
    min_size: int = Field(32, ge=8, description="shorter side below which a tile is quarantined, pixels")
    min_tissue: Share = Field(0.05, description="share of tissue pixels below which a tile is blank")
    min_sharpness: float = Field(0.0025, ge=0.0, description="below it a tile is blurred; see data.validation.checks")
    min_saturation: float = Field(0.03, ge=0.0, description="of optical density; below it a tile is grey, so not H&E")
    min_stain_share: Share = Field(0.5, description="share of tissue with a hue of H&E below which a tile is not H&E")
    min_eosin_share: Share = Field(0.05, description="the same towards eosin: below it a tile is a blue picture")
    max_quarantine_share: Share = Field(0.02, description="of unusable files; duplicates do not count")
    join_near_duplicates: bool = Field(True, description="tiles that come from one original become one group")


class SplitSettings(Section):
    """Stage `split`: by group, stratified, seeded. Shares are shares of groups."""

    val_share: Share = Field(0.2, description="of each source organ's groups, for source validation")
    audit_share: Share = Field(0.2, description="of the target's labelled groups, for the gate alone")
    test_share: Share = Field(0.3, description="of the target's labelled groups, for the report alone")
    seed: int = Field(0, ge=0, description="of which group goes where")

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.audit_share + self.test_share > 0.8:
            raise ValueError("audit_share + test_share must leave at least 0.2 of the target's groups for training")
        return self


class NormalizeSettings(Section):
    """Stage `normalize`: decode, resize and stain-normalise every tile once, into packs."""

    variants: Names[StainVariant] = Field(("none", "reinhard"), description="stain normalisations, a pack each")
    tile_size: int = Field(64, ge=32, le=512, description="side of a packed tile, pixels")
    standardize_luminosity: bool = Field(True, description="first stretch L so that its 95th percentile is white")
    fit: Literal["tile", "group"] = Field("tile", description="one stain fit a tile, or one for the tiles of a group")
    precision: Literal["fast", "exact"] = Field("fast", description="exact: as staintools to 0.1 grey levels")
    backend: Literal["auto", "numba", "staintools"] = Field(
        "auto", description="auto: numba, on every machine; staintools: the original, up to 2,400 times slower"
    )
    shard_tiles: int = Field(2048, ge=1, description="tiles in a shard of a pack, at most")
    workers: int | None = Field(None, ge=1, description="processes; default: one a core")


class DataSections(Section):
    """Where tiles come from, and what is made of them."""

    phantom: PhantomSettings = PhantomSettings()
    ingest: IngestSettings = IngestSettings()
    split: SplitSettings = SplitSettings()
    normalize: NormalizeSettings = NormalizeSettings()
