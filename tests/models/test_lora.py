"""LoRA trains adapters and heads alone, and what is served is a plain network."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from oncoshift.errors import SettingsError
from oncoshift.models.network import AdaptationNet
from oncoshift.registry.artifacts import write_artifacts
from oncoshift.retraining.inputs import check_trunk
from oncoshift.serving.classifier import TileClassifier, normalise
from oncoshift.serving.config import ServedConfig
from oncoshift.settings import load_settings, parse_settings

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("peft", reason="LoRA: pip install peft")

VIT, SIDE = "timm/test_vit", 160


def build(backbone: str = VIT, **model: object) -> AdaptationNet:
    torch.manual_seed(0)
    values = {"backbone": backbone, "bottleneck": 8, "dropout": 0.0, "lora": 4, **model}
    return AdaptationNet(parse_settings({"model": values}).model)


def train_adapters(net: AdaptationNet) -> None:
    """Give B, which starts at 0, values as large as those of W."""
    for name, parameter in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)


def tiles(count: int = 2) -> torch.Tensor:
    return normalise(torch.from_numpy(pixels(count)))


def pixels(count: int):  # type: ignore[no-untyped-def]
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def test_training_starts_from_the_trunk_as_it_is() -> None:
    adapted, plain, x = build().eval(), build(lora=None).eval(), tiles()
    torch.testing.assert_close(adapted.classifier.trunk(x), plain.classifier.trunk(x))


def test_adapters_and_heads_alone_learn() -> None:
    net = build().train()
    train_adapters(net)
    net.logits(net.features(tiles())).sum().backward()
    learns = {name for name, parameter in net.named_parameters() if parameter.grad is not None}
    layers = {name.partition(".lora_")[0] for name in learns if "trunk" in name}
    assert all(".lora_" in name for name in learns if "trunk" in name)
    assert {name.rpartition("attn.")[2] for name in layers} == {"qkv", "proj"}
    assert {name.split(".")[2] for name in layers} == {"layer1", "layer2", "layer3", "layer4"}
    assert {name for name in learns if "trunk" not in name} == {
        f"classifier.{name}" for name in ("bottleneck.0.weight", "bottleneck.0.bias", "head.weight", "head.bias")
    }
    assert not [name for name, _ in net.named_parameters() if name.startswith(net.frozen_names) == (name in learns)]


def test_a_frozen_part_gets_no_adapters() -> None:
    net = build(freeze="layer3")
    adapted = {name.split(".")[2] for name, _ in net.named_parameters() if "lora_" in name}
    assert adapted == {"layer4"}
    assert not net.sees_tiles


@pytest.mark.parametrize("freeze", ["none", "layer2"])
def test_merged_weights_compute_what_the_adapters_do(freeze: str) -> None:
    net = build(freeze=freeze).eval()
    train_adapters(net)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    plain = TileClassifier(VIT, 8, 0.0).eval()
    untrained = plain(tiles())
    plain.load_state_dict(net.served_state())  # strict: no name may be missing or left over
    with torch.inference_mode():
        x = tiles()
        expected = net.logits(net.features(net.classifier.trunk.run(x, net.frozen)))
        torch.testing.assert_close(plain(x), expected, rtol=0, atol=1e-5)
    assert not torch.allclose(untrained, expected, atol=1e-3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items()), (
        "nothing was merged here"
    )


def test_what_is_exported_needs_no_adapters(tmp_path: Path) -> None:
    net = build().eval()
    train_adapters(net)
    config = ServedConfig("m", "kidney", ("lung",), VIT, 8, 0.0, tile_size=SIDE)
    differences = write_artifacts(tmp_path, config, net.served_state(), list(pixels(3)), None)
    assert set(differences) == {"safetensors", "onnx", "pt2"}
    assert max(differences.values()) < 1e-5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.backbone=resnet18", "model.lora 4: adapters are of attention, and resnet18 has none"),
        ("model.freeze=all", "with model.freeze 'all' there is none; set model.freeze to none, or model.lora to"),
        ("model.freeze=layer4", "with model.freeze 'layer4' there is none"),
        ("model.lora=0", "greater than or equal to 1"),
    ],
)
def test_settings_that_leave_nothing_to_adapt_are_told(override: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(overrides=(f"model.backbone={VIT}", "model.lora=4", override))
    assert message in str(caught.value)


@pytest.mark.parametrize("backbone", ["timm/test_convnext", "timm/test_resnet"])
def test_a_trunk_without_attention_is_told_before_anything_is_trained(backbone: str, tmp_path: Path) -> None:
    settings = parse_settings({"model": {"backbone": backbone, "lora": 4}})
    with pytest.raises(SettingsError, match=rf"model\.lora 4: {backbone} has no attention .* set model.lora to null"):
        check_trunk(tmp_path, settings)


def test_where_peft_is_missing_it_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    settings = parse_settings({"model": {"backbone": VIT, "lora": 4}, "normalize": {"tile_size": SIDE}})
    with pytest.raises(SettingsError, match=r"model\.lora 4: needs peft .*; pip install peft$"):
        check_trunk(tmp_path, settings)
