"""What the registry and the runs of a store need: live versions, and their retrainings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mlflow.entities import ViewType
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from oncoshift.maintenance.garbage import count_days_since
from oncoshift.registry.approval import Approval
from oncoshift.registry.changes import INTENT_TAG
from oncoshift.registry.history import RETRAINING_TAG, list_events, read_aliases, search_versions
from oncoshift.registry.models import list_models
from oncoshift.registry.pages import read_pages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

_STEP = "oncoshift.step"
_JOB = "oncoshift.job"
_ENDED = ("FAILED", "KILLED")


@dataclass(frozen=True)
class Version:
    """A version of a registered model, and why it stays.

    Attributes:
        entity: as MLflow has it.
        need: why it is needed, or empty.
    """

    entity: ModelVersion
    need: str

    @property
    def retraining(self) -> str:
        """Id of the run of the retraining that registered it."""
        return str(self.entity.tags.get(RETRAINING_TAG, self.entity.run_id))


@dataclass(frozen=True)
class Retraining:
    """A retraining's run, and all runs nested in it.

    Attributes:
        run: its own.
        nested: the others.
    """

    run: Run
    nested: tuple[Run, ...]

    @property
    def id(self) -> str:
        """Id of its run."""
        return str(self.run.info.run_id)

    @property
    def runs(self) -> tuple[Run, ...]:
        """All its runs, the inner ones first."""
        return (*reversed(self.nested), self.run)

    @property
    def jobs(self) -> set[str]:
        """Ids of the jobs that it trained or found."""
        return {value for run in self.runs for key, value in run.data.tags.items() if key.startswith(_JOB)}

    @property
    def data(self) -> set[str]:
        """DVC hashes of the data that it read."""
        inputs = (run.inputs.dataset_inputs for run in self.runs if run.inputs is not None)
        return {each.dataset.digest for each_run in inputs for each in each_run}

    @property
    def days(self) -> float:
        """Days since any of its runs began or ended."""
        return min(count_days_since(run.info.end_time or run.info.start_time) for run in self.runs)

    @property
    def is_open(self) -> bool:
        """Whether it goes on, or waits to."""
        return self.run.info.status not in ("FINISHED", *_ENDED)

    @property
    def has_failed(self) -> bool:
        """Whether it ended without a result."""
        return self.run.info.status in _ENDED


@dataclass(frozen=True)
class Uses:
    """The versions and retrainings of a store.

    Attributes:
        client: of the store.
        experiment: name of the experiment that retrainings are in.
        days: what is younger stays.
    """

    client: MlflowClient
    experiment: str
    days: float

    @cached_property
    def versions(self) -> list[Version]:
        """All versions of oncoshift's models."""
        return [
            version for model in list_models(self.client) for version in list_versions(self.client, model, self.days)
        ]

    @cached_property
    def retrainings(self) -> list[Retraining]:
        """All retrainings of the experiment, the newest first."""
        experiment = self.client.get_experiment_by_name(self.experiment)
        if experiment is None:
            return []
        runs = list(_search_runs(self.client, experiment.experiment_id))
        children: dict[str, list[Run]] = {}
        for run in runs:
            children.setdefault(run.data.tags.get(MLFLOW_PARENT_RUN_ID, ""), []).append(run)

        def nest(run: Run) -> Iterator[Run]:
            for child in children.get(run.info.run_id, ()):
                yield child
                yield from nest(child)

        return [Retraining(run, tuple(nest(run))) for run in children.get("", ()) if _STEP in run.data.tags]

    @cached_property
    def needed(self) -> list[Retraining]:
        """The retrainings whose results are needed."""
        live = {version.retraining for version in self.versions if version.need}
        seen: set[str] = set()
        needed = []
        for each in self.retrainings:
            name = each.run.info.run_name
            newest = not each.has_failed and name not in seen
            if newest:
                seen.add(name)
            if newest or each.id in live or each.is_open or each.days < self.days:
                needed.append(each)
        return needed


def list_versions(client: MlflowClient, model: RegisteredModel, days: float) -> Iterator[Version]:
    """List the versions of a model, each with the reason why it stays if there is one."""
    aliases = read_aliases(client, model.name)
    champions = {
        version
        for event in list_events(client, model.name)
        if event.changes_champion
        for version in (event.version, event.replaced)
    }
    if INTENT_TAG in model.tags:
        champions |= {str(version) for version in aliases.values()}
    for entity in search_versions(client, model.name):
        number, approval = str(entity.version), Approval.read(entity.tags)
        need = ""
        if named := [alias for alias, version in aliases.items() if version == number]:
            need = f"has the alias {named[0]}"
        elif number in champions:
            need = "was champion: the audit log shows it, and a rollback may need it"
        elif approval is not None and approval.state == "awaited":
            need = "awaits approval"
        elif INTENT_TAG in model.tags:
            need = "a change of the model's aliases is under way"
        elif entity.status != "READY" or count_days_since(entity.last_updated_timestamp) < days:
            need = "is new"
        yield Version(entity, need)


def _search_runs(client: MlflowClient, experiment: str) -> Iterator[Run]:
    active, newest = ViewType.ACTIVE_ONLY, ["start_time DESC"]
    return read_pages(
        lambda token: client.search_runs([experiment], run_view_type=active, order_by=newest, page_token=token)
    )
