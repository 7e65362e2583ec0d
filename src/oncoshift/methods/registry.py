"""The table of adaptation methods, with all that the rest of the package knows of each.

The rows decide the names that `train.method` and `retrain.control` allow, the settings that a
method reads and tuning may vary, the organs and networks to train, and how `methods.factory` builds
it.

A new method is a file in this package, its section and field in `oncoshift.settings.methods`, and a
row here. Rows name classes by import string, because settings read this table and must not load
torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MethodRow:
    """A method. It reads `model`, `train`, the section of its own name, and those of its terms.

    Attributes:
        made_by: its class, as `module:class`: a `Method`, or a `Term` if the method is itself a
            term. Empty for a method composed of others.
        terms: names of its terms, the losses beside the label loss, in the order in which they are
            built and added.
        member: of an ensemble, the method that is trained on each source organ alone.
        also_reads: other settings that decide its result.
        per_domain: whether BatchNorm separates source and target whatever `model.batch_norm` says.
        changes_tiles: whether it changes tiles, so that no part of the trunk can be frozen.
        one_organ: whether it is trained on one source organ, `single.organ`.
        separates_organs: whether its domain head has a class for each source organ, rather than one
            for all.
        closed_form: whether its head is computed, from the target's tiles alone and without steps
            of an optimiser.
        reads_labels: whether it reads labels that a person gave tiles of the target, and corrects
            by them a model of another method, `few_labels.prior`.
    """

    made_by: str = ""
    terms: tuple[str, ...] = ()
    member: str | None = None
    also_reads: tuple[str, ...] = ()
    per_domain: bool = False
    changes_tiles: bool = False
    one_organ: bool = False
    separates_organs: bool = False
    closed_form: bool = False
    reads_labels: bool = False

    @property
    def uses_target(self) -> bool:
        """Whether it learns from target tiles; a method that does not can be the control."""
        return bool(self.terms) or self.per_domain or self.closed_form

    @property
    def reads_anchor(self) -> bool:
        """Whether it learns from the anchor, so that the anchor is no witness for it."""
        return "anchor" in self.also_reads

    @property
    def can_be_prior(self) -> bool:
        """Whether labels can correct its model: it is one network, and has read none of them."""
        return self.member is None and not self.reads_labels


METHODS: dict[str, MethodRow] = {
    "erm": MethodRow("oncoshift.methods.erm:Erm"),
    "single": MethodRow("oncoshift.methods.erm:Erm", one_organ=True, also_reads=("sources",)),
    "stain_aug": MethodRow("oncoshift.methods.stain_aug:StainAug", changes_tiles=True),
    "ensemble": MethodRow(member="single", also_reads=("sources",)),
    "adabn": MethodRow("oncoshift.methods.adabn:AdaBn", per_domain=True),
    "dann": MethodRow("oncoshift.methods.dann:Dann", terms=("dann",)),
    "cdan": MethodRow("oncoshift.methods.cdan:Cdan", terms=("cdan",)),
    "mcc": MethodRow("oncoshift.methods.mcc:Mcc", terms=("mcc",)),
    "mdd": MethodRow("oncoshift.methods.mdd:Mdd", terms=("mdd",)),
    "dann_multi": MethodRow(
        "oncoshift.methods.dann_multi:DannMulti", terms=("dann_multi",), separates_organs=True, also_reads=("sources",)
    ),
    "self_training": MethodRow("oncoshift.methods.self_training:SelfTraining", terms=("self_training",)),
    "dann_mcc": MethodRow(terms=("dann", "mcc")),
    "cdan_mcc": MethodRow(terms=("cdan", "mcc")),
    "orient": MethodRow("oncoshift.methods.orient:Orient", terms=("orient",), also_reads=("anchor",)),
    "dann_mcc_orient": MethodRow(terms=("dann", "mcc", "orient"), also_reads=("anchor",)),
    "self_training_orient": MethodRow(terms=("self_training", "orient"), also_reads=("anchor",)),
    "anchored": MethodRow("oncoshift.methods.anchored:Anchored", closed_form=True, also_reads=("anchor",)),
    "few_labels": MethodRow("oncoshift.methods.few_labels:FewLabels", closed_form=True, reads_labels=True),
}
"""The methods by the name that settings, runs and jobs use."""
