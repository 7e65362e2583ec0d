"""Published figures to lay beside ours.

Those of arXiv 2601.14678 are accuracies of one seed, split by image: those of DANN from its
abstract, the others from the run logs in its authors' repository,
github.com/JustinCheung168/domain-adaptation-multi-cancer.
"""

from __future__ import annotations

SINGLE: dict[tuple[str, str], float] = {
    ("breast", "breast"): 0.989, ("breast", "colon"): 0.496, ("breast", "kidney"): 0.500, ("breast", "lung"): 0.493,
    ("colon", "breast"): 0.512, ("colon", "colon"): 1.000, ("colon", "kidney"): 0.500, ("colon", "lung"): 0.512,
    ("kidney", "breast"): 0.509, ("kidney", "colon"): 0.626, ("kidney", "kidney"): 1.000, ("kidney", "lung"): 0.499,
    ("lung", "breast"): 0.691, ("lung", "colon"): 0.509, ("lung", "kidney"): 0.500, ("lung", "lung"): 1.000,
}  # fmt: skip
"""Supervised ResNet50 by organ trained on and organ tested on; kidney is abdominal CT there."""

ENSEMBLE: dict[str, float] = {"breast": 0.514, "colon": 0.623, "kidney": 0.500, "lung": 0.511}
"""Mean of the three models from the other organs, by target."""

DANN: dict[tuple[str, str], float] = {
    ("lung", "none"): 0.9556, ("breast", "none"): 0.4922, ("colon", "none"): 0.7848,
    ("lung", "reinhard"): 0.6660, ("breast", "reinhard"): 0.8129, ("colon", "reinhard"): 0.8336,
}  # fmt: skip
"""DANN by target and stain variant, from the two other organs of lung, breast and colon."""

_WILDS_2 = "[WILDS 2.0](https://arxiv.org/abs/2112.05090), table 2"

WILDS: tuple[tuple[str, str, str], ...] = (
    ("source-only, augmented", "82.0 (7.4)", _WILDS_2),
    ("DANN", "68.4", _WILDS_2),
    ("FixMatch", "71.0", _WILDS_2),
    ("Noisy Student", "86.7 (1.7)", _WILDS_2),
    ("SwAV", "91.4 (2.0)", _WILDS_2),
    (
        "linear probe on frozen H-optimus-0, not adapted",
        "98.2 (0.1)",
        "its [model card](https://github.com/bioptimus/releases/tree/main/models/h-optimus/v0)",
    ),
)
"""Camelyon17-WILDS: model, accuracy on the test hospital in % with the standard deviation over
trainings, and who published it."""
