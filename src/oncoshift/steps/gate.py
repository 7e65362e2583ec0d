"""Step `gate`: judge the challenger on the audit set; promote it, or say why not.

The registered models predict from the raw bytes of the tiles, so the gate judges exactly what would
be served.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from oncoshift.data.parquet import read_table
from oncoshift.data.raw import read_raw_tiles
from oncoshift.data.tables import LABELS
from oncoshift.errors import RegistryError
from oncoshift.evaluation.audit_size import AuditSize, measure_audit
from oncoshift.evaluation.domains import DEFAULT_THRESHOLD
from oncoshift.evaluation.few_labels import count_calls
from oncoshift.evaluation.intervals import Interval, bootstrap_differences, bootstrap_metrics
from oncoshift.evaluation.metrics import compute_metrics
from oncoshift.evaluation.resampling import TooFewGroupsError
from oncoshift.files import DamagedFileError
from oncoshift.labels.table import GATE, TRAIN
from oncoshift.registry.answers import settle_approval
from oncoshift.registry.decision import Decision, GateEvidence, LabelEvidence, decide
from oncoshift.registry.gate_record import count_judged, record_decision
from oncoshift.registry.history import WITHDRAWN_TAG, find_champion
from oncoshift.registry.loading import load_served
from oncoshift.registry.packaging import update_card
from oncoshift.registry.policy import PolicyEvidence, Reason
from oncoshift.registry.promotion import promote
from oncoshift.registry.times import add_time, get_time
from oncoshift.selection.consensus import kappa
from oncoshift.steps.calibration import fit_job
from oncoshift.steps.jobs import read_source_groups
from oncoshift.steps.register import ACTOR
from oncoshift.training.diagnostics import list_findings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from oncoshift.data.tables import EvaluationTiles
    from oncoshift.evaluation.metrics import Metrics
    from oncoshift.evaluation.weighted import MetricName
    from oncoshift.layout import Layout
    from oncoshift.settings import EvaluateSettings, Settings
    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.steps.recorder import RunRecorder
    from oncoshift.steps.select import Selection
    from oncoshift.training.job import TrainedJob


UNLABELLED_TILES = 1000
"""Maximum number of unlabelled target tiles on which challenger and champion are compared."""

METRICS: tuple[MetricName, ...] = ("balanced_accuracy", "auroc", "sensitivity")


@dataclass(frozen=True)
class JudgedVersion:
    """A version and the gate's decision on it.

    Attributes:
        name: of the registered model.
        version: the challenger.
        decision: the gate's.
    """

    name: str
    version: str
    decision: Decision

    def record(self, recorder: RunRecorder) -> None:
        """Save the decision in run, parent and registry, and promote the version if it passed.

        Where a person must approve, it is promoted only if an interrupted gate had asked, and the
        answer has come since.

        Raises:
            ChampionMovedError: another version has become champion since; judge again.
        """
        decision, client = self.decision, recorder.tracker.client
        recorder.save_sealed("gate.json", decision.to_dict())
        # An interrupted gate finds its decision by this tag, so it precedes a request for approval.
        recorder.set_tags({"oncoshift.version": self.version})
        record_decision(client, self.name, self.version, decision, (recorder.parent or recorder).run)
        update_card(client, self.name, self.version, {"Gate": decision.to_markdown()})
        for place in (recorder, recorder.outer):
            place.save_text("gate.md", decision.to_markdown())
            place.set_tags({"oncoshift.gate": decision.action, "oncoshift.version": self.version})
        if decision.action == "await":
            settle_approval(client, self.name, self.version)
        elif decision.promote:
            reason = f"passed the gate of retraining {recorder.key}"
            promote(client, self.name, self.version, reason, ACTOR, expected=decision.champion)


@dataclass(frozen=True)
class Challenge:
    """The gate's input.

    Attributes:
        name: of the registered model.
        version: the challenger.
        control: the source-only job with the challenger's seed.
        selection: how the challenger was picked, and the verdict on it without labels.
    """

    name: str
    version: str
    control: TrainedJob
    selection: Selection


class _Calls(NamedTuple):
    """Probabilities of malignant, float64 [N], and the least that is called malignant."""

    probabilities: NDArray[np.float64]
    threshold: float


class _Served(NamedTuple):
    """The calls of a registered version, its number of abstentions, and its time in seconds."""

    calls: _Calls
    abstained: int
    seconds: float


def run(
    recorder: RunRecorder,
    jobs: ExperimentJobs,
    challenge: Challenge,
    settings: Settings,
    say: Callable[[str], None],
) -> JudgedVersion:
    """Decide on a version, or return the decision that an interrupted gate recorded.

    Args:
        recorder: the step's run, in whose store the registry is.
        jobs: of the experiment.
        challenge: what to judge.
        settings: of the experiment.
        say: receives lines of progress.

    Raises:
        RegistryError: a model cannot be loaded, or cannot read a tile.
    """
    decision = _find_decision(recorder, challenge, say) or _decide(recorder, jobs, challenge, settings)
    return JudgedVersion(challenge.name, challenge.version, decision)


def _find_decision(recorder: RunRecorder, challenge: Challenge, say: Callable[[str], None]) -> Decision | None:
    """Find the decision of a gate that was killed after recording it, if the champion is the same.

    A second decision would compare a new champion with itself.
    """
    client = recorder.tracker.client
    if client.get_run(recorder.run).data.tags.get("oncoshift.version") != challenge.version:
        return None
    try:
        found = Decision.from_dict(recorder.tracker.read_sealed(recorder.run, "gate.json", "verdict", "reasons"))
    except DamagedFileError as error:
        say(f"{error}; the gate decides again")
        return None
    return found if find_champion(client, challenge.name) in (found.champion, challenge.version) else None


def _decide(recorder: RunRecorder, jobs: ExperimentJobs, challenge: Challenge, settings: Settings) -> Decision:
    client = recorder.tracker.client
    withdrawn = client.get_model_version(challenge.name, challenge.version).tags.get(WITHDRAWN_TAG)
    if withdrawn is not None:
        words = f"version {challenge.version} was rolled back ({withdrawn}); only a person brings it back"
        return Decision(False, (Reason("not rolled back", False, None, None, words),), at=get_time())
    champion = find_champion(client, challenge.name)
    evidence = _gather_evidence(recorder, jobs, challenge, champion, settings)
    decision = decide(settings.gate, settings.select, evidence)
    at = get_time()
    asks = settings.gate.approval == "human" and champion != challenge.version
    awaits = decision.promote and asks
    until = add_time(at, hours=settings.gate.approval_hours) if awaits else ""
    return replace(decision, champion=champion, at=at, approve_until=until)


def _gather_evidence(
    recorder: RunRecorder, jobs: ExperimentJobs, challenge: Challenge, champion: str | None, settings: Settings
) -> GateEvidence:
    uri = recorder.tracker.uri
    tiles = jobs.load_tiles(("audit",))
    raw = read_raw_tiles(jobs.layout, tiles.tile_ids.tolist())
    served = _predict_as_served(challenge.name, challenge.version, uri, raw)
    challenger = served.calls

    def compare_with(other: _Calls) -> Interval:
        return bootstrap_differences(
            tiles.labels,
            challenger.probabilities,
            other.probabilities,
            tiles.groups,
            resamples=settings.evaluate.bootstrap,
            confidence=settings.evaluate.confidence,
            names=("balanced_accuracy",),
            thresholds=(challenger.threshold, other.threshold),
        )["balanced_accuracy"]

    gains: tuple[Interval | None, Interval | None] = (None, None)
    levels, too_few = _compute_levels(tiles, challenger, settings.evaluate)
    if not too_few:
        of_champion = (
            None if champion is None else compare_with(_predict_as_served(challenge.name, champion, uri, raw).calls)
        )
        gains = compare_with(_predict_job(jobs, challenge.control, tiles, settings.evaluate)), of_champion
    agreement = None
    if champion is not None and settings.gate.without_audit != "refuse":
        agreement = _measure_agreement(jobs, challenge, champion, uri)
    return GateEvidence(
        balanced_accuracy=levels["balanced_accuracy"],
        auroc=levels["auroc"],
        sensitivity=levels["sensitivity"],
        gain_over_control=gains[0],
        gain_over_champion=gains[1],
        groups=_count_groups(tiles.labels, tiles.groups),
        distinct_groups=len(np.unique(tiles.groups)),
        selection=settings.select.validator,
        source_accuracy=challenge.selection.source_accuracy,
        verdict=challenge.selection.verdict,
        agreement_with_champion=agreement,
        too_few=too_few,
        audit_size=str(_measure_audit(tiles, challenger, settings.evaluate.confidence)),
        phantom=settings.ingest.adapter == "phantom",
        abstained=served.abstained,
        anchor=challenge.selection.anchor,
        labels=_gather_labels(recorder, jobs, challenge, settings)
        if settings.gate.without_audit == "few_labels"
        else None,
        target_labels=challenge.selection.target_labels,
        policy=_gather_policy(recorder, jobs, challenge, tiles, served, settings.evaluate),
    )


def _gather_labels(
    recorder: RunRecorder, jobs: ExperimentJobs, challenge: Challenge, settings: Settings
) -> LabelEvidence | None:
    """Count the challenger's calls of the tiles whose labels gate; None without any."""
    gating, training = (jobs.load_labels(settings.target, use) for use in (GATE, TRAIN))
    if not len(gating.labels):
        return None
    raw = read_raw_tiles(jobs.layout, gating.tile_ids.tolist())
    calls = _predict_as_served(challenge.name, challenge.version, recorder.tracker.uri, raw).calls
    groups = set(gating.groups.tolist())
    trained = set(training.groups.tolist()) | read_source_groups(jobs.layout)
    return LabelEvidence(
        count_calls(gating.labels, calls.probabilities >= calls.threshold),
        len(groups),
        len(groups & trained),
        _count_groups(gating.labels, gating.groups),
        changed=challenge.selection.picked.job.labels_digest not in ("", training.digest),
        skipped=jobs.count_skipped(settings.target, GATE),
        digest=gating.digest,
        earlier=count_judged(recorder.tracker.client, challenge.name, challenge.version, gating.digest),
    )


