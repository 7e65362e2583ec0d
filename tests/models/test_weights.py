"""Pretrained weights load exactly or raise a clear error; the start is never silently random."""

from __future__ import annotations

import urllib.error
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from oncoshift.errors import WeightsError
from oncoshift.models.network import AdaptationNet, list_frozen_parts
from oncoshift.models.weights import load_trunk
from oncoshift.serving.classifier import Trunk
from oncoshift.serving.trunks import PARTS, TRUNKS
from oncoshift.settings import ModelSettings

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.manual_seed(1)
    net = models.resnet18(weights=None).eval()
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file({name: tensor.half() if tensor.ndim >= 2 else tensor for name, tensor in net.state_dict().items()}, path)
    return net, path


def test_trunk_computes_what_torchvision_computes(resnet18: Any) -> None:
    net, path = resnet18
    trunk = Trunk("resnet18").eval()
    load_trunk(trunk, "resnet18", str(path))
    net.load_state_dict(
        {name: tensor.half().float() if tensor.ndim >= 2 else tensor for name, tensor in net.state_dict().items()}
    )
    net.fc = torch.nn.Identity()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(trunk(x), net(x))


def test_settings_allow_the_trunks_that_can_be_built() -> None:
    for name in TRUNKS:
        assert ModelSettings(backbone=name).backbone == name
        trunk = Trunk(name)
        assert tuple(part for part, _ in trunk.named_children()) == PARTS
        assert models.get_model_weights(name).DEFAULT.url.startswith("https://")


def test_weights_of_another_backbone_are_refused(resnet18: Any) -> None:
    with pytest.raises(WeightsError, match="not the weights of a resnet50"):
        load_trunk(Trunk("resnet50"), "resnet50", str(resnet18[1]))


@pytest.mark.parametrize(
    ("backbone", "published"),
    [("resnet18", "imagenet"), (f"hf-hub:owner/name@{'0' * 40}", "pretrained"), ("timm/vit_tiny_patch16_224", None)],
)
def test_missing_file_names_the_alternatives(backbone: str, published: str | None) -> None:
    with pytest.raises(WeightsError, match=r"no such file.*--set model.weights=none") as caught:
        load_trunk(Trunk("resnet18"), backbone, "/nowhere/weights.safetensors")
    offered = f"where there is a network, download them (--set model.weights={published})"
    assert (offered in str(caught.value)) == (published is not None)


def test_broken_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"not a tensor in here")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load_trunk(Trunk("resnet18"), "resnet18", str(path))


def test_imagenet_without_network_names_the_alternatives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"could not be downloaded.*safetensors"):
        load_trunk(Trunk("resnet18"), "resnet18", "imagenet")


def test_real_imagenet_weights_fit(shared: Path) -> None:
    net = AdaptationNet(
        ModelSettings(
            backbone="resnet50", weights=str(shared / "weights/resnet50_imagenet.safetensors"), freeze="layer3"
        )
    )
    assert net.frozen == ("stem", "layer1", "layer2", "layer3")
    trained = {name.split(".")[2] for name, p in net.named_parameters() if p.requires_grad and "trunk" in name}
    assert trained == {"layer4"}
    net.train()
    assert not net.classifier.trunk.layer3.training
    assert net.classifier.trunk.layer4.training


def test_freeze_names() -> None:
    assert list_frozen_parts("none") == ()
    assert list_frozen_parts("stem") == ("stem",)
    assert list_frozen_parts("all") == list_frozen_parts("layer4")
