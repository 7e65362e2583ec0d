"""Later sources of settings win, and a wrong key or value is reported in one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from oncoshift.errors import SettingsError
from oncoshift.settings import Settings, dump_settings, flatten, load_settings, parse_settings, replace_values
from oncoshift.settings.files import find_preset

PROJECT = Path(__file__).resolve().parent.parent


def test_params_yaml_is_valid_and_names_every_setting() -> None:
    """Its values may be changed; DVC needs every key that a stage depends on."""
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
    assert parse_settings(yaml.safe_load((PROJECT / "presets" / "demo.yaml").read_text(encoding="utf-8"))) == Settings()


def test_dump_reads_back_to_the_same_settings(tmp_path: Path) -> None:
    settings = replace_values(Settings(), {"train.lr": 1e-5, "model.weights": "a.safetensors", "target": "skin"})
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
        (
            "model.backbone=vgg",
            "model.backbone: 'vgg' is not allowed; must be one of resnet18, resnet50, or timm/NAME, or",
        ),
        ("model.weights=x.pt", "model.weights: 'x.pt' is not allowed; must be none, imagenet, pretrained or"),
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
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    with pytest.raises(SettingsError, match="has no presets"):
        load_settings(tmp_path / "params.yaml", preset="x")
    (tmp_path / "presets").mkdir()
    for name in ("demo", "real"):
        (tmp_path / "presets" / f"{name}.yaml").touch()
    with pytest.raises(SettingsError, match=r"--preset x: unknown; .* has demo, real"):
        load_settings(tmp_path / "params.yaml", preset="x")


def test_variables_are_replaced_with_a_default_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def root(text: str) -> str:
        (tmp_path / "params.yaml").write_text(f"ingest: {{root: '{text}'}}\n")
        return load_settings(tmp_path / "params.yaml").ingest.root

    monkeypatch.delenv("TILES", raising=False)
    assert root("${TILES:-here}/raw") == "here/raw"
    with pytest.raises(SettingsError, match="the environment variable is not set"):
        root("${TILES}/raw")
    monkeypatch.setenv("TILES", "/there")
    assert root("${TILES}/raw") == "/there/raw"


@pytest.mark.parametrize("value", ["${HOME}", "[lung, '${HOME:-x}']", '"\\u0024{HOME}"', "{a: '${HOME}'}"])
def test_an_override_names_no_variable(value: str) -> None:
    """Overrides may come from a web page, and would expose the environment in logged settings."""
    with pytest.raises(
        SettingsError, match=r"--set ingest.root=.*: variables are replaced only in files; write ingest"
    ):
        load_settings(overrides=(f"ingest.root={value}",))


def test_what_is_used_late_keeps_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold a password, and settings are logged, hashed and written to params.yaml."""
    text = "tune: {storage: 'postgresql://me:${DB_PASSWORD}@db/s'}\ntracking: {uri: '${MLFLOW:-http://here}'}\n"
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(SettingsError, match=r"DB_PASSWORD.*is not set"):
        load_settings(tmp_path / "params.yaml")
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    settings = load_settings(tmp_path / "params.yaml")
    assert settings.tune.storage == "postgresql://me:${DB_PASSWORD}@db/s"
    assert settings.tracking.uri == "${MLFLOW:-http://here}"
    (tmp_path / "params.yaml").write_text(dump_settings(settings))
    assert load_settings(tmp_path / "params.yaml") == settings


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@db/s",
        "postgresql://db/s?user=me&password=hunter2",
        "postgresql://me:${X:-hunter2}@db/s",
    ],
)
@pytest.mark.parametrize("key", ["tune.storage", "tracking.uri", "ingest.root"])
def test_a_password_in_the_settings_is_refused_and_not_repeated(key: str, url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        replace_values(Settings(), {key: url})
    assert f"{key}: " in str(caught.value)
    assert "it holds a password; write ${NAME} in its place" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_error_repeats_a_password() -> None:
    url = "postgresql://me:hunter2@db/s"
    for override in (f"tune.storage={url}", f"tune.storage=[{url}", f"tune.storage=[{url}]", f"storage {url}"):
        with pytest.raises(SettingsError) as caught:
            load_settings(overrides=(override,))
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr=yes", "train.lr: 'yes' is not allowed; input should be a valid number"),
        ("train.lr=true", "train.lr: True is not allowed; input should be a valid number"),
        ("train.lr=12:30", "train.lr: '12:30' is not allowed; input should be a valid number"),
        ("train.lr='0.1'", "train.lr: '0.1' is not allowed; input should be a valid number"),
        ("train.lr=.inf", "train.lr: inf is not allowed; input should be a finite number"),
        ("train.lr=1e999", "train.lr: inf is not allowed; input should be a finite number"),
        ("gate.min_gain_over_control=.nan", "gate.min_gain_over_control: nan is not allowed; input should be a finite"),
        ("train.grad_clip=on", "train.grad_clip: 'on' is not allowed; input should be a valid number"),
        ("train.epochs=true", "train.epochs: True is not allowed; input should be a valid integer"),
        ("train.epochs=2.0", "train.epochs: 2.0 is not allowed; input should be a valid integer"),
        ("train.threads='2'", "train.threads: '2' is not allowed; input should be a valid integer"),
        ("train.augment=yes", "train.augment: 'yes' is not allowed; input should be a true or false"),
        ("train.augment=1", "train.augment: 1 is not allowed; input should be a true or false"),
        ("tracking.experiment=2024", "tracking.experiment: 2024 is not allowed; input should be a valid string"),
        ("tracking.experiment=2024-01-02", "datetime.date(2024, 1, 2) is not allowed; input should be a valid string"),
        ("train={lr: 1, lr: 2}", "found duplicate key \"lr\"; merge the two"),
        ("train={1: 2}", "train.1: "),
        ("train=null", "train: None is not allowed; input should be a section like Train"),
        ("train.seed=1" + "0" * 5000, "is not a valid YAML value"),
        ("sources=[lung, lung]", "sources: ['lung', 'lung'] is not allowed; names lung more than once"),
        ("sources=lung", "sources: 'lung' is not allowed; input should be a list"),
        ("phantom.organs=[lung, colon, lung]", "phantom.organs: ['lung', 'colon', 'lung'] is not allowed; names lung"),
        ("normalize.variants=[none, none]", "normalize.variants: ['none', 'none'] is not allowed; names none more"),
        ("tune.parameters=[train.lr, train.lr]", "is not allowed; names train.lr more than once"),
        ("seed=1\n---\n2", "expected a single document"),
    ],
)  # fmt: skip
def test_a_value_is_taken_as_what_it_is(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(overrides=(override,))
    assert message in str(caught.value)
    assert len(str(caught.value).replace(override, "").splitlines()) == 1


def test_the_same_rules_hold_for_files_and_for_tuning(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("train: {lr: yes}\n")
    with pytest.raises(SettingsError, match=r"train.lr: 'yes' is not allowed"):
        load_settings(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    (tmp_path / "quick.yaml").write_text("train:\n  batch_size: 12:30\n")
    with pytest.raises(SettingsError, match=r"train.batch_size: '12:30' is not allowed"):
        load_settings(tmp_path / "params.yaml", preset=str(tmp_path / "quick.yaml"))
    with pytest.raises(SettingsError, match=r"train.lr: True is not allowed"):
        replace_values(Settings(), {"train.lr": True})


@pytest.mark.parametrize(
    ("text", "number"), [("010", 10), ("0o10", 8), ("0x10", 16), ("1_000", 1000), ("1e-3", 0.001), ("1.0e-3", 0.001)]
)
def test_numbers_are_those_that_dvc_reads(tmp_path: Path, text: str, number: float) -> None:
    from dvc.utils.serialize import load_yaml

    section, key = ("train", "lr") if isinstance(number, float) else ("explain", "tiles")
    path = tmp_path / "params.yaml"
    path.write_text(f"{section}: {{{key}: {text}}}\n")
    assert flatten(load_settings(path))[f"{section}.{key}"] == number
    assert load_yaml(str(path))[section][key] == number


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"# nothing\n", "is empty"),
        (b"seed: 1\n---\nseed: 2\n", "not valid YAML: expected a single document"),
        (b"train: {lr: 0.1}\nseed: 1\ntrain: {epochs: 2}\n", 'line 3: found duplicate key "train"; merge the two'),
        (b"seed: 1\ntarget: M\xfcnchen\n", "line 2: byte 0xfc is not UTF-8; save the file as UTF-8"),
        ("seed: 1\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"seed: 1\ntarget: a\x00b\n", "not valid YAML"),
        (b"seed: [1\n", "line 2: not valid YAML: while parsing a flow"),
        (b"seed: 1\n  a: 2\n", "line 2: not valid YAML: mapping values are not allowed"),
        (b"seed: !!python/object:os.system x\n", "line 1: not valid YAML: could not determine a constructor"),
        (b"seed: 2024-13-45\n", "not valid YAML"),
        (b"a: &a [*a]\n", "more than 10000 values"),
        (b"a: &a {b: *a}\n", "more than 10000 values"),
        (b"a: " + b"[" * 5000 + b"]" * 5000, "or 20 levels"),
        (b"a: " + b"{" * 5000, "or 20 levels"),
        (b"a: [" + b"1," * 20000 + b"]", "more than 10000 values"),
        (b"# " + b"x" * 200_000, "has more than 100000 bytes"),
        (b"seed: 1\n? [1, 2]\n: 3\n", "is not allowed; keys should be strings"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_settings_is_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(data)
    (tmp_path / "good.yaml").write_text("seed: 0\n")
    for read in (lambda: load_settings(path), lambda: load_settings(tmp_path / "good.yaml", preset=str(path))):
        with pytest.raises(SettingsError) as caught:
            read()
        assert message in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("pairs", ["{anchor}: &{anchor} [{again}]", "{anchor}: &{anchor}\n  <<: [{again}]"])
def test_aliases_of_aliases_end_at_once(tmp_path: Path, pairs: str) -> None:
    """Expanded, twelve lines would be ten to the power of ten values or merged pairs."""
    lines = ["a: &a {x: 1, y: 2}"]
    for anchor, before in zip("bcdefghijkl", "abcdefghijk", strict=True):
        lines.append(pairs.format(anchor=anchor, again=", ".join([f"*{before}"] * 10)))
    (tmp_path / "params.yaml").write_text("\n".join(lines))
    with pytest.raises(SettingsError, match="more than 10000 values"):
        load_settings(tmp_path / "params.yaml")


def test_aliases_within_reason_are_taken(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("dann: &head {weight: 2.0, hidden: 64}\ncdan:\n  <<: *head\n  hidden: 0\n")
    settings = load_settings(tmp_path / "params.yaml")
    assert (settings.cdan.weight, settings.cdan.hidden, settings.dann.hidden) == (2.0, 0, 64)


def test_a_byte_order_mark_and_windows_lines_are_taken(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"\xef\xbb\xbfseed: 3\r\ntarget: skin\r\n")
    settings = load_settings(tmp_path / "params.yaml")
    assert (settings.seed, settings.target) == (3, "skin")


def test_a_folder_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: Is a directory; it must be a readable file"):
        load_settings(tmp_path)


def test_a_preset_of_who_is_not_trusted_lies_in_the_project(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "presets").mkdir(parents=True)
    (project / "runs").mkdir()
    (project / "params.yaml").write_text("seed: 0\n")
    for path in ("project/presets/quick.yaml", "project/runs/best.yaml", "secret.yaml"):
        (tmp_path / path).write_text("seed: 5\n")
    (project / "presets" / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    params = project / "params.yaml"
    for inside in ("quick", "runs/best.yaml", str(project / "runs" / "best.yaml")):
        assert load_settings(params, preset=inside, trusted=False).seed == 5
    for outside in ("link", "../../secret", "../secret.yaml", str(tmp_path / "secret.yaml"), "/etc/no-such.yaml"):
        with pytest.raises(SettingsError, match=r"lies outside .*; name one of presets/"):
            load_settings(params, preset=outside, trusted=False)
    assert load_settings(params, preset=str(tmp_path / "secret.yaml")).seed == 5


def test_a_dump_is_read_alike_by_dvc(tmp_path: Path) -> None:
    """YAML 1.1 and 1.2 read these words differently."""
    from dvc.utils.serialize import load_yaml

    for word in ("yes", "1e3", "0o17", "12:30", "010", "null", "2024-01-02", "Gewebe für A"):
        settings = replace_values(Settings(), {"tracking.experiment": word})
        (tmp_path / "params.yaml").write_text(dump_settings(settings), encoding="utf-8")
        assert load_settings(tmp_path / "params.yaml") == settings
        assert load_yaml(str(tmp_path / "params.yaml"))["tracking"]["experiment"] == word


def test_flat_keys_and_values_round_trip() -> None:
    flat = flatten(Settings())
    assert flat["dann.schedule"] == "ganin"
    assert replace_values(Settings(), flat) == Settings()


def test_a_presets_file_that_is_not_there_is_told_as_a_presets(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--preset nothere\.yaml: no such file; name one"):
        find_preset("nothere.yaml", tmp_path, trusted=True)


def test_a_method_that_is_named_is_trained_and_not_chosen_among_others(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("retrain: {methods: [mcc, cdan]}\n")
    assert load_settings(tmp_path / "params.yaml").retrain.methods == ("mcc", "cdan")
    assert load_settings(tmp_path / "params.yaml", overrides=("train.method=cdan",)).retrain.methods == ()
    both = ("train.method=cdan", "retrain.methods=[mdd]")
    assert load_settings(tmp_path / "params.yaml", overrides=both).retrain.methods == ("mdd",)
    assert load_settings(tmp_path / "params.yaml", overrides=("retrain.methods=null",)).retrain.methods == ()


@pytest.mark.parametrize(
    ("overrides", "methods", "variants"),
    [
        ((), ("mcc", "cdan"), ("none", "reinhard")),
        (("train.method=dann",), (), ()),
        (("retrain.methods=[]",), (), ()),
        (("train.variant=reinhard",), ("mcc", "cdan"), ()),
        (("train.variant=reinhard", "retrain.variants=[none]"), ("mcc", "cdan"), ("none",)),
        (("train.method=dann", "retrain.methods=[mdd]"), ("mdd",), ("none", "reinhard")),
    ],
)
def test_a_variant_that_is_named_is_trained_and_without_methods_there_is_no_choice(
    tmp_path: Path, overrides: tuple[str, ...], methods: tuple[str, ...], variants: tuple[str, ...]
) -> None:
    (tmp_path / "params.yaml").write_text("retrain: {methods: [mcc, cdan], variants: [none, reinhard]}\n")
    made = load_settings(tmp_path / "params.yaml", overrides=overrides)
    assert (made.retrain.methods, made.retrain.variants) == (methods, variants)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("retrain.methods=[mcc, erm]", "retrain.methods names the control 'erm'"),
        ("retrain.methods=[mcc, mcc]", "names mcc more than once"),
        ("retrain.methods=[best]", "'best' is not allowed; input should be 'erm'"),
        ("retrain.methods=[mcc, stain_aug]", "stain_aug changes tiles, and with model.freeze 'all'"),
        ("retrain.variants=[none]", "retrain.variants is for the choice among retrain.methods"),
        ("retrain.left_out=[stomach]", "retrain.left_out names 'stomach', which is not one of the sources"),
        ("retrain.left_out=[lung, colon, breast]", "retrain.left_out names all sources"),
        ("retrain={methods: [mcc], left_out: [lung]}", "retrain.left_out is what a choice has found"),
        (
            "retrain={methods: [mcc], variants: [macenko]}",
            "retrain.variants names 'macenko', which is not in normalize",
        ),
        (
            "retrain={methods: [anchored], variants: [none, reinhard]}",
            "all of retrain.methods learn from anchors (anchored)",
        ),
    ],
)
def test_methods_that_cannot_be_chosen_are_told(override: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(overrides=("model.freeze=all", override))
    assert message in str(caught.value)


def test_a_balanced_epoch_has_a_tile_of_each_organ_and_label() -> None:
    few = {"sources": ["lung", "colon"], "train.batch_size": 3, "train.steps_per_epoch": 1}
    with pytest.raises(SettingsError, match=r"batch_size 3 × train\.steps_per_epoch 1 is too few .* 4 in all; raise"):
        replace_values(Settings(), few)
    for change in ({"train.batch_size": 4}, {"train.steps_per_epoch": None}, {"train.balance": False}):
        replace_values(Settings(), few | change)
