"""The command `score`: a line of CSV or JSON for each image, or Parquet files for many of them."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from mlflow.pyfunc import PyFuncModel

    from oncoshift.commands.context import Context
    from oncoshift.scoring.run import Predict

ANSWERED = ("probability", "label", "shift", "abstain", "error")
COLUMNS = ("path", *ANSWERED)

BATCH_IMAGES = 64
BATCH_BYTES = 2**26
"""Largest number of images in a batch, and bytes of files (64 MiB) that complete it."""

Row = dict[str, Any]
"""The values of `COLUMNS` for one image."""


def add_score(parser: argparse.ArgumentParser) -> None:
    """Add the options of `score`."""
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE",
        help="image files, or folders of them; with --out one folder, CSV, .zip or .tar",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER",
        help="write Parquet files to this folder, for example scores.parquet, and continue there after an interruption",
    )  # fmt: skip
    parser.add_argument("--model", help="a model URI or folder; default: models:/oncoshift-<target>@champion")
    parser.add_argument("--json", action="store_true", help="a JSON object a line, instead of CSV")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if any image could not be scored")


def score(context: Context) -> int:
    """Score images with a registered model, or one in a folder.

    Returns:
        1 with `--strict` if an image could not be scored, else 0.
    """
    from oncoshift.registry.loading import load_served

    given = context.arguments
    if given.out is not None:
        return _score_to_folder(context)
    files = _find_files(given.images)
    model = load_served(*locate_model(context))
    write = _make_writer(as_json=given.json)
    done = failed = 0
    for batch in _read_batches(files):
        for row in _score_batch(model, batch):
            write(row)
            failed += row["error"] is not None
        sys.stdout.flush()
        done += len(batch)
        if sys.stderr.isatty() and not sys.stdout.isatty():  # else it would mix with the rows
            print(f"\r{done} of {len(files)} images", end="" if done < len(files) else "\n", file=sys.stderr)
    if failed:
        print(f"{failed} of {len(files)} images could not be scored; their rows say why", file=sys.stderr)
    return 1 if failed and given.strict else 0


def _score_to_folder(context: Context) -> int:
    """Score a folder, a CSV or an archive into Parquet files, and record the totals in MLflow."""
    from oncoshift.console import showing_progress
    from oncoshift.errors import DataError
    from oncoshift.scoring.job import run_scoring
    from oncoshift.training.interruption import stop_on_sigterm

    stop_on_sigterm()
    given = context.arguments
    if len(given.images) > 1:
        raise DataError(f"--out scores one folder, CSV or archive at a time, not {len(given.images)}")
    uri, store = locate_model(context)
    experiment = None if store is None else context.settings.tracking.experiment
    with showing_progress("score") as progress:
        outcome = run_scoring(given.images[0], given.out, uri, store, experiment, progress)
    totals = outcome.totals
    print(f"{given.out}: {outcome.scored} tiles scored now, {totals.tiles} in all; {totals.to_words()}")
    if totals.errors:
        print(f"{totals.errors} of {totals.tiles} tiles could not be scored; column error says why", file=sys.stderr)
    return 1 if totals.errors and given.strict else 0


def locate_model(context: Context) -> tuple[str, str | None]:
    """Return the URIs of the model and its store; a model in a folder needs no store."""
    from oncoshift.registry.loading import is_in_store

    uri = context.arguments.model or f"models:/{context.settings.registered_model}@champion"
    if not is_in_store(uri):
        return uri, None
    return uri, context.tracking_uri


def _find_files(given: Sequence[Path]) -> list[Path]:
    """Find the files to score, sorted within each given folder.

    Raises:
        DataError: a path does not exist, or there is no image at any of them.
    """
    from oncoshift.errors import DataError
    from oncoshift.scoring.inputs import find_images

    for path in given:
        if not os.path.lexists(path):
            raise DataError(f"{_as_cell(path)}: no such file or folder")
    files = [file for path in given for file in (sorted(find_images(path)) if path.is_dir() else [path])]
    if not files:
        raise DataError(f"no image files in {', '.join(map(_as_cell, given))}")
    return files


def _read_batches(files: Sequence[Path]) -> Iterator[list[tuple[Path, bytes | None, str | None]]]:
    """Read files in batches, each with its bytes or its error; one batch at a time is in memory."""
    from oncoshift.serving.images import UnreadableImageError, read_image_file

    batch: list[tuple[Path, bytes | None, str | None]] = []
    held = 0
    for file in files:
        try:
            data = read_image_file(file)
            batch.append((file, data, None))
            held += len(data)
        except UnreadableImageError as error:
            batch.append((file, None, str(error)))
        if len(batch) == BATCH_IMAGES or held >= BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _score_batch(model: PyFuncModel, batch: Sequence[tuple[Path, bytes | None, str | None]]) -> Iterator[Row]:
    from oncoshift.scoring.run import predict_rows

    images = [data for _, data, _ in batch if data is not None]
    answers = predict_rows(cast("Predict", model.predict), images, [None] * len(images))
    for file, data, fault in batch:
        row = dict.fromkeys(ANSWERED) | {"error": fault} if data is None else next(answers)
        yield {"path": _as_cell(file), **{name: row[name] for name in ANSWERED}}


def _make_writer(as_json: bool) -> Callable[[Row], object]:
    """Make the function that writes a row to stdout, in UTF-8 whatever the locale."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
    if as_json:
        return lambda row: print(json.dumps(row, ensure_ascii=False))
    table = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    table.writeheader()
    return table.writerow


def _as_cell(path: Path) -> str:
    r"""Format a path for a cell that no spreadsheet evaluates; other bytes than UTF-8 as `\xe9`."""
    from oncoshift.data.names import as_path_cell

    return as_path_cell(os.fsencode(path).decode("utf-8", "backslashreplace"))