def _count_groups(labels: NDArray[np.int64], groups: NDArray[np.str_]) -> dict[str, int]:
    """Count groups by class name; one with tiles of both classes counts in each."""
    return {name: len(np.unique(groups[labels == label])) for label, name in enumerate(LABELS)}


def _predict_job(
    jobs: ExperimentJobs, trained: TrainedJob, tiles: EvaluationTiles, settings: EvaluateSettings
) -> _Calls:
    """Predict the audit tiles with a job, which is calibrated as the challenger was."""
    table = jobs.predict(trained, ("audit",)).set_index("tile_id").loc[tiles.tile_ids.tolist()]
    calibration = fit_job(jobs, trained, settings)
    return _Calls(calibration.apply(table["probability"].to_numpy(np.float64)), calibration.threshold)


def _measure_audit(tiles: EvaluationTiles, calls: _Calls, confidence: float) -> AuditSize:
    return measure_audit(
        tiles.labels, calls.probabilities, tiles.groups, threshold=calls.threshold, confidence=confidence
    )


def _gather_policy(
    recorder: RunRecorder,
    jobs: ExperimentJobs,
    challenge: Challenge,
    tiles: EvaluationTiles,
    served: _Served,
    settings: EvaluateSettings,
) -> PolicyEvidence:
    """Gather the evidence for the gate's optional rules, on the audit set.

    Args:
        recorder: of the step.
        jobs: of the experiment.
        challenge: what to judge.
        tiles: of the audit set.
        served: the challenger's answers on them.
        settings: section `evaluate`.
    """
    selection = challenge.selection

    def measure(calls: _Calls) -> Metrics:
        bins = settings.calibration_bins
        return compute_metrics(tiles.labels, calls.probabilities, tiles.groups, calls.threshold, bins)

    seeds = [measure(_predict_job(jobs, seed, tiles, settings)) for seed in selection.seeds]
    explained = recorder.tracker.find_run(f"{recorder.key}/explain")
    findings = list_findings(selection.picked.history, selection.picked.job.settings)
    return PolicyEvidence(
        ece=measure(served.calls).ece,
        latency_ms=1000 * served.seconds / len(tiles.labels),
        worst_seed=min(seed.balanced_accuracy or 0.0 for seed in seeds),
        map_similarity=None if explained is None else explained.data.metrics.get("randomisation_similarity"),
        alarms=(*findings, *_read_warnings(jobs.layout)),
    )


