"""Runs in MLflow; logging is idempotent.

Every run has a key, unique in its experiment. A killed process that is started again finds its runs
by their keys and logs the same values again; nothing is lost and nothing doubled. All calls name
their run: MLflow's fluent API keeps the active run in global state, which threads and processes
would share.
"""

from __future__ import annotations

import json
import logging
import threading
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from mlflow import MlflowException
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_LOGGED_ARTIFACTS, MLFLOW_PARENT_RUN_ID
from mlflow.utils.validation import (
    MAX_DATASET_DIGEST_SIZE,
    MAX_METRICS_PER_BATCH,
    MAX_PARAM_VAL_LENGTH,
    MAX_PARAMS_TAGS_PER_BATCH,
)

from oncoshift.errors import OncoshiftError, RegistryError
from oncoshift.files import DamagedFileError, open_json, seal_json
from oncoshift.registry.client import find_or_make
from oncoshift.registry.embedded import find_database, wait_until_writable
from oncoshift.registry.processes import PROCESS_TAG, describe_process
from oncoshift.registry.store import ensure_experiment, find_artifact_root, hold_store, open_client
from oncoshift.registry.waiting import trying_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import pandas as pd
    from matplotlib.figure import Figure
    from mlflow.entities import Run

KEY_TAG = "oncoshift.key"
_FINISH_SECONDS = 5.0

