"""The platform as compose.yaml starts it, as processes of one machine.

PostgreSQL, an S3 store, MLflow with log-in and artifacts passed through, Prefect, two workers.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import yaml
from e2e.conftest import REPOSITORY, Project
from optuna.storages import RDBStorage
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate
from sqlalchemy import NullPool
from support.team import POOL, Team
from support.topology import APPROVER, Tracking, create_database, log_in, running_tracking

from oncoshift.cli import main
from oncoshift.errors import RegistryError
from oncoshift.registry.folder import Package
from oncoshift.registry.history import find_champion
from oncoshift.registry.packaging import log_and_register
from oncoshift.registry.promotion import promote
from oncoshift.registry.tracking import KEY_TAG, Tracker
from oncoshift.serving.classifier import TileClassifier
from oncoshift.serving.config import ServedConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna.trial import FrozenTrial

TARGETS: dict[str, dict[str, object]] = {"kidney": {}, "lung": {"target": "lung", "sources": ["colon", "kidney"]}}
"""Parameters of the deployment of each target; kidney is the project's own."""
TRIALS = 2


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    with running_tracking(tmp_path_factory.mktemp("servers")) as made:
        yield made


@pytest.fixture
def logged_in(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    for name, value in tracking.environment.items():
        monkeypatch.setenv(name, value)
    return tracking


def make_package() -> Package:
    torch.manual_seed(0)
    state = TileClassifier("resnet18", 16, 0.5).state_dict()
    config = ServedConfig("oncoshift-liver", "liver", ("lung",), "resnet18", 16, 0.5, tile_size=32)
    tiles = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    return Package(config, state, "# card", list(tiles))


def test_a_version_is_registered_promoted_and_pulled_through_the_server_alone(
    logged_in: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(logged_in.uri, "tests")
    run = tracker.find_or_start_run("liver", "liver")
    tracker.log_text(run, "evidence", "report.html")
    version = log_and_register(tracker, run, "oncoshift-liver", make_package())
    with pytest.raises(RegistryError, match="only a user with the role promoter"):
        promote(tracker.client, "oncoshift-liver", version.version, "good", "worker")
    for name, value in log_in(APPROVER).items():
        monkeypatch.setenv(name, value)
    promote(tracker.client, "oncoshift-liver", version.version, "good", "anna")
    monkeypatch.chdir(REPOSITORY)
    pulled = tmp_path / "pulled"
    assert main(["pull", "--model", "models:/oncoshift-liver@champion", "--dest", str(pulled)]) == 0
    assert (pulled / "model" / "artifacts" / "weights.safetensors").is_file()
    kept = [Path(key).name for key in logged_in.list_objects()]
    assert {"report.html", "weights.safetensors"} <= set(kept), "artifacts are in the S3 store"
    assert "X-Amz-Signature" not in logged_in.log.read_text(), "a client asked the S3 store itself"


def test_a_wrong_password_is_one_line(
    logged_in: Tracking, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another-password")
    assert main(["models"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0
    assert "401" in said
    assert "MLFLOW_TRACKING_PASSWORD" in said


@pytest.fixture
def studies(tracking: Tracking) -> RDBStorage:
    """A database for studies, read without connections that stay: PostgreSQL allows a hundred."""
    return RDBStorage(create_database(tracking.database, "studies"), engine_kwargs={"poolclass": NullPool})


@pytest.fixture
def team(tracking: Tracking, project: Project, studies: RDBStorage) -> Iterator[Team]:
    """A Prefect server with a deployment for each target, and two workers."""
    project.change(
        train={"epochs": 1, "steps_per_epoch": 2},
        tune={"trials": TRIALS, "epochs": 16, "storage": studies.url},
        retrain={"seeds": 1},
        select={"verdict": False},
        explain={"tiles": 2},
        gate={"approval": "human"},
    )
    listed = [
        {
            "name": f"retrain-{target}",
            "entrypoint": "flows.retrain.retrain",
            "work_pool": {"name": POOL},
            "parameters": parameters,
        }
        for target, parameters in TARGETS.items()
    ]
    (project.root / "prefect.yaml").write_text(yaml.safe_dump({"deployments": listed}))
    database = create_database(tracking.database, "prefect")
    made = Team(project.root, REPOSITORY, database, tracking.environment)
    try:
        made.start_server()
        with made.open_client() as client:
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="gpu", limit=2))
        for name in ("first", "second"):
            made.start_worker(name)
        made.call("flows.deploy")
        yield made
    finally:
        made.end()


def list_studies(storage: RDBStorage) -> list[list[FrozenTrial]]:
    """List the trials of each study."""
    return [storage.get_all_trials(study._study_id) for study in storage.get_all_studies()]


def find_pid(trial: FrozenTrial) -> int:
    """Find the process that ran a trial; 0 if none has begun."""
    return int(trial.user_attrs.get("worker", ":0").rpartition(":")[2])


def test_two_workers_retrain_two_targets_and_one_ends_what_the_other_was_killed_with(
    team: Team, studies: RDBStorage, logged_in: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {target: team.start_run(f"retrain/retrain-{target}") for target in TARGETS}
    workers = {target: team.wait_for_worker(run) for target, run in runs.items()}
    assert set(workers.values()) == {"first", "second"}, "both at once, each on a worker of its own"

    def is_searching() -> bool:
        killed = team.list_pids(workers["kidney"])
        found = (
            [trial.state.name for trial in trials if find_pid(trial) in killed] for trials in list_studies(studies)
        )
        return ["COMPLETE", "RUNNING"] in found

    team.wait_until(is_searching, "a second trial for kidney")
    assert team.read_run(runs["lung"]).state_name == "Running"
    team.kill(workers["kidney"])
    again = team.start_run("retrain/retrain-kidney")
    for run in (runs["lung"], again):
        team.wait_until(lambda run=run: team.has_ended(run), "the end of both retrainings")  # type: ignore[misc]
        assert team.read_run(run).state_name == "Suspended", "for a person's approval"
    assert team.read_run(runs["kidney"]).state_name == "Crashed", "which the next run says of it"

    searched = list_studies(studies)
    assert len(searched) == len(TARGETS)
    (shared,) = (trials for trials in searched if len(trials) > TRIALS)
    ended = [trial for trial in shared if trial.state.name in ("COMPLETE", "PRUNED")]
    assert sorted(trial.user_attrs["configuration"] for trial in ended) == list(range(TRIALS)), "each counts once"
    assert len({find_pid(trial) for trial in ended}) == 2, "both workers have ended trials of it"

    tracker = Tracker(logged_in.uri, "oncoshift")
    found = tracker.client.search_runs([tracker.experiment_id], max_results=1000)
    assert max(Counter(each.data.tags[KEY_TAG] for each in found).values()) == 1, "nothing was done twice"
    assert {each.info.status for each in found} == {"FINISHED"}
    steps = Counter(each.data.tags["oncoshift.step"] for each in found)
    assert (steps["retrain"], steps["trial"]) == (len(TARGETS), TRIALS * len(TARGETS))
    for name, value in log_in(APPROVER).items():
        monkeypatch.setenv(name, value)
    for target in TARGETS:
        model = f"oncoshift-{target}"
        assert find_champion(tracker.client, model) is None
        params = str(team.root / "params.yaml")
        assert main(["approve", "1", "--model", model, "--reason", "good", "--params", params]) == 0
        assert find_champion(tracker.client, model) == "1"
