"""Trunks by timm compute what timm does, and are frozen, exported, explained and served."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from oncoshift.errors import SettingsError, WeightsError
from oncoshift.models.network import AdaptationNet
from oncoshift.models.weights import load_trunk
from oncoshift.registry.artifacts import write_artifacts
from oncoshift.retraining.inputs import check_trunk
from oncoshift.serving.attributions import explain_tile
from oncoshift.serving.classifier import TileClassifier, build_trunk, normalise
from oncoshift.serving.config import GRAPH, ServedConfig
from oncoshift.serving.network import OnnxNetwork
from oncoshift.settings import load_settings, parse_settings, replace_values
from oncoshift.training.features import FeatureCache, make_inputs
from oncoshift.training.inputs import FeatureInputs

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 160
VIT, CONVNEXT, RESNET, REGISTERS = "timm/test_vit", "timm/test_convnext", "timm/test_resnet", "timm/test_vit2"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def tiles(count: int = 2) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def save_timm(name: str, path: Path) -> Any:
    """Save the weights of a network with random ones, and return it."""
    torch.manual_seed(1)
    model = timm.create_model(name.removeprefix("timm/"), num_classes=0).eval()
    save_file(model.state_dict(), path)
    return model


@pytest.mark.parametrize("name", [VIT, CONVNEXT, RESNET, REGISTERS])
def test_a_trunk_computes_what_timm_computes(name: str, tmp_path: Path) -> None:
    """ConvNeXt has means of its own, and the last one registers, and its norm after pooling."""
    theirs = save_timm(name, tmp_path / "weights.safetensors")
    trunk = build_trunk(name).eval()
    load_trunk(trunk, name, str(tmp_path / "weights.safetensors"))
    batch = torch.from_numpy(tiles())
    mean, std = (torch.tensor(theirs.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        found, expected = trunk(normalise(batch)), theirs((batch.permute(0, 3, 1, 2) / 255 - mean) / std)
    assert found.shape == (2, trunk.width)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_class_token_and_mean_of_patches_stand_side_by_side() -> None:
    made = {}
    for pooling in ("cls", "mean", "both"):
        torch.manual_seed(0)
        made[pooling] = build_trunk(VIT, pooling).eval()
    with torch.inference_mode():
        found = {pooling: trunk(normalise(torch.from_numpy(tiles()))) for pooling, trunk in made.items()}
    assert made["both"].width == 2 * made["cls"].width
    torch.testing.assert_close(found["both"], torch.cat([found["cls"], found["mean"]], dim=1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "timm/nothing"}, "timm/nothing: timm .* cannot build it"),
        ({"backbone": "timm/test_efficientnet"}, "builds a EfficientNet of it, whose parts are not known here"),
        ({"backbone": VIT}, f"normalize.tile_size 64: timm/test_vit takes tiles of {SIDE} pixels; set it to {SIDE}"),
        ({"backbone": REGISTERS, "pooling": "both"}, "has no class token, and model.pooling both needs one"),
        ({"backbone": CONVNEXT, "pooling": "cls"}, "has no class token, and model.pooling cls needs one"),
        ({"backbone": RESNET, "pooling": "both"}, "has no class token, and model.pooling both needs one"),
    ],
)
def test_a_trunk_that_cannot_be_used_is_told_before_anything_is_trained(
    changes: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=message):
        check_trunk(tmp_path, parse_settings({"model": changes}))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.weights=imagenet", "model.weights imagenet is not known of timm/test_vit"),
        ("model.weights=pretrained", "model.weights pretrained is not known of timm/test_vit"),
        ("model.batch_norm=per_domain", "separated in resnet18 and resnet50 alone, and not in timm/test_vit"),
        ("train.method=adabn", "adabn is about BatchNorm, which is separated in resnet18 and resnet50 alone"),
        ("model.backbone=resnet18,model.pooling=cls", "resnet18 has no class token, and model.pooling cls needs one"),
        ("model.backbone=hf-hub:lab/tiny@main", "or hf-hub:OWNER/NAME@COMMIT with all 40 digits of the commit"),
    ],
)
def test_settings_that_do_not_go_with_a_trunk_are_told(override: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(overrides=(f"model.backbone={VIT}", *override.split(",")))
    assert message in str(caught.value)


def test_weights_of_another_trunk_are_told(tmp_path: Path) -> None:
    save_timm(VIT, tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match=f"not the weights of a {CONVNEXT}: "):
        load_trunk(build_trunk(CONVNEXT), CONVNEXT, str(tmp_path / "weights.safetensors"))


@pytest.mark.parametrize("name", [VIT, CONVNEXT, RESNET])
def test_frozen_parts_keep_their_weights_and_the_others_learn(name: str) -> None:
    net = AdaptationNet(
        parse_settings({"model": {"backbone": name, "freeze": "layer2", "bottleneck": 8}}).model
    ).train()
    assert not net.classifier.trunk.layer2.training
    with torch.inference_mode():
        frozen = net.classifier.trunk.run(normalise(torch.from_numpy(tiles())), net.frozen)
    net.logits(net.features(frozen.clone())).sum().backward()
    learns = {part.split(".")[2] for part, p in net.named_parameters() if p.grad is not None and "trunk" in part}
    assert learns == {"layer3", "layer4"}


@pytest.mark.parametrize("name", [VIT, CONVNEXT, RESNET])
def test_features_of_a_frozen_trunk_are_computed_once(name: str, tmp_path: Path) -> None:
    net = AdaptationNet(parse_settings({"model": {"backbone": name, "freeze": "all", "bottleneck": 8}}).model).eval()
    images = tiles(3)
    made = make_inputs(net, images, FeatureCache(tmp_path, "pack"), torch.device("cpu"))
    assert isinstance(made, FeatureInputs)
    with torch.inference_mode():
        expected = net.classifier.trunk(normalise(torch.from_numpy(images)))
    torch.testing.assert_close(torch.from_numpy(np.array(made.values)), expected, rtol=1e-4, atol=1e-5)
    (file,) = tmp_path.glob("*.npy")
    before = file.stat().st_mtime_ns
    make_inputs(net, images, FeatureCache(tmp_path, "pack"), torch.device("cpu"))
    assert file.stat().st_mtime_ns == before


def test_features_of_another_pooling_are_not_taken_for_those_of_this_one(tmp_path: Path) -> None:
    pooled = {}
    for pooling in ("cls", "mean"):
        torch.manual_seed(0)
        model = {"backbone": VIT, "pooling": pooling, "freeze": "all", "bottleneck": 8}
        net = AdaptationNet(parse_settings({"model": model}).model).eval()
        made = make_inputs(net, tiles(), FeatureCache(tmp_path, "pack"), torch.device("cpu"))
        assert isinstance(made, FeatureInputs)
        pooled[pooling] = np.array(made.values)
    assert not np.allclose(pooled["cls"], pooled["mean"])
    assert len(list(tmp_path.glob("*.npy"))) == 2


@pytest.mark.parametrize(
    ("name", "pooling"), [(VIT, "both"), (RESNET, "auto"), pytest.param(CONVNEXT, "auto", marks=pytest.mark.slow)]
)
def test_a_model_is_exported_served_and_explained(name: str, pooling: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier = TileClassifier(name, 8, 0.0, pooling).eval()
    config = ServedConfig("m", "kidney", ("lung",), name, 8, 0.0, tile_size=SIDE, pooling=pooling)
    assert ServedConfig.from_json(config.to_json()) == config
    examples = tiles(3)
    differences = write_artifacts(tmp_path, config, classifier.state_dict(), list(examples), None)
    assert set(differences) == {"safetensors", "onnx", "pt2"}, "each was compared with the classifier"
    served = OnnxNetwork(tmp_path / GRAPH, "cpu")(examples)
    assert served.features.shape == (3, classifier.trunk.width)

    explained = explain_tile(classifier, examples[0])
    assert explained.values.shape == (1, SIDE, SIDE)
    assert explained.relative_delta[0] < 0.05


def test_a_repository_is_found_in_the_cache_at_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--lab--tiny" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    model = save_timm(CONVNEXT, folder / "model.safetensors")
    statistics = {"mean": [0.7, 0.6, 0.7], "std": [0.2, 0.2, 0.2], "input_size": [3, SIDE, SIDE]}
    described = {"architecture": "test_convnext", "num_classes": 0, "pretrained_cfg": statistics}
    (folder / "config.json").write_text(json.dumps(described))
    settings = replace_values(parse_settings({}), {"model.weights": "pretrained", "model.freeze": "all"} | {
        "model.backbone": f"hf-hub:lab/tiny@{COMMIT}"
    })  # fmt: skip
    check_trunk(tmp_path, settings)
    trunk = AdaptationNet(settings.model).classifier.trunk.eval()
    batch = torch.from_numpy(tiles())
    with torch.inference_mode():
        expected = model((batch.permute(0, 3, 1, 2) / 255 - torch.tensor([0.7, 0.6, 0.7]).view(3, 1, 1)) / 0.2)
        torch.testing.assert_close(trunk(normalise(batch)), expected, rtol=1e-4, atol=1e-5)


def test_a_repository_that_cannot_be_had_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    settings = parse_settings({"model": {"backbone": f"hf-hub:lab/tiny@{COMMIT}", "weights": "pretrained"}})
    with pytest.raises(WeightsError, match=r"model\.backbone hf-hub:lab/tiny@.*set HF_TOKEN"):
        check_trunk(tmp_path, settings)
