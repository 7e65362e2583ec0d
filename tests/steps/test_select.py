"""The pick and its verdict are right and recorded, for jobs with synthetic predictions."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from oncoshift.data.tables import EvaluationTiles
from oncoshift.errors import SettingsError, UntrainableError
from oncoshift.layout import Layout
from oncoshift.registry.tracking import Tracker
from oncoshift.retraining import recorded
from oncoshift.retraining.session import RetrainingPlan, Session
from oncoshift.selection.verdict import Kind
from oncoshift.settings import Settings, parse_settings, replace_values
from oncoshift.steps.recorder import RunRecorder
from oncoshift.steps.select import VERDICT_TURNED_OFF, Selection, find_contradictions
from oncoshift.training.epoch import Epoch
from oncoshift.training.job import Job, TrainedJob

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TRUTH = np.arange(200) % 2
ROW = {
    "timestamp_ms": 1000.0,
    "epoch": 0.0,
    "epoch_seconds": 1.0,
}


def confident(turned: bool, right: float = 0.98, seed: int = 0) -> np.ndarray:
    """Make a confident model's probabilities, right on a share of the tiles or inverted."""
    rng = np.random.default_rng(seed)
    called = np.where(rng.random(len(TRUTH)) < right, TRUTH, 1 - TRUTH)
    return np.where((1 - called if turned else called) == 1, 0.97, 0.03)


