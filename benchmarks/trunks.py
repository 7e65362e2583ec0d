"""How fast the features of a frozen trunk are computed, and found again, on random tiles.

Run: python benchmarks/trunks.py [--tiles 64] [--device cpu] [TRUNK …]
Weights are random, which costs the same time as trained ones.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from oncoshift.models.network import AdaptationNet
from oncoshift.settings import ModelSettings
from oncoshift.training.features import FeatureCache, make_inputs

TRUNKS = ("resnet50", "timm/vit_small_patch16_224", "timm/vit_large_patch16_224", "timm/convnext_tiny")
SIDE = 224


def measure(backbone: str, tiles: int, device: torch.device) -> dict[str, float]:
    """Compute the features of some tiles, and then find them in the cache."""
    net = AdaptationNet(ModelSettings(backbone=backbone, freeze="all")).eval()
    images = np.random.default_rng(0).integers(0, 256, (tiles, SIDE, SIDE, 3), dtype=np.uint8)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            began = time.monotonic()
            make_inputs(net, images, FeatureCache(Path(folder), "pack"), device)
            seconds.append(time.monotonic() - began)
    millions = sum(parameter.numel() for parameter in net.classifier.trunk.parameters()) / 1e6
    return {
        "parameters_in_millions": round(millions, 1),
        "width": net.classifier.trunk.width,
        "tiles_per_second": round(tiles / seconds[0], 1),
        "seconds_from_cache": round(seconds[1], 2),
    }


def main() -> None:
    """Measure each trunk; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trunks", nargs="*", default=TRUNKS)
    parser.add_argument("--tiles", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    device = torch.device(given.device)
    figures = {}
    for backbone in given.trunks:
        figures[backbone] = measure(backbone, given.tiles, device)
        print(
            f"{backbone:>30}", *(f"{name} {value}" for name, value in figures[backbone].items()), sep="  ", flush=True
        )
    print(json.dumps({"benchmark": "trunks", "device": given.device, "figures": figures}))


if __name__ == "__main__":
    main()