def _read_warnings(layout: Layout) -> list[str]:
    """Read the warnings of stage `ingest`."""
    warnings: list[str] = json.loads((layout.tiles / "report.json").read_text(encoding="utf-8"))["warnings"]
    return warnings


def _compute_levels(
    tiles: EvaluationTiles, calls: _Calls, settings: EvaluateSettings
) -> tuple[Mapping[MetricName, Interval], str]:
    """Compute the audit metrics; with too few groups, without intervals and with the reason."""
    try:
        levels = bootstrap_metrics(
            tiles.labels,
            calls.probabilities,
            tiles.groups,
            resamples=settings.bootstrap,
            confidence=settings.confidence,
            names=METRICS,
            threshold=calls.threshold,
        )
    except TooFewGroupsError as error:
        points = compute_metrics(tiles.labels, calls.probabilities, tiles.groups, calls.threshold).as_dict()
        return {name: Interval(points[name], np.nan, np.nan, settings.confidence, 0) for name in METRICS}, str(error)
    return levels, ""


def _measure_agreement(jobs: ExperimentJobs, challenge: Challenge, champion: str, uri: str) -> float:
    """Compute kappa of two versions on unlabelled target tiles, evenly spaced over training."""
    splits = jobs.layout.splits
    ids = read_table(splits / "target_train.parquet", ("tile_id",), stage="split")["tile_id"].tolist()
    raw = read_raw_tiles(jobs.layout, ids[:: -(-len(ids) // UNLABELLED_TILES)])
    versions = (_predict_as_served(challenge.name, each, uri, raw).calls for each in (challenge.version, champion))
    return kappa(*((calls.probabilities >= calls.threshold).astype(np.float64) for calls in versions))


def _predict_as_served(name: str, version: str, uri: str, raw: pd.DataFrame) -> _Served:
    """Predict with a registered version from raw image bytes, and their scale if it is known.

    A tile on which the model abstains has a probability, too, so it counts.

    Raises:
        RegistryError: the model cannot be loaded, or cannot read a tile.
    """
    model = load_served(f"models:/{name}/{version}", uri)
    began = time.perf_counter()
    table = cast("pd.DataFrame", model.predict(raw))
    seconds = time.perf_counter() - began
    if table["error"].notna().any():
        raise RegistryError(f"{name} version {version} cannot read a labelled tile: {table['error'].dropna().iloc[0]}")
    # A model of an old version has no such column, and no threshold but one half.
    abstained = int(table["abstain"].notna().sum()) if "abstain" in table else 0
    signature = model.metadata.signature
    params = [] if signature is None or signature.params is None else signature.params.params
    thresholds = [float(each.default) for each in params if each.name == "threshold"]
    threshold = thresholds[0] if thresholds else DEFAULT_THRESHOLD
    return _Served(_Calls(table["probability"].to_numpy(np.float64), threshold), abstained, seconds)
