"""The gallery as one HTML file: tile, attribution, both together, and nuclei, with the figures.

It needs no other file and no script, so that it opens in the sandboxed frame of MLflow's viewer.
"""

from __future__ import annotations

import base64
import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from PIL import Image
from scipy import ndimage

from oncoshift.data.names import escape_unprintable
from oncoshift.data.tables import LABELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from jinja2 import Template
    from numpy.typing import NDArray

    from oncoshift.explain.explanation import Explanation

_TEMPLATE = Path(__file__).with_name("page.html")
_COLOURS = colormaps["RdBu_r"]
_SHOWN = 256
"""Least side of a picture in the file, pixels; smaller tiles are enlarged."""
_SIGMA = 1 / 50
"""Standard deviation of the smoothing for the eye, as a share of the side."""
_LIMIT = 99.0
"""Percentile of |attribution| at the ends of a map's scale."""


class Table(NamedTuple):
    """A table of the page, of texts.

    Attributes:
        title: heading.
        header: names of the columns.
        rows: cells.
        note: how to read it.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str


def render_page(title: str, explanation: Explanation, nuclei: pd.DataFrame) -> str:
    """Render the gallery.

    Args:
        title: heading of the page.
        explanation: of the model.
        nuclei: of `nuclei.tabulate_nuclei`, this model beside others.
    """
    side = explanation.tiles.shape[1]
    return _load_template().render(
        title=title,
        lines=_describe(explanation),
        tables=[_format_nuclei(nuclei), *_format_checks(explanation)],
        colours=[_to_hex(share) for share in np.linspace(0, 1, 9)],
        tile_class="pixels" if side < _SHOWN / 2 else "",
        tiles=[_show_tile(explanation, number) for number in range(len(explanation.tiles))],
    )


def _describe(explanation: Explanation) -> list[str]:
    table = explanation.table
    converged, worst = int(table["converged"].sum()), table["relative_delta"].max()
    tiles, groups = len(table), table["group"].nunique()
    steps = f"{table['steps'].min()} to {table['steps'].max()} steps"
    return [
        f"Integrated Gradients of logit(malignant) − logit(benign), on {tiles} tiles of {groups} groups.",
        f"{converged} of {tiles} maps have converged, in {steps}; the largest completeness delta is {worst:.1%}.",
    ]


def _format_nuclei(nuclei: pd.DataFrame) -> Table:
    rows = [
        (
            f"{row['model']}, {row['class']}",
            str(row["tiles"]),
            str(row["groups"]),
            _percent(row["nuclei_share"]),
            _percent(row["nuclei_area"]),
            _number(row["enrichment"]) + _interval(row["low"], row["high"]),
        )
        for row in nuclei.to_dict("records")
    ]
    header = ("model, class", "tiles", "groups", "on nuclei", "area", "ratio")
    note = (
        "Share of attribution on nuclei, and of the area that they cover. A ratio of 1 is what chance gives. "
        "Intervals are 95 % bootstraps over groups."
    )
    return Table("Attribution on nuclei", header, rows, note)


def _format_checks(explanation: Explanation) -> list[Table]:
    figures, tables = explanation.as_dict(), []
    good = {"deletion": "low", "insertion": "high", "road": "low"}
    rows = [
        (name, _number(figures[name]), _number(figures[f"{name}_random_order"]), good[name])
        for name in explanation.random_order
    ]
    note = (
        "Mean probability of the called class while pixels are removed (deletion) or brought in (insertion), and the "
        "share of removals that the call survives (ROAD), in the order of the map."
    )
    tables.append(Table("Faithfulness", ("measure", "map", "random order", "good is"), rows, note))
    if explanation.checks is not None:
        baselines = [
            (
                row["baseline"],
                _number(row["agreement"]),
                _percent(row["nuclei_share"]),
                _percent(row["nuclei_area"]),
                _number(row["enrichment"]),
                _number(row["margin_change"]),
                _percent(row["converged"]),
            )
            for row in explanation.checks.baselines.to_dict("records")
        ]
        header = ("baseline", "agreement", "on nuclei", "area", "ratio", "change of the margin", "converged")
        note = (
            "Agreement: mean rank correlation with the maps shown, which are those of the first baseline. Maps of "
            f"randomised parameters agree by {_number(explanation.checks.randomisation_similarity)}; near 1, maps "
            "would show the tile and not the model."
        )
        tables.append(Table("Baselines and random parameters", header, baselines, note))
    return tables


def _show_tile(explanation: Explanation, number: int) -> dict[str, Any]:
    row: dict[Any, Any] = explanation.table.iloc[number].to_dict()
    tile, values, mask = (
        explanation.tiles[number],
        explanation.attributions.values[number],
        explanation.masks[number],
    )
    smooth = ndimage.gaussian_filter(values, sigma=_SIGMA * len(values))
    label = row.get("label", -1)
    convergence = f"{row['steps']} steps, delta {row['relative_delta']:.1%}"
    return {
        "name": f"#{number} {row['tile_id']} · group {row['group']}",
        "probability": f"{row['probability']:.3f}",
        "percent": f"{100 * row['probability']:.1f}",
        "called": LABELS[row["called"]],
        "label": LABELS[label] if label >= 0 else "",
        "nuclei": f"nuclei: {_percent(row['nuclei_share'])} of attribution, {_percent(row['nuclei_area'])} of area",
        "converged": bool(row["converged"]),
        "convergence": convergence if row["converged"] else f"not converged: {convergence}",
        "mask": "as drawn" if row["mask"] == "true" else "by haematoxylin",
        "image": _encode(tile, "JPEG"),
        "smooth": _encode(_enlarge(_colour(smooth)), "JPEG"),
        "raw": _encode(_colour(values), "PNG"),
        "overlay": _encode(_overlay(tile, smooth, mask), "JPEG"),
        "nuclei_image": _encode(_outline(_enlarge(tile), mask), "JPEG"),
    }


def _scale(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale a map to [-1, 1]; a map of zeros stays one."""
    limit = np.percentile(np.abs(values), _LIMIT)
    return np.clip(values / (limit or 1.0), -1, 1)


