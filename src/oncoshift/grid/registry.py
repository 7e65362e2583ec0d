"""The table of protocols: what each changes in the settings, one thing at a time.

`honest` splits by group, and is otherwise as the settings say. `paper` changes all that the others
change one by one, so that a table of them says what each is worth. Settings read this table, so it
imports nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

HONEST, PAPER = "honest", "paper"


class Protocol(NamedTuple):
    """A protocol.

    Attributes:
        words: what it is, in a few words.
        changes: settings that it changes, by dotted key.
    """

    words: str
    changes: dict[str, Any]


_LEAK: dict[str, Any] = {"split.by": "tile"}
_START: dict[str, Any] = {"model.weights": "none"}
_TRAINING: dict[str, Any] = {
    "model.bottleneck": 512,
    "model.dropout": 0.5,
    "train.epochs": 50,
    "train.steps_per_epoch": None,
    "train.batch_size": 16,
    "train.balance": False,
    "train.optimizer": "sgd",
    "train.lr": 0.1,
    "train.momentum": 0.0,
    "train.weight_decay": 1e-4,
    "train.schedule": "linear",
    "train.warmup": 0.0,
    "train.label_smoothing": 0.0,
    "train.ema": None,
    "train.grad_clip": 1.0,
    "train.augment": False,
    "dann.schedule": "paper",
    "dann.max_lambda": 1.0,
    "dann.weight": 1.0,
    "dann.hidden": 0,
}
"""The authors' code: SGD at 0.1 with linear decay, 50 epochs, λ = (epoch / 50)², the last kept."""

PROTOCOLS: dict[str, Protocol] = {
    HONEST: Protocol("split by group, all else as the settings say", {"split.by": "group"}),
    "tile_split": Protocol("split by tile: tiles of one patient on two sides", _LEAK),
    "random_start": Protocol("no pretraining: the trunk from a random start", _START),
    "paper_training": Protocol("the paper's optimisation: SGD at 0.1, 50 epochs, λ = (epoch / 50)²", _TRAINING),
    PAPER: Protocol("all three, as in the paper", _LEAK | _START | _TRAINING),
}
"""The protocols by the name that settings and runs use."""
