"""Settings: later sources win, and a wrong key or value is one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from oncoshift.errors import SettingsError
from oncoshift.settings import Settings, dump_settings, flatten, load_settings, validate, with_values

PROJECT = Path(__file__).resolve().parent.parent


def test_params_yaml_is_valid_and_names_every_setting() -> None:
    """Its values are the project's to change; DVC needs every key that a stage depends on."""
    load_settings(PROJECT / "params.yaml")
    written = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    defaults = Settings().model_dump(mode="json")
    assert written.keys() == defaults.keys()
    for section, values in defaults.items():
        if isinstance(values, dict):
            assert written[section].keys() == values.keys(), section


@pytest.mark.parametrize("preset", ["demo", "paper", "real"])
def test_presets_are_valid(preset: str) -> None:
    load_settings(PROJECT / "params.yaml", preset=preset)


def test_the_demo_preset_is_the_default_experiment() -> None:
    assert validate(yaml.safe_load((PROJECT / "presets" / "demo.yaml").read_text(encoding="utf-8"))) == Settings()


def test_dump_reads_back_to_the_same_settings(tmp_path: Path) -> None:
    settings = with_values(Settings(), {"train.lr": 1e-5, "model.weights": "a.safetensors", "target": "skin"})
    (tmp_path / "params.yaml").write_text(dump_settings(settings), encoding="utf-8")
    assert load_settings(tmp_path / "params.yaml") == settings


def test_later_sources_win(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("train: {epochs: 3, lr: 0.5}\nseed: 1\n")
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "quick.yaml").write_text("train: {epochs: 2}\nsplit: {seed: 4}\n")
    settings = load_settings(tmp_path / "params.yaml", preset="quick", overrides=("split.seed=7", "train.method=erm"))
    assert (settings.train.lr, settings.train.epochs, settings.train.method) == (0.5, 2, "erm")
    assert (settings.seed, settings.split.seed) == (1, 7)
    assert settings.train.batch_size == Settings().train.batch_size


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("split.sed=1", "split.sed: unknown key; allowed here: val_share, audit_share"),
        ("splt.seed=1", "splt: unknown key; allowed here: target, sources"),
        ("train.epochs=0", "train.epochs: 0 is not allowed; input should be greater than or equal to 1"),
        ("model.backbone=vgg", "model.backbone: 'vgg' is not allowed; input should be 'resnet18' or 'resnet50'"),
        ("model.weights=x.pt", "model.weights: 'x.pt' is not allowed; must be none, imagenet or"),
        ("target=lung", "target 'lung' is also in sources"),
        ("normalize.variants=[reinhard]", "train.variant 'none' is not in normalize.variants"),
        ("split.audit_share=0.9", "must leave at least 0.2"),
        ("train.epochs", "--set train.epochs: expected section.key=value"),
        ("train.epochs=[1", "--set train.epochs=[1: '[1' is not a valid YAML value"),
    ],
)
def test_a_wrong_override_is_one_clear_line(override: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(overrides=(override,))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(overrides=("train.epochs=0", "split.sed=1"))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "message"), [("- 1", "must be a mapping"), ("a: [", "not valid YAML"), (None, "no such file")]
)
def test_an_unusable_file_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "params.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=message) as caught:
        load_settings(path)
    assert str(path) in str(caught.value)


def test_an_unknown_preset_lists_those_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").touch()
    with pytest.raises(SettingsError, match="has no presets"):
        load_settings(tmp_path / "params.yaml", preset="x")
    (tmp_path / "presets").mkdir()
    for name in ("demo", "real"):
        (tmp_path / "presets" / f"{name}.yaml").touch()
    with pytest.raises(SettingsError, match=r"--preset x: unknown; .* has demo, real"):
        load_settings(tmp_path / "params.yaml", preset="x")


def test_variables_are_replaced_with_a_default_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TILES", raising=False)
    assert load_settings(overrides=("ingest.root=${TILES:-here}/raw",)).ingest.root == "here/raw"
    with pytest.raises(SettingsError, match="the environment variable is not set"):
        load_settings(overrides=("ingest.root=${TILES}/raw",))
    monkeypatch.setenv("TILES", "/there")
    assert load_settings(overrides=("ingest.root=${TILES}/raw",)).ingest.root == "/there/raw"


def test_flat_keys_and_values_round_trip() -> None:
    flat = flatten(Settings())
    assert flat["dann.schedule"] == "ganin"
    assert with_values(Settings(), flat) == Settings()
