"""Watching of one batch, from its tiles to a run in MLflow; the same batch again finds that run."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from mlflow.entities import LoggedModelInput
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE as NOTE

from oncoshift.files import atomic
from oncoshift.fingerprint import fingerprint_value
from oncoshift.registry.history import RETRAINING_TAG, get_version
from oncoshift.registry.loading import find_identified, is_in_store
from oncoshift.registry.packaging import MODEL_TAG
from oncoshift.registry.times import get_time
from oncoshift.registry.tracking import KEY_TAG, Tracker, quote_text
from oncoshift.selection.verdict import Kind
from oncoshift.serving.predictor import TilePredictor
from oncoshift.steps.recorder import RunRecorder
from oncoshift.watching.batch import read_batch
from oncoshift.watching.estimate import Standing, estimate
from oncoshift.watching.outcome import Outcome
from oncoshift.watching.page import ALARMS, MODEL, list_rows, render_page
from oncoshift.watching.plots import draw_batch, draw_strangest
from oncoshift.watching.profile import ARTIFACTS, profile_tiles, read_reference
from oncoshift.watching.signals import compare, find_least_p

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mlflow import MlflowClient

    from oncoshift.parallel import Progress
    from oncoshift.registry.loading import ModelIdentity
    from oncoshift.settings import Settings
    from oncoshift.watching.batch import Batch
    from oncoshift.watching.profile import Profile

EXPERIMENT = "{experiment} watch"
"""Beside the experiment of retrainings, whose table of runs would otherwise mix two kinds."""

RESULT = "watch.json"


class Watched(NamedTuple):
    """The end of a job.

    Attributes:
        outcome: what was found.
        run: id of the run in MLflow; None for a model outside of a store.
        page: the page over time; None without a run.
        is_new: whether the batch was judged now; False if an earlier run had done so.
    """

    outcome: Outcome
    run: str | None
    page: Path | None
    is_new: bool


def watch_batch(
    source: Path, uri: str, store: str | None, settings: Settings, pages: Path, progress: Progress
) -> Watched:
    """Compare a batch with the training tiles of a model, and record it.

    A killed job starts again in the same run. A batch that was judged by the same model and
    settings is not judged again.

    Args:
        source: a folder, a CSV or an archive; see `TileInput`.
        uri: the model; see `load_served`.
        store: URI of the tracking store, for a model in a store.
        settings: sections `watch`, `evaluate`, `gate` and `tracking`.
        pages: folder of the pages over time.
        progress: called with the number of tiles done and the total.

    Raises:
        DataError: the input cannot be read or has no tiles.
        RegistryError: there is no such model, or it has no profile of its training tiles.
        UnavailableError: the store does not answer.
    """
    folder, model = find_identified(uri, store)
    reference = read_reference(folder)
    batch = read_batch(source, settings.watch.tiles)

    def judge(standing: Standing, at: str) -> tuple[Outcome, Profile]:
        predictor = TilePredictor.open(folder / ARTIFACTS)
        profile = profile_tiles(predictor, batch.tiles, batch.groups, progress)
        return _judge(reference, profile, batch, model, standing, settings, at), profile

    if store is None or not is_in_store(uri):
        return Watched(judge(Standing(Kind.DOUBT, None), get_time())[0], None, None, True)
    tracker = Tracker(store, EXPERIMENT.format(experiment=settings.tracking.experiment))
    standing, model_id = read_standing(tracker.client, model)
    key, page = _compute_key(batch, model, standing, settings), pages / f"{model.name}.html"
    if (done := tracker.find_run(key)) is not None and done.info.status == "FINISHED":
        outcome = Outcome.from_dict(tracker.read_sealed(done.info.run_id, RESULT, "signals", "estimate"))
        return Watched(outcome, done.info.run_id, page, False)
    with _running(tracker, key, batch, model) as recorder:
        at = tracker.client.get_run(recorder.run).info.start_time
        outcome, profile = judge(standing, datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="seconds"))
        if model_id is not None:
            tracker.client.log_inputs(recorder.run, models=[LoggedModelInput(model_id)])
        _record(recorder, outcome, at)
        recorder.save_figure("plots/batch.png", draw_batch(reference, profile, outcome))
        recorder.save_figure("plots/strangest.png", draw_strangest(reference, profile, batch))
        text = render_page(model.name, list_rows(tracker, model.name))
        recorder.save_text("watch.html", text)
    page.parent.mkdir(parents=True, exist_ok=True)
    with atomic(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Watched(outcome, recorder.run, page, True)


def read_standing(client: MlflowClient, model: ModelIdentity) -> tuple[Standing, str | None]:
    """Read what is known of a version, and the id of its logged model.

    The labelled figure is that of the training that the version was made of, on test tiles.
    """
    if model.version is None:
        return Standing(Kind.DOUBT, None), None
    tags = get_version(client, model.name, model.version).tags
    kind = Kind(tags.get("oncoshift.verdict", Kind.DOUBT))
    return Standing(kind, _read_measured(client, tags)), tags.get(MODEL_TAG)


def _read_measured(client: MlflowClient, tags: Mapping[str, str]) -> tuple[float, float, float] | None:
    try:
        retraining = client.get_run(tags[RETRAINING_TAG])
        key = f"{retraining.data.tags[KEY_TAG]}/train-{tags['method']}-s{tags['seed']}"
    except (KeyError, MlflowException):  # a copy on another server, or not registered by a retraining
        return None
    where = f"tags.`{KEY_TAG}` = {quote_text(key)}"
    for run in client.search_runs([retraining.info.experiment_id], where, max_results=1):
        names = [f"target/balanced_accuracy{end}" for end in ("", "_low", "_high")]
        if all(name in run.data.metrics for name in names):
            point, low, high = (run.data.metrics[name] for name in names)
            return point, low, high
    return None


def _compute_key(batch: Batch, model: ModelIdentity, standing: Standing, settings: Settings) -> str:
    """Hash all that the outcome depends on."""
    limits = settings.watch.model_dump(mode="json")
    bootstrap = [settings.evaluate.bootstrap, settings.evaluate.confidence, settings.gate.min_balanced_accuracy]
    return fingerprint_value([batch.digest, model.digest, standing.verdict, standing.measured, limits, bootstrap])


def _judge(
    reference: Profile,
    profile: Profile,
    batch: Batch,
    model: ModelIdentity,
    standing: Standing,
    settings: Settings,
    at: str,
) -> Outcome:
    signals = compare(reference, profile, settings.watch)
    drifted = [signal.name for signal in signals if signal.alarm and signal.name != "malignant"]
    usable = profile.usable
    return Outcome(
        model=model,
        batch=batch.source.name,
        at=at,
        total=batch.total,
        tiles=len(batch.tiles),
        groups=profile.groups if batch.groups_known else None,
        malignant=float(usable.is_called_malignant.mean()) if len(usable.tiles) else None,
        abstained=float(profile.abstains.mean()),
        signals=signals,
        estimate=estimate(reference, profile, standing, drifted, settings.evaluate),
        floor=settings.gate.min_balanced_accuracy,
        least_p=find_least_p(reference, profile),
        false_alarms=settings.watch.false_alarms,
    )


@contextmanager
def _running(tracker: Tracker, key: str, batch: Batch, model: ModelIdentity) -> Iterator[RunRecorder]:
    """Open the run of a batch; it ends FINISHED, or FAILED or KILLED until the next start."""
    tags = {"oncoshift.kind": "watch", MODEL: model.name, "oncoshift.version": model.version or ""}
    run = tracker.find_or_start_run(key, f"{batch.source.name} · version {model.version}", tags=tags)
    recorder = RunRecorder(tracker, run, key)
    try:
        recorder.log_params({**model._asdict(), "batch": batch.source.resolve(), "digest": batch.digest})
        yield recorder
    except BaseException as error:
        recorder.end(error)
        raise
    tracker.finish(run)


def _record(recorder: RunRecorder, outcome: Outcome, at_ms: int) -> None:
    recorder.save_sealed(RESULT, outcome.to_dict())
    recorder.log_metrics(outcome.metrics, at_ms)
    recorder.set_tags({ALARMS: ", ".join(outcome.alarms) or "none", NOTE: outcome.to_markdown()})
