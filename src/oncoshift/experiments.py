"""Experiments: folders with params.yaml and dvc.yaml, of which the project's root is one.

Settings from a preset or `--set` get a folder of their own, `experiments/<name>/`. Each is a
separate DVC repository, because DVC refuses to track outputs in a folder that git ignores, and so
that no experiment waits for another's lock. They share the project's DVC cache, so a stage that one
has run is restored in another, and the project's trainings, features and studies (see
`Layout.shared`).
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
EXPERIMENT_TAG = "oncoshift.experiment"
"""Tag of a retraining's run with the name of its experiment; absent for the project's root."""
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
    """No project is here, an experiment's name is invalid, or another process is using it."""


def is_experiment(folder: Path) -> bool:
    """Return whether a folder is an experiment."""
    return (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file()


def find_project(start: Path) -> Path:
    """Find the nearest project at or above `start`, skipping experiments of another project.

    Raises:
        ExperimentError: there is none.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        if is_experiment(folder) and not (folder.parent.name == EXPERIMENTS and is_experiment(folder.parent.parent)):
            return folder
    raise ExperimentError(f"{start}: no project here or above; run inside a folder that has params.yaml and dvc.yaml")


def locate_experiment(project: Path, name: str) -> Layout:
    """Return the layout of a project's experiment by its name.

    Raises:
        ExperimentError: the name is invalid.
    """
    if not _NAME.fullmatch(name):
        raise ExperimentError(f"experiment {name!r}: use letters, digits, dots, dashes and underscores, 100 at most")
    return Layout(project / EXPERIMENTS / name, project)


def open_layout(folder: Path) -> Layout:
    """Return the layout of an experiment, by its folder; one of a project shares its runs."""
    above = folder.resolve().parent
    owned = above.name == EXPERIMENTS and is_experiment(above.parent)
    return Layout(folder, above.parent if owned else None)


def prepare_experiment(project: Path, settings: Settings, name: str) -> Layout:
    """Write the files of `experiments/<name>/`; files that have not changed are left alone.

    Args:
        project: the project's root.
        settings: of the experiment; `ingest.root` and `model.weights` are relative to the project
            and become absolute.
        name: letters, digits, dots, dashes and underscores, 100 at most.

    Returns:
        The experiment's layout.

    Raises:
        ExperimentError: the name is invalid.
    """
    layout = locate_experiment(project, name)
    _write_if_changed(layout.params, dump_settings(_make_paths_absolute(settings, project)))
    _write_if_changed(layout.folder / "dvc.yaml", (project / "dvc.yaml").read_text(encoding="utf-8"))
    _write_if_changed(layout.folder / ".dvc" / "config", _DVC_CONFIG)
    return layout


def resolve_tracking_uri(project: Path, settings: TrackingSettings, environ: MutableMapping[str, str]) -> str:
    """Return MLflow's tracking URI: `MLFLOW_TRACKING_URI` unchanged if set, else the setting.

    A relative SQLite path in the setting is relative to the project, for every experiment; its
    folder is created. MLflow prints a server's address and quotes it in errors, so user and
    password are moved out of the address into the variables of `environ` from which MLflow also
    reads them.

    Raises:
        SettingsError: it is not a valid address, or a variable in the setting is not set.
    """
    given = environ.get("MLFLOW_TRACKING_URI")
    uri = given or resolve_url(settings.uri, project)
    try:
        parts = urlsplit(uri)
    except ValueError:
        name = "MLFLOW_TRACKING_URI" if given else "tracking.uri"
        raise SettingsError(
            f"{name}: is not a valid URL; percent-encode special characters of user and password"
        ) from None
    if parts.scheme in ("http", "https") and parts.username is not None:
        environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        if parts.password is not None:
            environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return uri


def resolve_url(url: str, folder: Path) -> str:
    """Resolve variables and a relative SQLite path in a setting's URL.

    Args:
        url: `${NAME}` in it is replaced from the environment.
        folder: to which a SQLite path is relative; the database's folder is created.

    Raises:
        SettingsError: a variable is not set.
    """
    url = expand(url)
    if not url.startswith(_SQLITE):
        return url
    database = folder.resolve() / url.removeprefix(_SQLITE)
    with suppress(OSError):  # reported when the database is opened, which may never happen
        database.parent.mkdir(parents=True, exist_ok=True)
    return f"{_SQLITE}{database}"


@contextmanager
def hold_experiment(layout: Layout) -> Iterator[None]:
    """Lock an experiment for this process; the system releases the lock however the process ends.

    Raises:
        ExperimentError: another process has locked it.
    """
    path = layout.folder / "runs" / "experiment.lock"
    path.parent.mkdir(parents=True, exist_ok=True)

    def busy() -> ExperimentError:
        return ExperimentError(
            f"{layout.folder}: process {path.read_text(encoding='utf-8') or 'unknown'} is using this experiment; "
            "wait until it is done, or end it"
        )

    with hold_lock(path, busy):
        path.write_text(str(os.getpid()), encoding="utf-8")
        yield


def resolve_weights(settings: Settings, folder: Path) -> Settings:
    """Make paths of networks' files absolute, so that they name one file in any working folder."""
    paths = {"model.weights": settings.model.weights, "anchor.epithelium": settings.anchor.epithelium}
    given = {key: path for key, path in paths.items() if path and path.endswith((".safetensors", ".onnx"))}
    absolute = {key: str(folder.resolve() / path) for key, path in given.items()}
    return replace_values(settings, absolute) if absolute else settings


def _make_paths_absolute(settings: Settings, project: Path) -> Settings:
    root = {"ingest.root": str(project.resolve() / settings.ingest.root)}
    return resolve_weights(replace_values(settings, root), project)


def _write_if_changed(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
