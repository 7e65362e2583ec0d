"""Settings of a retraining that takes seconds, shared by the tests that run whole retrainings."""

from __future__ import annotations

from typing import Any

TINY_TRUNK = "timm/test_resnet"
"""A residual network of 0.4 million weights, which trains ten times as fast as a ResNet18."""

TINY: dict[str, Any] = {
    "target": "kidney",
    "sources": ["lung", "colon"],
    "split": {"audit_share": 0.35, "test_share": 0.35},
    "normalize": {"variants": ["none"], "tile_size": 32},
    "model": {"backbone": TINY_TRUNK, "bottleneck": 16},
    "select": {"source_floor": 0.0},
    "evaluate": {"bootstrap": 100},
    "explain": {"tiles": 4, "steps": 4, "max_steps": 8, "checked_tiles": 1},
    # The tiny model always passes the gate: these tests are about what runs, and in what order.
    "gate": {
        "min_balanced_accuracy": 0.0,
        "min_auroc": 0.0,
        "min_sensitivity": 0.0,
        "min_gain_over_control": -1.0,
        "min_audit_groups": 2,
    },
}
"""Sections without those that say how much is trained, which each test chooses."""
