"""The epithelium of a tile is measured by whatever ONNX network the user brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from oncoshift.anchors.epithelium import measure_epithelium
from oncoshift.errors import SettingsError
from oncoshift.settings.training import AnchorSettings

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def write_network(path: Path, side: int | str = "side") -> AnchorSettings:
    """Write a network whose maps are eosin, haematoxylin and half of the density."""
    shape: list[str | int | None] = ["tiles", 3, side, side]
    given, returned = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("in", "out"))
    halved = helper.make_tensor("factors", TensorProto.FLOAT, [1, 3, 1, 1], [1.0, 1.0, 0.5])
    node = helper.make_node("Mul", ["in", "factors"], ["out"])
    graph = helper.make_graph([node], "maps", [given], [returned], [halved])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return AnchorSettings(
        use=("nuclei", "epithelium"), epithelium=str(path), epithelium_side=side if isinstance(side, int) else 50
    )


def draw(share: float) -> NDArray[np.uint8]:
    """Draw a tile of pink tissue below a rim of glass, of whose tissue a share is blue."""
    tile = np.full((50, 50, 3), (235, 110, 180), np.uint8)
    tile[:10] = 250
    tile[10 : 10 + round(40 * share)] = (150, 145, 205)
    return tile


@pytest.mark.parametrize("side", ["side", 50, 25])
def test_the_share_is_that_of_tissue(tmp_path: Path, side: int | str) -> None:
    settings = write_network(tmp_path / "map.onnx", side)
    measured = measure_epithelium(np.stack([draw(0.2), draw(0.5), draw(0.8)]), settings)
    np.testing.assert_allclose(measured, [0.2, 0.5, 0.8], atol=0.03)


def test_a_tile_of_glass_has_none(tmp_path: Path) -> None:
    tiles = np.stack([np.full((50, 50, 3), 250, np.uint8), draw(0.5)])
    assert measure_epithelium(tiles, write_network(tmp_path / "map.onnx"))[0] == 0


def test_a_channel_that_is_not_there_is_told(tmp_path: Path) -> None:
    settings = write_network(tmp_path / "map.onnx").model_copy(update={"epithelium_channel": 3})
    with pytest.raises(SettingsError, match=r"epithelium_channel 3: the network returns \[1, 3, 50, 50\]"):
        measure_epithelium(draw(0.5)[None], settings)


def test_a_side_that_the_network_does_not_take_is_told(tmp_path: Path) -> None:
    settings = write_network(tmp_path / "map.onnx", 25).model_copy(update={"epithelium_side": 32})
    with pytest.raises(SettingsError, match=r"the network refuses float \[1, 3, 32, 32\]: "):
        measure_epithelium(draw(0.5)[None], settings)


def test_a_file_that_is_no_network_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "map.onnx"
    path.write_bytes(b"no network")
    with pytest.raises(SettingsError, match="no network that ONNX Runtime can open") as caught:
        measure_epithelium(draw(0.5)[None], AnchorSettings(use=("epithelium",), epithelium=str(path)))
    assert "\n" not in str(caught.value)


def test_epithelium_without_a_network_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"needs an ONNX network; give its path as anchor\.epithelium"):
        AnchorSettings(use=("epithelium",))