MetricRow = tuple[int, int, "Mapping[str, float]"]
"""Step, time in milliseconds since 1970, and values by name."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Tracker:
    """One experiment in an MLflow store; safe to share between threads.

    Args:
        uri: `sqlite:///<path>` (the embedded store) or the address of an MLflow server.
        experiment: name of the experiment; created where absent.
        artifacts: URI of the folder for a new experiment's artifacts; default: `artifacts` beside
            an embedded store's database, or the server's own choice.
        tags: tags of every new run, for example those of `source.read_git_tags`.

    Raises:
        RegistryError: the store cannot be opened, or the experiment is deleted.
    """

    def __init__(
        self, uri: str, experiment: str, artifacts: str | None = None, tags: Mapping[str, str] | None = None
    ) -> None:
        self.uri = uri
        self.client = open_client(uri)
        self.experiment_id: str = ensure_experiment(
            self.client, experiment, artifacts or find_artifact_root(uri)
        ).experiment_id
        self._tags = dict(tags or {})

    def find_run(self, key: str) -> Run | None:
        """Find the run with this key, or None."""
        found = self.client.search_runs(
            [self.experiment_id],
            f"tags.`{KEY_TAG}` = {quote_text(key)}",
            max_results=1,
            order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
        )
        return found[0] if found else None

    def find_or_start_run(
        self, key: str, name: str, parent: str | None = None, tags: Mapping[str, str] | None = None
    ) -> str:
        """Find the run with this key, or start one; a run that is not finished is RUNNING again.

        Args:
            key: identity of the run, for example the hash of all that its job depends on; unique in
                the experiment.
            name: name of a new run in the UI.
            parent: id of the run under which the UI shows it.
            tags: tags of a new run.

        Returns:
            Its id.
        """
        nesting = {} if parent is None else {MLFLOW_PARENT_RUN_ID: parent}
        with hold_store(self.uri):
            labels = {**self._tags, **(tags or {}), **nesting, KEY_TAG: key}
            run = find_or_make(
                lambda: self.find_run(key),
                lambda: self.client.create_run(self.experiment_id, run_name=name, tags=labels),
            )
        if run.info.status != "FINISHED":
            self.client.set_tag(run.info.run_id, PROCESS_TAG, describe_process())
        if run.info.status not in ("RUNNING", "FINISHED"):
            self.client.update_run(run.info.run_id, status="RUNNING")
        return str(run.info.run_id)

    def is_finished(self, key: str) -> bool:
        """Tell whether the run with this key exists and is FINISHED."""
        run = self.find_run(key)
        return run is not None and run.info.status == "FINISHED"

    def finish(self, run_id: str, status: str = "FINISHED") -> None:
        """End a run: FINISHED, FAILED or KILLED.

        Raises:
            RegistryError: no such status.
        """
        if status not in ("FINISHED", "FAILED", "KILLED"):
            raise RegistryError(f"run {run_id}: status {status!r}; a run ends FINISHED, FAILED or KILLED")
        if self.client.get_run(run_id).info.status != status:
            self.client.set_terminated(run_id, status=status)

    def abandon(self, run_id: str, status: str, tags: Mapping[str, object]) -> None:
        """End a run in one brief try, before its process ends; it stays RUNNING if that fails.

        Args:
            run_id: the run.
            status: FAILED or KILLED.
            tags: tags to set before.
        """

        def end() -> None:
            self.set_tags(run_id, tags)
            self.finish(run_id, status)

        self._try_before_exit(run_id, end)

    def postpone(self, run_id: str) -> None:
        """Mark an unfinished run SCHEDULED for the next process, in one brief try."""

        def wait() -> None:
            if self.client.get_run(run_id).info.status != "FINISHED":
                self.client.update_run(run_id, status="SCHEDULED")

        self._try_before_exit(run_id, wait)

    def _try_before_exit(self, run_id: str, work: Callable[[], None]) -> None:
        """Do last work on a run without waiting or errors that would hide why the process ends."""
        database = find_database(self.uri)
        try:
            with trying_once():
                if database is not None:
                    wait_until_writable(database)
                work()
        except (OncoshiftError, MlflowException) as error:
            _log.warning("run %s stays RUNNING in MLflow until the next start: %s", run_id, error)

    def set_tags(self, run_id: str, tags: Mapping[str, object]) -> None:
        """Set tags; an existing tag gets the new value."""
        entities = [RunTag(key, str(value)) for key, value in tags.items()]
        for batch in _split_batches(entities, MAX_PARAMS_TAGS_PER_BATCH):
            self.client.log_batch(run_id, tags=batch)

    def log_params(self, run_id: str, params: Mapping[str, object]) -> None:
        """Log parameters; one that the run has keeps its value, since MLflow's never change."""
        known = self.client.get_run(run_id).data.params
        texts = {key: _format_param(value) for key, value in params.items()}
        changed = sorted(key for key, text in texts.items() if known.get(key, text) != text)
        if changed:
            _log.warning("run %s was started with other values of %s; it keeps them", run_id, ", ".join(changed))
        entities = [Param(key, text) for key, text in texts.items() if key not in known]
        for batch in _split_batches(entities, MAX_PARAMS_TAGS_PER_BATCH):
            self.client.log_batch(run_id, params=batch)

    def log_metrics(self, run_id: str, rows: Iterable[MetricRow]) -> None:
        """Log rows of metrics; a row that was logged before with the same time adds nothing.

        So the caller keeps the time with the values (for example in a checkpoint) and logs all rows
        again after a crash. Values may be NaN or infinite.
        """
        entities = [
            Metric(name, float(value), timestamp, step)
            for step, timestamp, values in rows
            for name, value in values.items()
        ]
        for batch in _split_batches(entities, MAX_METRICS_PER_BATCH):
            self.client.log_batch(run_id, metrics=batch)

    def log_figure(self, run_id: str, figure: Figure, path: str) -> None:
        """Save a figure as the run's artifact `path`, for example plots/roc.png."""
        self.client.log_figure(run_id, figure, path)

    def log_text(self, run_id: str, text: str, path: str) -> None:
        """Save a text as the run's artifact `path`."""
        self.client.log_text(run_id, text, path)

    def log_folder(self, run_id: str, folder: Path, path: str) -> None:
        """Save a folder's files as the run's artifacts below `path`, over earlier ones."""
        self.client.log_artifacts(run_id, str(folder), path)

    def log_file(self, run_id: str, file: Path, path: str) -> None:
        """Save a file as one of the run's artifacts below `path`."""
        self.client.log_artifact(run_id, str(file), path)

    def log_json(self, run_id: str, value: Any, path: str) -> None:
        """Save a JSON value as the run's artifact `path`."""
        self.client.log_text(run_id, json.dumps(value, indent=2, ensure_ascii=False) + "\n", path)

    def log_sealed(self, run_id: str, values: dict[str, Any], path: str) -> None:
        """Save JSON with its digest as the run's artifact `path`, for `read_sealed`."""
        self.client.log_text(run_id, seal_json(values), path)

    def read_sealed(self, run_id: str, path: str, *needed: str) -> dict[str, Any]:
        """Read the values that `log_sealed` saved as the run's artifact `path`.

        Raises:
            DamagedFileError: they have changed, lack a key of `needed`, or cannot be read.
        """
        with TemporaryDirectory() as scratch:
            try:
                file = Path(self.client.download_artifacts(run_id, path, scratch))
                text = file.read_bytes()
            except (MlflowException, OSError) as error:
                raise DamagedFileError(f"run {run_id}: artifact {path}: cannot be read: {error}") from error
        return open_json(text, f"run {run_id}: artifact {path}", *needed)

    def log_table(self, run_id: str, table: pd.DataFrame, path: str) -> None:
        """Save a table as the run's artifact `path` (.json), which the UI's evaluation tab shows.

        MLflow's own `log_table` appends to an existing table, and so doubles it after a crash.
        """
        self.client.log_text(run_id, table.to_json(orient="split", index=False, date_format="iso"), path)
        tag = self.client.get_run(run_id).data.tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]")
        entry = {"path": path, "type": "table"}
        if entry not in (tables := json.loads(tag)):
            self.client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([*tables, entry]))

    def read_table(self, run_id: str, path: str) -> pd.DataFrame:
        """Read the table that `log_table` saved as the run's artifact `path`.

        Raises:
            DamagedFileError: it is absent, or cannot be read.
        """
        from pandas import DataFrame

        with TemporaryDirectory() as scratch:
            try:
                content = json.loads(Path(self.client.download_artifacts(run_id, path, scratch)).read_bytes())
                return DataFrame(content["data"], columns=content["columns"])
            except (MlflowException, OSError, KeyError, ValueError) as error:
                raise DamagedFileError(f"run {run_id}: artifact {path}: cannot be read: {error}") from error

    def log_input(
        self,
        run_id: str,
        name: str,
        digest: str,
        source: str,
        context: str,
        profile: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log data that a run read.

        Args:
            run_id: the run.
            name: name of the data set, for example kidney/target_train.
            digest: DVC's md5 of the file or folder (at most 36 characters, so `.dir` fits).
            source: path of the data set, for example data/splits/target_train.parquet.
            context: training, validation, audit or test.
            profile: counts to show beside it, for example {"tiles": 120, "groups": 14}.
            tags: further tags of its use in this run.

        Raises:
            RegistryError: the digest is too long.
        """
        if len(digest) > MAX_DATASET_DIGEST_SIZE:
            raise RegistryError(f"input {name}: digest {digest!r} has more than {MAX_DATASET_DIGEST_SIZE} characters")
        dataset = Dataset(
            name, digest, "dvc", json.dumps({"uri": source}), profile=json.dumps(dict(profile)) if profile else None
        )
        labels = [InputTag(key, value) for key, value in {**(tags or {}), MLFLOW_DATASET_CONTEXT: context}.items()]
        self.client.log_inputs(run_id, [DatasetInput(dataset, labels)])

    @contextmanager
    def sampling_system_metrics(self, run_id: str, interval: float = 5.0) -> Iterator[None]:
        """Sample CPU, memory, disk, network and GPU during the block; errors are only logged.

        Args:
            run_id: a run that is RUNNING; samples of a resumed run follow its earlier ones.
            interval: seconds between samples.
        """
        monitor = None
        try:
            monitor = SystemMetricsMonitor(  # type: ignore[no-untyped-call]
                run_id, sampling_interval=interval, resume_logging=True, tracking_uri=self.uri
            )
            monitor.start()  # type: ignore[no-untyped-call]
        except Exception:  # whatever psutil or a driver raises
            _log.warning("no system metrics for run %s", run_id, exc_info=True)
        try:
            yield
        finally:
            if monitor is not None:
                _stop_sampling(monitor)


def _stop_sampling(monitor: SystemMetricsMonitor) -> None:
    """Stop sampling, without waiting for a store that does not take the last samples."""
    ending = threading.Thread(target=monitor.finish, daemon=True)
    ending.start()
    ending.join(_FINISH_SECONDS)
    if ending.is_alive():
        _log.warning("the last system metrics were not logged: the store does not answer")


def _format_param(value: object) -> str:
    """Format a parameter as MLflow stores it; a text that was cut ends in an ellipsis."""
    text = str(value)
    return text if len(text) <= MAX_PARAM_VAL_LENGTH else f"{text[: MAX_PARAM_VAL_LENGTH - 2]} …"


def quote_text(text: str) -> str:
    """Quote a text for MLflow's filter language, which has no escapes: one kind of quote may occur.

    Raises:
        RegistryError: it holds both.
    """
    if "'" not in text:
        return f"'{text}'"
    if '"' not in text:
        return f'"{text}"'
    raise RegistryError(f"key {text!r}: holds both kinds of quotes, and MLflow cannot search for it")


def _split_batches(entities: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (entities[start : start + size] for start in range(0, len(entities), size))
