"""Scoring into Parquet gives each tile one row, also after SIGKILL, and refuses other outputs."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from PIL import Image
from support.tiny_tiles import tissue

from oncoshift.errors import DataError
from oncoshift.registry.loading import ModelIdentity
from oncoshift.registry.store import open_client
from oncoshift.scoring import run
from oncoshift.scoring.inputs import TileInput
from oncoshift.scoring.output import MANIFEST, SCHEMA, Totals, open_scores
from oncoshift.scoring.record import compute_metrics, record_scores
from oncoshift.scoring.run import score_tiles

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = ModelIdentity("oncoshift-kidney", "3", "a" * 64)


def predict(images: pd.DataFrame) -> pd.DataFrame:
    """Answer as a model would: large files are malignant."""
    sizes = images["image"].map(len)
    return pd.DataFrame(
        {
            "label": ["malignant" if size % 2 else "benign" for size in sizes],
            "probability": sizes % 100 / 100,
            "shift": sizes % 100 * 1.0,
            "abstain": [None if size % 2 else "far from the training organs" for size in sizes],
            "error": None,
        }
    )


def score(source: Path, out: Path, model: ModelIdentity = MODEL) -> tuple[int, Totals]:
    with open_scores(out, model, source) as scores:
        return score_tiles(predict, TileInput(source), scores, lambda _done, _total: None), scores.sum_up()


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(tissue(seed)).save(buffer, "PNG")
    return buffer.getvalue()


def make_folder(root: Path) -> Path:
    for number in range(7):
        (root / "tiles" / "lung").mkdir(parents=True, exist_ok=True)
        (root / "tiles" / "lung" / f"{number}.png").write_bytes(png(number))
    (root / "tiles" / "notes.txt").write_text("no tile")
    return root / "tiles"


def make_table(root: Path) -> Path:
    make_folder(root)
    rows = "".join(f"lung/{number}.png,g{number // 2}\n" for number in range(7))
    (root / "tiles" / "list.csv").write_text(f"path,group\n{rows}")
    return root / "tiles" / "list.csv"


def make_zip(root: Path) -> Path:
    with zipfile.ZipFile(root / "tiles.zip", "w") as file:
        for number in range(7):
            file.writestr(f"lung/{number}.png", png(number))
        file.writestr("notes.txt", "no tile")
    return root / "tiles.zip"


def make_tar(root: Path) -> Path:
    with tarfile.open(root / "tiles.tar.gz", "w:gz") as file:
        file.add(make_folder(root), ".")
    return root / "tiles.tar.gz"


@pytest.mark.parametrize("make", [make_folder, make_table, make_zip, make_tar])
def test_every_kind_of_input_gives_each_tile_its_row(
    tmp_path: Path, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "BATCH_TILES", 2)
    monkeypatch.setattr(run, "PART_TILES", 4)
    source, out = make(tmp_path), tmp_path / "scores.parquet"
    assert score(source, out)[0] == 7
    found = pd.read_parquet(out)
    assert list(found) == SCHEMA.names
    assert found["tile"].tolist() == [f"lung/{number}.png" for number in range(7)]
    assert found["probability"].tolist() == [len(png(number)) % 100 / 100 for number in range(7)]
    assert set(found["version"]) == {"3"}
    assert set(found["digest"]) == {MODEL.digest}
    assert found["group"].notna().all() == (make is make_table)
    assert len(list(out.glob("part-*.parquet"))) == 2
    assert score(source, out)[0] == 0


def test_new_tiles_are_added_to_earlier_ones(tmp_path: Path) -> None:
    source, out = make_folder(tmp_path), tmp_path / "scores.parquet"
    score(source, out)
    (source / "new.png").write_bytes(png(9))
    scored, totals = score(source, out)
    assert (scored, totals.tiles) == (1, 8)


def test_a_tile_that_cannot_be_read_has_a_row_with_the_reason(tmp_path: Path) -> None:
    source, out = make_folder(tmp_path), tmp_path / "scores.parquet"
    (source / "gone.png").symlink_to("nowhere")
    assert score(source, out)[1].errors == 1
    row = pd.read_parquet(out).set_index("tile").loc["gone.png"]
    assert row["error"].startswith("cannot read the file")
    assert pd.isna(row["label"])


def test_a_damaged_member_of_a_zip_has_a_row_with_the_reason(tmp_path: Path) -> None:
    source = make_zip(tmp_path)
    with zipfile.ZipFile(source) as file:
        start = file.getinfo("lung/3.png").header_offset
    data = bytearray(source.read_bytes())
    data[start + 100] ^= 1
    source.write_bytes(data)
    score(source, tmp_path / "scores.parquet")
    found = pd.read_parquet(tmp_path / "scores.parquet").set_index("tile")
    assert found["error"].notna().tolist() == [False, False, False, True, False, False, False]
    assert str(found.loc["lung/3.png", "error"]).startswith("damaged in the archive")


SLOW = """
import sys, time
from pathlib import Path
from test_scoring_run import MODEL, open_scores, predict, run, score_tiles, TileInput
run.BATCH_TILES, run.PART_TILES = 2, 4
def slow(images):
    time.sleep(0.05)
    return predict(images)
