"""Source-only training with stain augmentation (Tellez et al. 2018, 2019).

As `erm`, on views of source tiles with other strengths of haematoxylin and eosin. A pixel's optical
density is split into the two stains and a rest, o = h · H + e · E + r, and becomes

    o' = exp(j ε_h) · h · H + exp(j ε_e) · e · E + r,  ε ~ N(0, 1) for each tile and stain,

with j the setting `stain_aug.jitter` (`training.augment.restain`). A network that sees each tile at
several strengths cannot rely on them; they differ between laboratories. Tellez 2018 (IEEE TMI
37:2126) draw uniform factors and a shift besides; Tellez 2019 (Medical Image Analysis 58:101544)
found such augmentation to matter more than normalisation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.methods.base import Needs
from oncoshift.methods.erm import Erm

if TYPE_CHECKING:
    from oncoshift.models.network import AdaptationNet
    from oncoshift.settings.methods import StainAugSettings


class StainAug(Erm):
    """Cross-entropy on restained source tiles; target tiles are never read."""

    def __init__(self, net: AdaptationNet, settings: StainAugSettings) -> None:
        super().__init__(net, settings)
        self.needs = Needs(stain_jitter=settings.jitter)
