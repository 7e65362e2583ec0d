"""Every adaptation method: one row holds all that the rest of the package knows of a method by its name.

From the rows follow the names that `train.method` and `retrain.control` allow, the settings that a method reads and
tuning may therefore vary, the organs and networks that are trained, and how the method is built (`methods.factory`).

A new method is a file in this package, its section and field in `oncoshift.settings.methods`, and a row here. Rows
name classes by import string, because settings read this table and must not load torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MethodRow:
    """One method. It reads `model`, `train`, the section of its own name, if there is one, and those of its terms.

    Attributes:
        made_by: its class, as `module:class`: a `Method`, or a `Term` where the method is a term of its own.
            Empty for a method that is made of others.
        terms: the losses beside the label loss, in the order in which they are built and added; each is the name of a
            method that is a term.
        member: the method that is trained on each source organ alone, to average what these networks predict.
        also_reads: other settings that decide what it comes to.
        per_domain: whether its BatchNorm keeps source and target apart whatever `model.batch_norm` says.
        changes_tiles: whether it needs tiles to change, and so no frozen part of the trunk.
        one_organ: whether it is trained on one source organ, `single.organ`.
        separates_organs: whether its domain head has a class for each source organ, rather than one for all.
    """

    made_by: str = ""
    terms: tuple[str, ...] = ()
    member: str | None = None
    also_reads: tuple[str, ...] = ()
    per_domain: bool = False
    changes_tiles: bool = False
    one_organ: bool = False
    separates_organs: bool = False

    @property
    def uses_target(self) -> bool:
        """Whether target tiles decide what it comes to; a method without them can be the control."""
        return bool(self.terms) or self.per_domain


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
}
"""By the name that settings, runs and jobs use."""