source, out = map(Path, sys.argv[1:])
with open_scores(out, MODEL, source) as scores:
    score_tiles(slow, TileInput(source), scores, lambda done, total: None)
"""


def test_no_tile_is_lost_or_doubled_by_sigkill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PART_TILES", 4)
    source, out = tmp_path / "tiles.zip", tmp_path / "scores.parquet"
    with zipfile.ZipFile(source, "w") as file:
        for number in range(400):
            file.writestr(f"{number}.png", b"%d" % number)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    for parts in (3, 9):
        command = [sys.executable, "-c", SLOW, str(source), str(out)]
        with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) as process:
            while len(list(out.glob("part-*.parquet"))) < parts:
                assert process.poll() is None, "it ended before it could be killed"
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
    (out / ".part-000099.parquet.1.tmp").write_bytes(b"what a killed process left")
    scored, totals = score(source, out)
    assert 0 < scored < 400 - 9 * 4 + 1
    assert totals.tiles == 400
    assert pd.read_parquet(out)["tile"].tolist() == [f"{number}.png" for number in range(400)]
    assert not list(out.glob(".*.tmp"))


def test_scores_of_another_model_or_input_are_left_alone(tmp_path: Path) -> None:
    source, out = make_folder(tmp_path), tmp_path / "scores.parquet"
    score(source, out)
    with pytest.raises(DataError, match=r"holds scores of oncoshift-kidney version 3 .*, not of .* version 4"):
        score(source, out, ModelIdentity("oncoshift-kidney", "4", "b" * 64))
    with pytest.raises(DataError, match=r"holds scores of .*tiles, not of .*lung; give another --out"):
        score(source / "lung", out)
    assert len(pd.read_parquet(out)) == 7


def test_a_folder_or_file_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    source = make_folder(tmp_path)
    with pytest.raises(DataError, match=r"holds lung and no scores"):
        score(source, source)
    (tmp_path / "scores.parquet").write_text("an older table")
    with pytest.raises(DataError, match="is a file"):
        score(source, tmp_path / "scores.parquet")
    assert (tmp_path / "scores.parquet").read_text() == "an older table"


def test_a_damaged_part_or_manifest_is_named(tmp_path: Path) -> None:
    source, out = make_folder(tmp_path), tmp_path / "scores.parquet"
    score(source, out)
    part = out / "part-000000.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"part-000000.parquet: damaged .*; remove it"):
        score(source, out)
    part.write_bytes(whole)
    (out / "part-000001.parquet").write_bytes(whole)
    with pytest.raises(DataError, match=r"part-000001.parquet: repeats tiles"):
        score(source, out)
    (out / MANIFEST).write_text("{}")
    with pytest.raises(DataError, match=r"_scores.json: damaged"):
        score(source, out)


def test_two_processes_do_not_write_to_one_output(tmp_path: Path) -> None:
    source, out = make_folder(tmp_path), tmp_path / "scores.parquet"
    with open_scores(out, MODEL, source), pytest.raises(DataError, match="another process is writing scores"):
        score(source, out)


def test_a_full_disk_is_an_error_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = make_folder(tmp_path), tmp_path / "scores.parquet"

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pyarrow.parquet.write_table", refuse)
    with pytest.raises(DataError, match=r"scores.parquet: the disk is full.*make room, and run it again"):
        score(source, out)
    assert not list(out.glob("*part*"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing", None, "no such folder or file"),
        ("tiles.txt", "a", r"name a folder of tiles, or a file that ends with one of \.csv, \.zip"),
        ("tiles.csv", "path\n", "no tiles in it"),
        ("tiles.csv", "file\na.png\n", "lacks the columns path"),
        ("tiles.csv", "path,group\n,g\n", "line 2, column path: is empty"),
        ("tiles.csv", "path\na.png\na.png\n", r"a\.png is in it twice"),
        ("tiles.zip", "no zip", "damaged, or not what its name says"),
        ("tiles.tar", "no tar", "damaged, or not what its name says"),
    ],
)
def test_an_input_that_cannot_be_read_is_an_error(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        score(tmp_path / name, tmp_path / "scores.parquet")


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tiles").mkdir()
    with pytest.raises(DataError, match="no tiles in it"):
        score(tmp_path / "tiles", tmp_path / "scores.parquet")


def test_a_model_of_an_earlier_version_leaves_columns_empty(tmp_path: Path) -> None:
    source, out = make_folder(tmp_path), tmp_path / "scores.parquet"
    with open_scores(out, MODEL, source) as scores:
        old = ["label", "probability", "error"]
        score_tiles(lambda images: predict(images)[old], TileInput(source), scores, lambda _done, _total: None)
        assert scores.sum_up().shift_median is None
    assert pd.read_parquet(out)["shift"].isna().all()


def test_metrics_are_shares_of_what_was_labelled_and_of_all() -> None:
    metrics = compute_metrics(Totals(20, malignant=4, benign=12, abstained=5, errors=4, shift_median=40, shift_high=90))
    assert metrics == {
        "scored/tiles": 20, "scored/abstain_share": 0.25, "scored/error_share": 0.2, "scored/malignant_share": 0.25,
        "scored/benign_share": 0.75, "scored/shift_median": 40, "scored/shift_p90": 90,
    }  # fmt: skip
    nothing = compute_metrics(Totals(0, 0, 0, 0, 0, None, None))
    assert nothing == {"scored/tiles": 0, "scored/abstain_share": 0, "scored/error_share": 0}


def test_the_totals_are_one_run_of_an_experiment_of_their_own(tmp_path: Path) -> None:
    source, out, uri = make_folder(tmp_path), tmp_path / "scores.parquet", f"sqlite:///{tmp_path}/mlflow.db"
    for name in ("first.png", "second.png"):
        (source / name).write_bytes(png(9))
        with open_scores(out, MODEL, source) as scores:
            score_tiles(predict, TileInput(source), scores, lambda _done, _total: None)
            run_id = record_scores(uri, "oncoshift", scores, source, scores.sum_up())
    client = open_client(uri)
    (experiment,) = client.search_experiments(filter_string="name = 'oncoshift scores'")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_id, found.info.status) == (run_id, "FINISHED")
    assert found.info.run_name == "oncoshift-kidney version 3 · tiles"
    assert [metric.value for metric in client.get_metric_history(run_id, "scored/tiles")] == [8, 9]


def test_the_scale_of_a_csv_reaches_the_model(tmp_path: Path) -> None:
    source, out = make_folder(tmp_path) / "list.csv", tmp_path / "scores.parquet"
    source.write_text("path,um_per_pixel\nlung/0.png,0.5\nlung/1.png,\n")

    def scaled(images: pd.DataFrame) -> pd.DataFrame:
        return predict(images).assign(scale=images["um_per_pixel"].map(str))

    with open_scores(out, MODEL, source) as scores:
        score_tiles(scaled, TileInput(source), scores, lambda _done, _total: None)
    assert pd.read_parquet(out)["scale"].tolist() == ["0.5", "nan"]
    source.write_text("path,um_per_pixel\nlung/0.png,wide\n")
    with pytest.raises(DataError, match="line 2, column um_per_pixel: 'wide' is not a number"):
        TileInput(source).count()
