"""A batch is judged by the champion once, as one run of MLflow, and is on the page over time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from PIL import Image
from support.tiny_tiles import tissue

from oncoshift.cli import main
from oncoshift.errors import RegistryError
from oncoshift.registry.folder import save_folder
from oncoshift.settings import Settings, replace_values
from oncoshift.watching import job
from oncoshift.watching.job import watch_batch
from oncoshift.watching.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from watching.conftest import Store

    from oncoshift.registry.folder import Package

MODEL = "models:/oncoshift-kidney@champion"
SETTINGS = replace_values(Settings(), {"watch.permutations": 399, "evaluate.bootstrap": 100})


def write_batch(folder: Path, first: int, change: Callable[[np.ndarray], np.ndarray] = np.asarray) -> Path:
    folder.mkdir(parents=True)
    for number in range(24):
        Image.fromarray(change(tissue(first + number))).save(folder / f"new{number // 2}_{number % 2}.png")
    return folder


def watch(batch: Path, store: Store, settings: Settings = SETTINGS) -> job.Watched:
    return watch_batch(batch, MODEL, store.tracker.uri, settings, store.folder / "pages", lambda _done, _total: None)


def test_an_unchanged_batch_is_no_alarm_and_is_judged_once(store: Store, tmp_path: Path) -> None:
    batch = write_batch(tmp_path / "monday", 500)
    first = watch(batch, store)
    assert first.outcome.alarms == ()
    assert first.outcome.words == "no drift"
    again = watch(batch, store)
    assert (again.run, again.is_new, again.outcome) == (first.run, False, first.outcome)
    assert first.run is not None
    run = store.tracker.client.get_run(first.run)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["watch/tiles"] == 24
    assert run.data.metrics["watch/balanced_accuracy_high"] <= 1
    assert run.inputs.model_inputs, "the model's page links to the run"
    names = {artifact.path for artifact in store.tracker.client.list_artifacts(first.run, "plots")}
    assert names == {"plots/batch.png", "plots/strangest.png"}


def test_a_blurred_batch_is_an_alarm_and_both_are_on_the_page(store: Store, tmp_path: Path) -> None:
    write_batch(tmp_path / "before", 700)
    watch(tmp_path / "before", store)
    batch = write_batch(tmp_path / "blurred", 600, lambda tile: cv2.GaussianBlur(tile, (0, 0), 1.0))
    found = watch(batch, store)
    assert "quality" in found.outcome.alarms
    assert found.outcome.estimate.low is not None
    assert found.outcome.estimate.low <= 0.5
    assert found.page is not None
    page = found.page.read_text()
    assert "blurred" in page
    assert "before" in page
    assert "http" not in page, "the page must need nothing from elsewhere"


def test_a_killed_job_starts_again_in_its_run(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = write_batch(tmp_path / "killed", 800)
    with monkeypatch.context() as patch:
        patch.setattr(job, "draw_batch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            watch(batch, store)
    runs = store.tracker.client.search_experiments(filter_string="name = 'oncoshift watch'")
    (unfinished,) = store.tracker.client.search_runs([runs[0].experiment_id], "attributes.status = 'KILLED'")
    found = watch(batch, store)
    assert (found.run, found.is_new) == (unfinished.info.run_id, True)


def test_other_limits_judge_again(store: Store, tmp_path: Path) -> None:
    batch = write_batch(tmp_path / "limits", 900)
    first = watch(batch, store)
    assert watch(batch, store, replace_values(SETTINGS, {"watch.least_share": 0.2})).run != first.run
    assert watch(batch, store, replace_values(SETTINGS, {"train.epochs": 1})).run == first.run


def test_groups_that_are_unknown_are_said(store: Store, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    Image.fromarray(tissue(1)).save(tmp_path / "new" / "tile.png")
    outcome = watch(tmp_path / "new", store).outcome
    assert outcome.groups is None
    assert outcome.alarms == ()


def test_a_model_of_an_earlier_version_is_told(tmp_path: Path, package: Package) -> None:
    save_folder(replace(package, training=None), tmp_path / "model")
    write_batch(tmp_path / "new", 1)
    with pytest.raises(RegistryError, match="without a profile of its training tiles; `oncoshift retrain --force`"):
        watch_batch(tmp_path / "new", str(tmp_path / "model"), None, SETTINGS, tmp_path, lambda _done, _total: None)


def test_the_command_prints_json_and_tells_drift_by_its_exit_code(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracker.uri)
    (tmp_path / "params.yaml").write_text("watch: {permutations: 399}\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(tmp_path)
    batch = write_batch(tmp_path / "dark", 600, lambda tile: (tile * 0.6).astype(np.uint8))
    assert main(["watch", str(batch), "--json", "--strict"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert "stain" in printed["alarms"]
    assert Outcome.from_dict(printed).alarms == tuple(printed["alarms"])
    assert Path(printed["page"]) == tmp_path / "runs" / "watch" / "oncoshift-kidney.html"
    assert main(["watch", str(batch)]) == 0
    assert "judged before" in capsys.readouterr().out
