"""The report on a data set, as Markdown and self-contained HTML, with sheets and histograms."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from oncoshift.data.validation.document import (
    Block,
    Heading,
    Items,
    Paragraph,
    Picture,
    Table,
    to_html,
    to_markdown,
)
from oncoshift.data.validation.quarantine import LeftOut, replacing_folder
from oncoshift.data.validation.sheets import MAX_TILES, Thumbnail, draw_sheet
from oncoshift.data.validation.stains import DENSITIES, draw_stain_histograms, stain_strengths
from oncoshift.serving.tissue import Measurements

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.figure import Figure

    from oncoshift.data.source.passed_over import PassedOver
    from oncoshift.settings import IngestSettings

MEASURES = tuple(field.name for field in fields(Measurements))

_LIMITED = {
    "tissue": "min_tissue",
    "sharpness": "min_sharpness",
    "saturation": "min_saturation",
    "stain_share": "min_stain_share",
    "eosin_share": "min_eosin_share",
}
"""Measures that have a lower limit in section `ingest`."""

_EXAMPLES = 20
_DPI = 100


@dataclass(frozen=True)
class Findings:
    """The content of the report.

    Attributes:
        settings: the limits.
        made_up: whether the data set is a phantom.
        tiles: sound tiles: tile_id, organ, label, label_name, group, sha256 and the columns
            `MEASURES`.
        files: tile_id → file of a sound tile.
        left_out: the other tiles.
        passed_over: files that are no tiles.
        joined: group → name of the joined group that it is part of.
        colour: organ → AUROC of colour alone.
        warnings: one line each.
    """

    settings: IngestSettings
    made_up: bool
    tiles: pd.DataFrame
    files: Mapping[str, Path]
    left_out: Sequence[LeftOut]
    passed_over: PassedOver
    joined: Mapping[str, str]
    colour: Mapping[str, float | None]
    warnings: Sequence[str]


def write_report(folder: Path, findings: Findings) -> None:
    """Write the report to `folder`, replacing it; the same findings give the same bytes.

    Tiles are opened again, one at a time, for the contact sheets.
    """
    blocks = [
        *_write_summary(findings),
        *_write_counts(findings),
        *_write_left_out(findings),
        *_write_passed_over(findings.passed_over),
    ]
    blocks += [*_write_stains(findings), *_write_margins(findings), *_write_sheets(findings)]
    with replacing_folder(folder) as fresh:
        for block in blocks:
            if isinstance(block, Picture):
                block.image.save(fresh / block.name, "PNG")
        (fresh / "report.md").write_text(to_markdown(blocks), encoding="utf-8")
        (fresh / "report.html").write_text(to_html(blocks), encoding="utf-8")


def _write_summary(findings: Findings) -> list[Block]:
    bad = sum(one.is_bad for one in findings.left_out)
    duplicates = len(findings.left_out) - bad
    total = len(findings.tiles) + len(findings.left_out)
    made_up = " of made-up data, which say nothing about tissue" if findings.made_up else ""
    blocks: list[Block] = [
        Heading("Data set", 1),
        Paragraph(
            f"{total:,} tiles{made_up}: {len(findings.tiles):,} sound, {bad:,} quarantined ({bad / max(total, 1):.1%}; "
            f"{findings.settings.max_quarantine_share:.1%} allowed), {duplicates:,} byte-identical copies dropped."
        ),
        Heading("Warnings"),
        Items(tuple(findings.warnings)) if findings.warnings else Paragraph("None."),
    ]
    if findings.joined:
        names: dict[str, list[str]] = {}
        for name, whole in findings.joined.items():
            names.setdefault(whole, []).append(name)
        lines = [f"{', '.join(members)} → {whole}" for whole, members in sorted(names.items())]
        more = [f"… and {len(lines) - _EXAMPLES} more"] if len(lines) > _EXAMPLES else []
        blocks += [
            Heading("Groups joined"),
            Paragraph(
                "Tiles of these groups come from one original, so the groups are one; see near_duplicates.parquet."
            ),
            Items((*lines[:_EXAMPLES], *more)),
        ]
    return blocks


def _write_counts(findings: Findings) -> list[Block]:
    left_out = Counter((one.inspected.tile.organ, one.label, one.fault.kind) for one in findings.left_out)
    kinds = sorted({kind for _, _, kind in left_out})
    sound = {(str(organ), str(label)): part for (organ, label), part in findings.tiles.groupby(["organ", "label_name"])}
    rows = []
    for organ, label in sorted({*sound, *((organ, label) for organ, label, _ in left_out)}):
        part = sound.get((organ, label))
        tiles, groups = (len(part), part["group"].nunique()) if part is not None else (0, 0)
        out = tuple(f"{left_out[organ, label, kind]:,}" for kind in kinds)
        rows.append((organ, label, f"{tiles:,}", f"{groups:,}", *out))
    return [Heading("Tiles and groups"), Table(("organ", "label", "tiles", "groups", *kinds), tuple(rows))]


def _write_left_out(findings: Findings) -> list[Block]:
    if not findings.left_out:
        return []
    shown = sorted(findings.left_out, key=lambda one: not one.is_bad)[:_EXAMPLES]
    rows = tuple((one.inspected.tile.tile_id, one.fault.kind, one.fault.reason) for one in shown)
    blocks: list[Block] = [Heading("Left out"), Table(("tile", "kind", "reason"), rows)]
    if len(findings.left_out) > _EXAMPLES:
        blocks.append(Paragraph(f"{_EXAMPLES} of {len(findings.left_out):,}; quarantine.csv has all."))
    pictures = [
        Thumbnail(one.inspected.tile.path, one.inspected.sha256 or "", one.fault.kind)
        for one in findings.left_out
        if one.inspected.measured is not None and one.fault.kind not in ("duplicate", "named_twice")
    ]
    if pictures:
        title = f"quarantined: {min(len(pictures), MAX_TILES)} of {len(pictures):,} that can be opened"
        blocks.append(Picture("sheet-quarantine.png", title, draw_sheet(title, pictures)))
    return blocks


def _write_passed_over(passed_over: PassedOver) -> list[Block]:
    if not passed_over.counts:
        return []
    kinds = sorted(passed_over.counts)[:_EXAMPLES]
    rows = tuple((kind, f"{passed_over.counts[kind]:,}", passed_over.first[kind]) for kind in kinds)
    more = len(passed_over.counts) - _EXAMPLES
    return [
        Heading("Passed over"),
        Paragraph(
            "Files that are not tiles by name or place, without hidden ones."
            + (f" {more} more kinds of them are in report.json." if more > 0 else "")
        ),
        Table(("suffix", "files", "for example"), rows),
    ]


def _write_stains(findings: Findings) -> list[Block]:
    if findings.tiles.empty:
        return []
    rows = []
    for organ, part in findings.tiles.groupby("organ", sort=True):
        strengths = np.median(stain_strengths(part[list(DENSITIES)].to_numpy(np.float64)), axis=0)
        score = findings.colour.get(str(organ))
        figures = (f"{part['hue'].median():.0f}°", *(f"{value:.2f}" for value in strengths[:2]))
        rows.append((str(organ), *figures, "–" if score is None else f"{score:.2f}"))
    header = ("organ", "median hue", "median haematoxylin", "median eosin", "AUROC of colour alone")
    return [
        Heading("Stains"),
        Paragraph(
            "Mean optical density of each tile's tissue, deconvolved after Ruifrok and Johnston (2001). The last "
            "column is how well the three mean densities alone predict the label on held-out groups. It includes a "
            "target's labelled tiles: choose no setting by a target's value."
        ),
        Table(header, tuple(rows)),
        Picture(
            "stains.png",
            "Histograms of hue, haematoxylin and eosin by organ",
            _rasterise(draw_stain_histograms(findings.tiles)),
        ),
    ]


def _write_margins(findings: Findings) -> list[Block]:
    """Tabulate how close the sound tiles come to the limits, as a help for setting them."""
    if findings.tiles.empty:
        return []
    rows = []
    for measure, setting in _LIMITED.items():
        values = findings.tiles[measure].to_numpy(np.float64)
        quantiles = np.quantile(values, (0, 0.01, 0.5, 1))
        limit = float(getattr(findings.settings, setting))
        rows.append((measure, f"{limit:g} (ingest.{setting})", *(f"{value:.4g}" for value in quantiles)))
    header = ("measure", "lower limit", "least", "1 %", "median", "greatest")
    return [Heading("Sound tiles and the limits"), Table(header, tuple(rows))]


def _write_sheets(findings: Findings) -> list[Block]:
    blocks: list[Block] = []
    for (organ, label), part in findings.tiles.groupby(["organ", "label_name"], sort=True):
        title = f"{organ}, {label}: {min(len(part), MAX_TILES)} of {len(part):,} tiles, by content hash"
        pictures = [
            Thumbnail(findings.files[row["tile_id"]], row["sha256"], row["group"])
            for row in part[["tile_id", "sha256", "group"]].to_dict("records")
        ]
        blocks.append(Picture(f"sheet-{organ}-{label}.png", title, draw_sheet(title, pictures)))
    return [Heading("Contact sheets"), Paragraph("Below each tile stands its group."), *blocks] if blocks else []


def _rasterise(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    with Image.open(buffer) as image:
        return image.convert("RGB")
