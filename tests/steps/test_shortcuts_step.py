"""`oncoshift shortcuts` measures the labelled tiles of an experiment, and the target's if asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest
from support.tiny_settings import TINY
from support.tiny_tiles import write_tree

from oncoshift.anchors.measures import measure_group
from oncoshift.cli import main
from oncoshift.data.ingest import ingest
from oncoshift.data.normalize import run_normalize
from oncoshift.data.split import run_split
from oncoshift.layout import Layout
from oncoshift.settings import dump_settings, parse_settings

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The data stages of an experiment on tiny tiles."""
    layout = Layout(tmp_path_factory.mktemp("experiment"))
    raw = write_tree(layout.folder / "raw", groups=6)
    settings = parse_settings({**TINY, "ingest": {"adapter": "folder", "root": str(raw)}})
    layout.params.write_text(dump_settings(settings), encoding="utf-8")
    ingest(settings.ingest, raw, layout.tiles, base=layout.folder)
    run_split(settings.split, settings.target, settings.sources, layout)
    run_normalize(settings.normalize, layout)
    return layout


@pytest.mark.parametrize(
    ("options", "organs"), [([], {"lung", "colon"}), (["--with-target"], {"lung", "colon", "kidney"})]
)
def test_a_table_and_a_picture_of_the_labelled_organs(
    experiment: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], organs: set[str]
) -> None:
    out = tmp_path / "out"
    assert main(["shortcuts", "--params", str(experiment.params), "--out", str(out), *options]) == 0
    printed = capsys.readouterr().out
    table = pd.read_csv(out / "shortcuts.csv")
    assert set(table["organ"]) == organs
    assert table.groupby("organ")["tiles"].first().to_dict()["lung"] == 24, "training and validation"
    assert table["auroc"].between(0, 1).all()
    assert (out / "shortcuts.png").stat().st_size > 10_000
    assert (out / "shortcuts.md").read_text(encoding="utf-8").strip() in printed
    assert "flip between organs: " in printed


def test_an_organ_is_measured_once(experiment: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["shortcuts", "--params", str(experiment.params), "--out"]
    assert main([*command, str(tmp_path / "first")]) == 0
    measured: list[int] = []

    def measure(tiles: NDArray[np.uint8]) -> pd.DataFrame:
        measured.append(len(tiles))
        return measure_group(tiles)

    monkeypatch.setattr("oncoshift.anchors.kept.measure_group", measure)
    kept = set((experiment.folder / "runs" / "anchors").glob("*.npy"))
    assert main([*command, str(tmp_path / "again")]) == 0
    assert measured == []
    assert set((experiment.folder / "runs" / "anchors").glob("*.npy")) == kept
    first, again = ((tmp_path / name / "shortcuts.csv").read_bytes() for name in ("first", "again"))
    assert first == again
