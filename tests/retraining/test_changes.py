"""What a report says has changed since the champion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oncoshift.registry.history import RETRAINING_TAG
from oncoshift.registry.tracking import Tracker
from oncoshift.retraining.changes import find_changes

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = "oncoshift-kidney"


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    return Tracker(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db", "tests")


@pytest.fixture
def record(tracker: Tracker) -> Callable[..., str]:
    """Record a retraining of some tiles and settings at a commit."""

    def make(key: str, tiles: int, settings: str, commit: str) -> str:
        run = tracker.find_or_start_run(key, key, tags={"mlflow.source.git.commit": commit})
        tracker.log_input(run, "audit", f"{tiles}.dir", "data/splits", "audit", {"tiles": tiles, "groups": 3})
        tracker.log_text(run, settings, "settings.yaml")
        return run

    return make


def test_data_settings_and_commit_are_compared_with_the_champions(tracker: Tracker, record: Callable[..., str]) -> None:
    before = record("before", 30, "target: kidney\ntrain: {lr: 0.1, epochs: 5}\n", "aaaa")
    after = record("after", 36, "target: kidney\ntrain: {lr: 0.2, epochs: 5}\n", "bbbb")
    client = tracker.client
    client.create_registered_model(MODEL)
    version = client.create_model_version(MODEL, "file:///nowhere", tags={RETRAINING_TAG: before}).version
    changes = find_changes(client, MODEL, str(version), after)
    assert changes.since == str(version)
    assert changes.lines == (
        "data audit: 30 tiles, 3 groups (30.dir) → 36 tiles, 3 groups (36.dir)",
        "setting train.lr: 0.1 → 0.2",
        "code: commit aaaa → bbbb",
    )
    same = record("same", 30, "target: kidney\ntrain: {lr: 0.1, epochs: 5}\n", "aaaa")
    assert find_changes(client, MODEL, str(version), same).lines == ("Neither data nor settings nor the commit.",)
    assert "model of this retraining" in find_changes(client, MODEL, str(version), before).lines[0]


@pytest.mark.parametrize(("champion", "words"), [(None, "no champion before"), ("77", "not recorded here")])
def test_where_nothing_can_be_compared_it_says_so(
    tracker: Tracker, record: Callable[..., str], champion: str | None, words: str
) -> None:
    run = record("alone", 30, "target: kidney\n", "aaaa")
    assert words in find_changes(tracker.client, MODEL, champion, run).lines[0]