def _colour(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    coloured: NDArray[np.uint8] = _COLOURS((_scale(values) + 1) / 2, bytes=True)[..., :3]
    return coloured


def _overlay(tile: NDArray[np.uint8], smooth: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Lay attribution over the pale grey tile, and outline the nuclei."""
    grey = 255 * 0.35 + 0.65 * tile.mean(axis=2, keepdims=True)
    opacity = np.abs(_scale(smooth))[..., None] * 0.85
    blended = grey * (1 - opacity) + _colour(smooth) * opacity
    return _outline(_enlarge(blended.astype(np.uint8)), mask)


def _enlarge(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Enlarge a small picture to `_SHOWN` pixels or more."""
    factor = -(-_SHOWN // len(picture)) if len(picture) < _SHOWN / 2 else 1
    side = factor * len(picture)
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))


def _outline(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draw the outlines of nuclei, one pixel wide, into an enlarged picture."""
    large = np.kron(mask, np.ones((len(picture) // len(mask),) * 2, dtype=np.bool_))
    drawn = picture.copy()
    drawn[large & ~ndimage.binary_erosion(large, border_value=1)] = 0
    return drawn


def _encode(picture: NDArray[np.uint8], kind: str) -> str:
    buffer = io.BytesIO()
    options = {"quality": 88, "subsampling": 0} if kind == "JPEG" else {"optimize": True}
    Image.fromarray(picture).save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _to_hex(share: float) -> str:
    red, green, blue, _ = _COLOURS(share, bytes=True)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _percent(value: float) -> str:
    return f"{value:.0%}" if np.isfinite(value) else "–"


def _number(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.2f}"


def _interval(low: float, high: float) -> str:
    return f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) else ""


@cache
def _load_template() -> Template:
    # Here and not above, for the programs that render no page.
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, finalize=lambda value: escape_unprintable(str(value)))
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