@dataclass
class MadeUpJobs:
    """A stand-in for `ExperimentJobs`.

    Attributes:
        folder: Folder of the jobs, none of which is ever done.
        turned: Organs from which adaptation inverts the classes.
        turned_seeds: Seeds with which it does.
        turned_stains: Stain variants on which it does.
        im: Information maximisation by seed.
        source: Source accuracy by seed.
        malignant: Share of the target that is predicted malignant in training.
        more: Further figures of the trainings.
        data_digest: Hash of the data.
        pack_digest: Hash of the pack.
        variant: Stain variant of the pack.
        untrainable: Stain variants on which no training ends.
        sources: Labelled organs of the experiment; those of the settings if there are none.
        asked: Organs and seeds that were trained.
    """

    folder: Path
    turned: tuple[str, ...] = ()
    turned_seeds: tuple[int, ...] = (0, 1, 2)
    turned_stains: tuple[str, ...] = ()
    im: tuple[float, ...] = (0.3, 0.5, 0.4)
    source: tuple[float, ...] = (0.95, 0.95, 0.95)
    malignant: float = 0.5
    more: dict[str, float] = field(default_factory=dict)
    data_digest: str = "data"
    pack_digest: str = "pack"
    variant: str = "none"
    untrainable: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    asked: list[tuple[tuple[str, ...], int]] = field(default_factory=list)

    @property
    def layout(self) -> Layout:
        return Layout(self.folder)

    def load_tiles(self, _splits: Sequence[str]) -> EvaluationTiles:
        """Load tiles of two organs, in one of which the malignant ones are whiter."""
        count = 24
        labels, organs = np.tile(TRUTH[:count], 2), np.repeat(["lung", "kidney"], count)
        white = np.where(organs == "lung", labels, 1 - labels)
        noise = np.random.default_rng(0).integers(0, 60, (2 * count, 16, 16, 3))
        images = (noise + np.where(white == 1, 180, 90)[:, None, None, None]).astype(np.uint8)
        names = np.array([f"g{number % 6}" for number in range(2 * count)])
        return EvaluationTiles(
            images, np.arange(2 * count), labels, organs, names, np.arange(2 * count).astype(np.str_)
        )

    def make_job(self, settings: Settings, **changes: Any) -> Job:
        changed = replace_values(settings, {key.replace("__", "."): value for key, value in changes.items()})
        return Job(changed, "data", "pack", self.folder, self.folder)

    def on_variant(self, variant: str) -> MadeUpJobs:
        return replace(self, variant=variant)

    def train(self, job: Job, on_epoch: Any, _on_features: Any = None) -> TrainedJob:
        if self.variant in self.untrainable:
            raise UntrainableError("the loss is not finite")
        self.asked.append((job.settings.sources, job.settings.seed))
        epoch = Epoch(
            ROW
            | self.more
            | {
                "information_maximisation": self.im[job.settings.seed],
                "source_accuracy": self.source[job.settings.seed],
                "target_malignant_share": self.malignant,
                "gradient_norm": 1.0,
            }
        )
        on_epoch(epoch)
        return TrainedJob(job, self.folder, [epoch])

    def predict_target(self, trained: TrainedJob) -> np.ndarray:
        organs = trained.job.settings.sources
        assert trained.job.settings.train.variant == self.variant, "predicted on the pack of another variant"
        turned = organs[0] in self.turned if len(organs) == 1 else "pool" in self.turned
        turned &= trained.job.settings.seed in self.turned_seeds
        by_stain = trained.job.settings.train.variant in self.turned_stains
        return confident(turned is not by_stain, seed=sum(map(ord, "".join(organs))))

    def measure_anchors(self, settings: Settings) -> dict[str, np.ndarray]:
        return {name: TRUTH + np.random.default_rng(9).normal(0, 1, len(TRUTH)) for name in settings.anchor.use}

    def predict(self, trained: TrainedJob, splits: Sequence[str]) -> pd.DataFrame:
        """Predict the audit set, on which the less certain seeds are better, or all organs."""
        if tuple(splits) == ("source_val", "test"):
            return self._predict_organs(trained)
        assert tuple(splits) == ("audit",)
        right = {0: 0.95, 1: 0.6, 2: 0.8}[trained.job.seed]
        return pd.DataFrame({"probability": confident(False, right, seed=1), "label": TRUTH})

    def _predict_organs(self, trained: TrainedJob) -> pd.DataFrame:
        """Predict tiles of every organ, right but for a target whose classes are inverted."""
        inverted = trained.job.settings.sources[0] in self.turned
        parts = []
        for organ in ("lung", "colon", "breast", "kidney"):
            table = pd.DataFrame({"label": TRUTH[:24], "organ": organ, "seed": trained.job.seed})
            table["probability"] = confident(organ == "kidney" and inverted, right=1.0)[:24]
            table["tile_id"], table["group"] = [f"{organ}/{n}" for n in range(24)], [f"g{n % 6}" for n in range(24)]
            parts.append(table)
        return pd.concat(parts, ignore_index=True)


def list_contradictions(jobs: MadeUpJobs, selection: Selection, limit: float | None = -0.2) -> dict[str, float]:
    """List the organs that contradict the others."""

    def train_witness(of: Any, job: Job, _title: str) -> TrainedJob:
        trained: TrainedJob = of.train(job, lambda _epoch: None)
        return trained

    return find_contradictions(jobs, selection, limit, train_witness, lambda _line: None)  # type: ignore[arg-type]


