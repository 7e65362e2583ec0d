"""Credentials are removed from every form of URL that a service of this project takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oncoshift.cli import main
from oncoshift.errors import OncoshiftError, RegistryError
from oncoshift.secrets import has_password, remove_credentials

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg2://me:hunter2@db:5432/studies", "postgresql+psycopg2://db:5432/studies"),
        ("postgresql://me:hunter2@/studies?host=/run", "postgresql:///studies?host=/run"),
        ("postgresql://db/s?user=me&password=hunter2&sslmode=x", "postgresql://db/s?user=me&password=***&sslmode=x"),
        ("postgresql://db/s?sslpassword=hunter2", "postgresql://db/s?sslpassword=***"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Dhunter2", "mssql+pyodbc:///?odbc_connect=***"),
        ("http://me:hunter2@127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("http://me:hun@ter2@host/#/a", "http://host/#/a"),
        ("postgresql://me:hunter2/x@host/studies", "postgresql://host/studies"),
        ("postgresql://me:hunter2?x#@host/studies", "postgresql://host/studies"),
        ("https://x-access-token:hunter2@host/a.git: no such remote", "https://host/a.git: no such remote"),
        ("https://b/tiles?X-Amz-Signature=hunter2&sig=hunter2", "https://b/tiles?X-Amz-Signature=***&sig=***"),
        ("no answer: host=db user=me password=hunter2 port=1", "no answer: host=db user=me password=*** port=1"),
        ("host=h password='hun ter2' port=1", "host=h password=*** port=1"),
        (r"host=h password='hun\'ter2' port=1", "host=h password=*** port=1"),
        ("password = hunter2", "password = ***"),
        ("{'password': 'hun ter2', 'port': 1}", "{'password': ***, 'port': 1}"),
        ('{"api_key": "hunter2"}', '{"api_key": ***}'),
        ("https://b/?token=hun,ter2&to=a", "https://b/?token=***&to=a"),
        ("postgresql://me:hunter2/x@y@host/studies", "postgresql://host/studies"),
        ("postgresql://me:123/abc@host/studies", "postgresql://host/studies"),
        ("see http://me:hunter2@a/ and http://me:hunter2@b/", "see http://a/ and http://b/"),
    ],
)  # fmt: skip
def test_credentials_are_cut(text: str, shown: str) -> None:
    assert remove_credentials(text) == shown
    assert has_password(text)
    assert not has_password(shown.replace("***", ""))


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:///runs/optuna.db",
        "http://127.0.0.1:5000/#/models/a@champion",
        "http://127.0.0.1:5000?to=a@b",
        "postgresql://host:5432/studies",
        "the token: unexpected; a password is needed",
        "models:/oncoshift-kidney@champion",
        "git@example.org:group/project.git",
        "someone@example.org wrote tune.storage",
    ],
)
def test_what_is_no_credential_stays(text: str) -> None:
    assert remove_credentials(text) == text
    assert not has_password(text)


def test_a_user_alone_is_not_shown_and_is_no_password() -> None:
    assert remove_credentials("ssh://me@host/data") == "ssh://host/data"
    assert not has_password("ssh://me@host/data")


def test_no_error_of_this_package_repeats_credentials() -> None:
    """The message may come from another library and contain the address."""
    error = RegistryError("cannot open: API request to http://me:hunter2@host/api failed")
    assert str(error) == "cannot open: API request to http://host/api failed"


@pytest.mark.parametrize("uri", ["http://me:hunter2@127.0.0.1:9", "postgresql://me:hunter2@127.0.0.1:9/mlflow"])
def test_doctor_shows_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], uri: str
) -> None:
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")  # so that pytest restores what the code sets
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    code = main(["doctor"])
    said = "".join(capsys.readouterr())
    assert code == OncoshiftError.exit_code
    assert remove_credentials(uri) in said
    assert "hunter2" not in said
