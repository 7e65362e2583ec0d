"""An experiment is a folder with params.yaml and dvc.yaml; the project's root is one.

Settings from a preset or `--set` get a folder of their own, `experiments/<name>/`. It is a DVC repository of its own:
DVC refuses to track outputs in a folder that git ignores, and two experiments never wait for each other's lock. They
share the project's cache, so a stage that one has run is restored, not run, in another; and the project's trainings,
features and studies, see `Layout.shared`.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from oncoshift.errors import OncoshiftError, SettingsError
from oncoshift.files import atomic, hold_lock
from oncoshift.layout import Layout
from oncoshift.settings import dump_settings, replace_values
from oncoshift.settings.files import expand

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from pathlib import Path

    from oncoshift.settings import Settings, TrackingSettings

EXPERIMENTS = "experiments"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SQLITE = "sqlite:///"
_DVC_CONFIG = """\
[core]
    no_scm = true
    analytics = false
    check_update = false
[cache]
    dir = ../../../.dvc/cache
"""


class ExperimentError(OncoshiftError):
    """There is no project here, an experiment's name is not usable, or another process works in the experiment."""


def is_experiment(folder: Path) -> bool:
    """Whether a folder has what makes it one."""
    return (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file()


def find_project(start: Path) -> Path:
    """The nearest folder from `start` upwards with dvc.yaml and params.yaml that is no experiment of another project.

    Raises:
        ExperimentError: there is none.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        if is_experiment(folder) and not (folder.parent.name == EXPERIMENTS and is_experiment(folder.parent.parent)):
            return folder
    raise ExperimentError(f"{start}: no project here or above; run inside a folder that has params.yaml and dvc.yaml")


def locate_experiment(project: Path, name: str) -> Layout:
    """Where the experiment `name` of a project lies; what it shares with the others is the project's.

    Raises:
        ExperimentError: the name is not usable.
    """
    if not _NAME.fullmatch(name):
        raise ExperimentError(f"experiment {name!r}: use letters, digits, dots, dashes and underscores, 100 at most")
    return Layout(project / EXPERIMENTS / name, project)


def prepare_experiment(project: Path, settings: Settings, name: str) -> Layout:
    """Make `experiments/<name>/` ready to run; what is there already and unchanged is left alone.

    Args:
        project: the project's root.
        settings: all settings of the experiment; relative paths in `ingest.root` and `model.weights` are the project's,
            and become absolute.
        name: letters, digits, dots, dashes and underscores, 100 at most.

    Returns:
        The experiment's layout.

    Raises:
        ExperimentError: the name is not usable.
    """
    layout = locate_experiment(project, name)
    _write_if_changed(layout.params, dump_settings(_make_paths_absolute(settings, project)))
    _write_if_changed(layout.folder / "dvc.yaml", (project / "dvc.yaml").read_text(encoding="utf-8"))
    _write_if_changed(layout.folder / ".dvc" / "config", _DVC_CONFIG)
    return layout


def resolve_tracking_uri(project: Path, settings: TrackingSettings, environ: MutableMapping[str, str]) -> str:
    """Where MLflow keeps everything: `MLFLOW_TRACKING_URI` as it stands, if set, else the setting.

    A relative SQLite path in the setting is the project's, whichever experiment asks; its folder is made if need be.
    MLflow prints a server's address and has it in its errors, so user and password move from it to the variables of
    `environ` that MLflow takes them from as well.

    Raises:
        SettingsError: it is no address, or a variable in the setting is not set.
    """
    given = environ.get("MLFLOW_TRACKING_URI")
    uri = given or resolve_url(settings.uri, project)
    try:
        parts = urlsplit(uri)
    except ValueError:
        name = "MLFLOW_TRACKING_URI" if given else "tracking.uri"
        raise SettingsError(f"{name}: is no address; percent-encode special characters of user and password") from None
    if parts.scheme in ("http", "https") and parts.username is not None:
        environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        if parts.password is not None:
            environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return uri


def resolve_url(url: str, folder: Path) -> str:
    """A setting's URL as it is used.

    Args:
        url: `${NAME}` in it is replaced from the environment.
        folder: where a relative SQLite path begins; the database's own folder is made.

    Raises:
        SettingsError: a variable is not set.
    """
    url = expand(url)
    if not url.startswith(_SQLITE):
        return url
    database = folder.resolve() / url.removeprefix(_SQLITE)
    with suppress(OSError):  # who opens the database says so; who only asks for its address may not need it
        database.parent.mkdir(parents=True, exist_ok=True)
    return f"{_SQLITE}{database}"


@contextmanager
def hold_experiment(layout: Layout) -> Iterator[None]:
    """Hold an experiment for this process. The system lets go of it when the process ends, however it ends.

    Raises:
        ExperimentError: another process holds it.
    """
    path = layout.folder / "runs" / "experiment.lock"
    path.parent.mkdir(parents=True, exist_ok=True)

    def busy() -> ExperimentError:
        return ExperimentError(
            f"{layout.folder}: process {path.read_text(encoding='utf-8') or 'unknown'} works in this experiment; "
            "wait until it is done, or end it"
        )

    with hold_lock(path, busy):
        path.write_text(str(os.getpid()), encoding="utf-8")
        yield


def _make_paths_absolute(settings: Settings, project: Path) -> Settings:
    project = project.resolve()
    changed = {"ingest.root": str(project / settings.ingest.root)}
    if settings.model.weights.endswith(".safetensors"):
        changed["model.weights"] = str(project / settings.model.weights)
    return replace_values(settings, changed)


def _write_if_changed(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