class Quiet(Session):
    """A session without data, and so without inputs to log."""

    def log_inputs(self, recorder: RunRecorder, names: Sequence[str]) -> None:
        pass


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    return Tracker(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db", "tests")


@pytest.fixture
def select(tracker: Tracker, tmp_path: Path):  # type: ignore[no-untyped-def]
    """A function that runs the step; keyword arguments are settings sections, `jobs` a stand-in."""

    def run(jobs: MadeUpJobs | None = None, **sections: Any) -> tuple[Selection, dict[str, Any], dict[str, str]]:
        made_up = jobs or MadeUpJobs(tmp_path)
        settings = parse_settings(
            {"sources": ["lung", "colon", "breast"], "tracking": {"system_metrics": False}, **sections}
        )
        made_up.sources = made_up.sources or settings.sources
        plan = RetrainingPlan(tmp_path, Layout(tmp_path), settings, tracker.uri, "", lambda _line: None)
        parent = tracker.find_or_start_run(str(tmp_path), "retrain")
        session = Quiet(plan, made_up, RunRecorder(tracker, parent, str(tmp_path)))  # type: ignore[arg-type]
        seeds = [made_up.make_job(settings, seed=number) for number in range(3)]
        selection = recorded.select(session, [made_up.train(job, lambda _row: None) for job in seeds])
        del made_up.asked[:3]
        found = tracker.find_run(f"{tmp_path}/select")
        assert found is not None
        log = json.loads(Path(tracker.client.download_artifacts(found.info.run_id, "selection.json")).read_text())
        assert tracker.client.get_run(parent).data.tags["oncoshift.verdict"] == selection.verdict.kind.value
        return selection, log, found.data.tags

    return run


def test_the_best_seed_is_picked_and_trusted_where_organs_alone_agree(
    select: Callable[..., Any], tmp_path: Path
) -> None:
    jobs = MadeUpJobs(tmp_path)
    selection, log, tags = select(jobs)
    assert selection.picked.job.seed == 1
    assert selection.description == "seed 1 of 3, information_maximisation above source accuracy 0.8"
    assert jobs.asked == [(("lung",), 1), (("colon",), 1), (("breast",), 1)], "the pick's seed, one organ each"
    assert selection.verdict.kind is Kind.TRUST
    assert log["scores"] == {"0": 0.3, "1": 0.5, "2": 0.4}
    assert log["models"] == ["lung alone", "colon alone", "breast alone", "the pick"]
    assert np.array(log["agreement"]).shape == (4, 4)
    assert tags["oncoshift.oracle"] == "false"


def test_a_pick_that_organs_alone_contradict_is_refused(select: Callable[..., Any], tmp_path: Path) -> None:
    selection, log, _ = select(MadeUpJobs(tmp_path, turned=("lung", "breast")))
    assert selection.verdict.kind is Kind.REFUSE
    assert log["majority"] == ["lung", "breast"]
    assert log["agreement_of_pick"] < -0.8
    assert log["reasons"] == list(selection.verdict.reasons)


def test_an_organ_alone_that_contradicts_the_majority_is_found(select: Callable[..., Any], tmp_path: Path) -> None:
    jobs = MadeUpJobs(tmp_path, turned=("colon",))
    selection, *_ = select(jobs)
    jobs.asked.clear()
    assert list_contradictions(jobs, selection) == {"colon": pytest.approx(-0.93, abs=0.05)}
    assert jobs.asked == [((organ,), seed) for seed in (0, 2) for organ in ("lung", "colon", "breast")]
    assert list_contradictions(jobs, selection, limit=-0.99) == {}
    assert list_contradictions(jobs, selection, limit=None) == {}


@pytest.mark.parametrize("seeds", [2, 3])
def test_an_organ_that_contradicts_with_one_seed_does_not(
    select: Callable[..., Any], tmp_path: Path, seeds: int
) -> None:
    jobs = MadeUpJobs(tmp_path, turned=("colon",), turned_seeds=(1,))
    selection, *_ = select(jobs)
    assert selection.picked.job.seed == 1
    assert list_contradictions(jobs, replace(selection, seeds=selection.seeds[:seeds])) == {}


def test_an_organ_contradicts_by_the_mean_over_seeds(select: Callable[..., Any], tmp_path: Path) -> None:
    jobs = MadeUpJobs(tmp_path, turned=("colon",), turned_seeds=(0, 1))
    selection, *_ = select(jobs)
    assert list_contradictions(jobs, selection) == {"colon": pytest.approx(-0.3, abs=0.1)}


def test_where_none_contradicts_no_other_seed_is_trained_alone(select: Callable[..., Any], tmp_path: Path) -> None:
    jobs = MadeUpJobs(tmp_path)
    selection, *_ = select(jobs)
    jobs.asked.clear()
    assert (list_contradictions(jobs, selection), jobs.asked) == ({}, [])


def test_a_pick_trained_without_an_organ_of_the_experiment_is_doubted(
    select: Callable[..., Any], tmp_path: Path
) -> None:
    jobs = MadeUpJobs(tmp_path, sources=("lung", "colon", "breast", "stomach"))
    selection, *_ = select(jobs)
    assert selection.left_out == ("stomach",)
    assert selection.verdict.kind is Kind.DOUBT
    assert ("stomach",) not in [organs for organs, _ in jobs.asked], "it is no witness any more"


def test_without_a_majority_nothing_contradicts(select: Callable[..., Any], tmp_path: Path) -> None:
    jobs = MadeUpJobs(tmp_path, turned=("colon",))
    selection, *_ = select(jobs, select={"refuse_strength": 0.99, "trust_strength": 1.0})
    assert list_contradictions(jobs, selection) == {}


def test_a_pick_where_no_seed_reaches_the_source_floor_says_so(select: Callable[..., Any], tmp_path: Path) -> None:
    selection, log, tags = select(MadeUpJobs(tmp_path, source=(0.5, 0.61, 0.69)), select={"verdict": False})
    how = "seed 2 of 3, best source accuracy 0.69; no seed reaches the floor 0.8 (select.source_floor)"
    assert (selection.description, log["how"], tags["oncoshift.selection"]) == (how, how, how)
    assert selection.source_accuracy == 0.69
    assert (log["source_accuracies"]["2"], log["source_floor"]) == (0.69, 0.8)
    assert tags["oncoshift.source_accuracy"] == "0.6900"


def test_a_seed_above_the_source_floor_wins_over_a_surer_one_below_it(
    select: Callable[..., Any], tmp_path: Path
) -> None:
    selection, *_ = select(MadeUpJobs(tmp_path, source=(0.8, 0.79, 0.79)))
    assert selection.description == "seed 0 of 3, information_maximisation above source accuracy 0.8"


def test_limits_come_from_the_settings(select: Callable[..., Any]) -> None:
    selection, *_ = select(select={"trust_strength": 1.0, "least_share": 0.1})
    assert selection.verdict.kind is Kind.DOUBT
    assert "trusted from 1.00" in selection.verdict.reasons[0]


def test_a_verdict_that_is_not_asked_for_trains_nothing_and_is_doubt(
    select: Callable[..., Any], tmp_path: Path
) -> None:
    jobs = MadeUpJobs(tmp_path)
    selection, log, _ = select(jobs, select={"verdict": False})
    assert jobs.asked == []
    assert selection.verdict == VERDICT_TURNED_OFF
    assert log["verdict"] == "doubt"


def test_one_source_organ_trains_nothing_and_is_doubt_with_that_reason(
    select: Callable[..., Any], tmp_path: Path
) -> None:
    jobs = MadeUpJobs(tmp_path)
    selection, *_ = select(jobs, sources=["lung"])
    assert jobs.asked == []
    assert selection.verdict.kind is Kind.DOUBT
    assert selection.verdict.reasons[0].startswith("one source organ")


def test_a_single_organ_of_its_own_does_not_stand_in_the_way(select: Callable[..., Any], tmp_path: Path) -> None:
    """`single.organ` names an organ that the other organs' models do not have."""
    jobs = MadeUpJobs(tmp_path)
    select(jobs, train={"method": "single"}, single={"organ": "colon"})
    assert [organs for organs, _ in jobs.asked] == [("lung",), ("colon",), ("breast",)]


def test_the_oracle_picks_by_the_audit_set_and_says_so(select: Callable[..., Any]) -> None:
    selection, log, tags = select(select={"validator": "oracle"})
    assert selection.picked.job.seed == 0, "right most often, and least certain"
    assert log["scores"]["0"] == pytest.approx(0.95, abs=0.05)
    assert tags["oncoshift.oracle"] == "true"
    assert "oracle" in tags["oncoshift.selection"]


def test_equal_seeds_come_to_the_first(select: Callable[..., Any], tmp_path: Path) -> None:
    assert select(MadeUpJobs(tmp_path, im=(0.4, 0.4, 0.4)))[0].picked.job.seed == 0


def test_what_is_found_in_a_training_is_in_its_run(
    select: Callable[..., Any], tmp_path: Path, tracker: Tracker
) -> None:
    select(MadeUpJobs(tmp_path, malignant=0.999))
    run = tracker.find_run(f"{tmp_path}/witness-lung-alone")
    assert run is not None
    finding = "constant predictor: 99.9% of the target is called malignant (each class needs 2%)"
    assert run.data.tags["oncoshift.findings"] == finding
    assert run.data.tags["mlflow.note.content"] == f"- {finding}"


@pytest.mark.parametrize("turned", [False, True])
def test_anchors_are_a_second_witness_and_named(select: Callable[..., Any], tmp_path: Path, turned: bool) -> None:
    jobs = MadeUpJobs(tmp_path, turned=("lung", "colon", "breast", "pool") if turned else ())
    selection, log, tags = select(jobs, select={"anchors": True})
    assert selection.verdict.kind is (Kind.REFUSE if turned else Kind.TRUST)
    assert (log["anchor_correlations"]["nuclei"] > 0) is not turned
    assert tags["oncoshift.anchor"] == log["anchor"] == "nuclei in verdict"


@pytest.mark.parametrize("turned", [False, True])
def test_the_same_training_on_another_stain_variant_is_a_witness(
    select: Callable[..., Any], tmp_path: Path, tracker: Tracker, turned: bool
) -> None:
    jobs = MadeUpJobs(tmp_path, turned_stains=("reinhard",) if turned else ())
    selection, log, _ = select(jobs, select={"variants": ["none", "reinhard"]})
    assert [organs for organs, _ in jobs.asked] == [("lung",), ("colon",), ("breast",), ("lung", "colon", "breast")]
    assert selection.verdict.kind is (Kind.DOUBT if turned else Kind.TRUST)
    assert set(log["stain_agreement"]) == {"reinhard"}, "and not the pick's own"
    assert (log["stain_agreement"]["reinhard"] > 0.9) is not turned
    run = tracker.find_run(f"{tmp_path}/witness-on-reinhard")
    assert run is not None
    assert run.data.params["variant"] == "reinhard"


def test_a_witness_that_cannot_be_trained_is_no_fault_of_the_pick(select: Callable[..., Any], tmp_path: Path) -> None:
    selection, log, _ = select(MadeUpJobs(tmp_path, untrainable=("reinhard",)), select={"variants": ["reinhard"]})
    assert selection.verdict.kind is Kind.DOUBT
    assert "cannot be trained on reinhard" in selection.verdict.reasons[0]
    assert log["stain_agreement"] == {"reinhard": None}


def test_a_stain_variant_without_a_pack_is_told_before_anything_is_trained() -> None:
    with pytest.raises(SettingsError, match=r"select\.variants names 'macenko', which is not in normalize\.variants"):
        parse_settings({"select": {"variants": ["macenko"]}})


def test_a_method_that_reads_the_anchors_is_compared_by_anchor(select: Callable[..., Any], tmp_path: Path) -> None:
    network = tmp_path / "map.onnx"
    network.write_bytes(b"not opened here")
    jobs = MadeUpJobs(tmp_path)
    selection, log, tags = select(
        jobs,
        train={"method": "anchored"},
        anchor={"use": ["nuclei", "epithelium"], "epithelium": str(network)},
        select={"anchors": True},
        evaluate={"bootstrap": 100},
    )
    assert log["models"] == ["nuclei alone", "epithelium alone", "the pick"]
    assert [len(organs) for organs, _ in jobs.asked] == [3, 3], "all organs, one anchor each"
    assert selection.anchors == {}, "the anchors are no witness for what they made"
    assert tags["oncoshift.anchor"].startswith("nuclei + epithelium (map.onnx, ")
    assert tags["oncoshift.anchor"].endswith(" in training")


def test_no_anchor_is_told_as_none(select: Callable[..., Any]) -> None:
    _, log, tags = select()
    assert (log["anchor"], tags["oncoshift.anchor"]) == ("", "none")


@pytest.mark.parametrize("name", ["strength", "agreement", "correlation"])
def test_limits_out_of_order_are_told_before_anything_is_trained(name: str) -> None:
    with pytest.raises(SettingsError, match=f"refuse_{name} 0.7 is above trust_{name} 0.6"):
        parse_settings({"select": {f"refuse_{name}": 0.7, f"trust_{name}": 0.6}})


def test_the_cross_organ_matrix_shows_from_which_organ_the_classes_are_inverted(
    select: Callable[..., Any], tracker: Tracker, tmp_path: Path
) -> None:
    select(MadeUpJobs(tmp_path, turned=("colon",)), evaluate={"bootstrap": 100})
    run = tracker.find_run(f"{tmp_path}/select")
    assert run is not None
    file = Path(tracker.client.download_artifacts(run.info.run_id, "cross_organ.json"))
    saved = json.loads(file.read_text())
    matrix = pd.DataFrame(saved["data"], columns=saved["columns"]).set_index(["trained_on", "tested_on"])
    accuracies = matrix["balanced_accuracy"].unstack()
    assert set(accuracies.index) == {"lung", "colon", "breast", "all"}
    assert accuracies["kidney"].to_dict() == {"lung": 1.0, "colon": 0.0, "breast": 1.0, "all": 1.0}
    assert (accuracies.drop(columns="kidney") == 1.0).all(axis=None)
    assert matrix.loc[("all", "kidney"), "seeds"] == 3
    assert "plots/cross_organ.png" in [each.path for each in tracker.client.list_artifacts(run.info.run_id, "plots")]


def test_plain_measures_are_recorded_after_the_verdict_and_some_flip(
    select: Callable[..., Any], tmp_path: Path, tracker: Tracker
) -> None:
    verdict = select(MadeUpJobs(tmp_path))[0].verdict
    run = tracker.find_run(f"{tmp_path}/select")
    assert run is not None
    values = json.loads(Path(tracker.client.download_artifacts(run.info.run_id, "shortcuts.json")).read_text())
    table = pd.DataFrame(values["data"], columns=values["columns"])
    assert set(table["organ"]) == {"lung", "kidney"}
    assert "| flips |" in Path(tracker.client.download_artifacts(run.info.run_id, "shortcuts.md")).read_text()
    for run_id in (run.info.run_id, tracker.find_run(str(tmp_path)).info.run_id):
        assert "plots/shortcuts.png" in [each.path for each in tracker.client.list_artifacts(run_id, "plots")]
    assert verdict.kind is Kind.TRUST, "it decides nothing"


def test_source_accuracy_is_said_to_be_of_the_model_that_labels_corrected(
    select: Callable[..., Any], tmp_path: Path
) -> None:
    labelled = {"benign_labels": 4.0, "malignant_labels": 6.0}
    for source, how in (
        (0.95, "seed 1 of 3, information_maximisation above source accuracy 0.8"),
        (0.69, "seed 0 of 3, best source accuracy 0.69"),
    ):
        jobs = MadeUpJobs(tmp_path, source=(source, source, source), more=labelled)
        selection, log, tags = select(jobs, select={"verdict": False})
        assert tags["oncoshift.source_accuracy"] == f"{source:.4f} (of the model before labels corrected it)"
        assert tags["oncoshift.selection"].startswith(f"{how} (of the model before labels corrected it)")
        assert log["how"] == selection.description == tags["oncoshift.selection"]
