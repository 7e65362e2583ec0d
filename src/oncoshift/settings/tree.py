"""All settings of one experiment, and the conditions between its sections."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from oncoshift.methods.registry import METHODS
from oncoshift.serving.trunks import TRUNKS
from oncoshift.settings.base import Names, Organ, Section
from oncoshift.settings.data import DataSections
from oncoshift.settings.judging import JudgingSections
from oncoshift.settings.methods import MethodSections
from oncoshift.settings.training import TrainingSections


class OrganSettings(Section):
    """Settings that stand in no section: the organs and the seed."""

    target: Organ = Field("kidney", description="domain (organ or hospital) to adapt to, without its labels")
    sources: Names[Organ] = Field(("lung", "colon", "breast"), description="labelled domains (organs or hospitals)")
    seed: int = Field(0, ge=0, description="seed of a single training, and first seed of a retraining")


# Pydantic takes fields from the last base to the first: the order that params.yaml has.
class Settings(JudgingSections, MethodSections, TrainingSections, DataSections, OrganSettings):
    """All settings of one experiment; params.yaml has the same shape."""

    @property
    def registered_model(self) -> str:
        """Name of the target's model in the registry."""
        return f"oncoshift-{self.target}"

    @property
    def trained_methods(self) -> tuple[str, ...]:
        """The method, and before it the prior that labels correct, if it reads labels."""
        method = self.train.method
        return (self.few_labels.prior, method) if METHODS[method].reads_labels else (method,)

    @property
    def reads_anchor(self) -> bool:
        """Whether the anchor had a say in the training of `train.method`."""
        return any(METHODS[name].reads_anchor for name in self.trained_methods)

    @property
    def candidate_variants(self) -> tuple[str, ...]:
        """The stain variants that are chosen from; `train.variant` alone where none are named."""
        return self.retrain.variants or (self.train.variant,)

    @property
    def _method_names(self) -> tuple[str, ...]:
        return *self.trained_methods, self.retrain.control, *self.retrain.methods

    @model_validator(mode="after")
    def _check_sections(self) -> Self:
        if self.target in self.sources:
            raise ValueError(f"target {self.target!r} is also in sources; a target is adapted to without its labels")
        if not self.sources:
            raise ValueError("sources is empty; name at least one labelled organ")
        if self.train.variant not in self.normalize.variants:
            raise ValueError(
                f"train.variant {self.train.variant!r} is not in normalize.variants {list(self.normalize.variants)}"
            )
        methods = [METHODS[name] for name in self._method_names]
        if any(row.one_organ for row in methods) and self.single.organ not in (None, *self.sources):
            raise ValueError(f"single.organ {self.single.organ!r} is not one of the sources {list(self.sources)}")
        labelled = [name for name in self.retrain.methods if METHODS[name].reads_labels]
        if labelled:
            raise ValueError(
                f"retrain.methods names {labelled[0]}, which reads labels, and the choice is made without any; set "
                "train.method to it, and retrain.methods to []"
            )
        if self.retrain.left_out:
            self._check_left_out()
        if self.retrain.control in self.retrain.methods:
            raise ValueError(f"retrain.methods names the control {self.retrain.control!r}, which is trained anyway")
        return self

    def _check_left_out(self) -> None:
        left_out, sources = self.retrain.left_out, self.sources
        if absent := [organ for organ in left_out if organ not in sources]:
            raise ValueError(f"retrain.left_out names {absent[0]!r}, which is not one of the sources {list(sources)}")
        if len(left_out) == len(sources):
            raise ValueError("retrain.left_out names all sources; leave at least one that the method learns from")
        if self.retrain.methods:
            raise ValueError(
                "retrain.left_out is what a choice has found, and retrain.methods asks for a new one; set one to []"
            )

    @model_validator(mode="after")
    def _check_balance(self) -> Self:
        """Refuse balanced epochs with fewer tiles than there are organs and labels to balance."""
        cells, train = 2 * len(self.sources), self.train  # benign and malignant tiles of each
        if train.balance and train.steps_per_epoch and train.steps_per_epoch * train.batch_size < cells:
            raise ValueError(
                f"train.batch_size {train.batch_size} × train.steps_per_epoch {train.steps_per_epoch} is too few for "
                f"train.balance: an epoch must hold a tile of each source organ and label, {cells} in all; raise one "
                "of them, or set train.balance to false"
            )
        return self

    @model_validator(mode="after")
    def _check_closed_form(self) -> Self:
        """Refuse several processes for a method without steps that they could share."""
        for name in self._method_names:
            if METHODS[name].closed_form and self.train.ranks > 1:
                raise ValueError(
                    f"method {name} is computed by one process; set train.processes and train.nodes to 1"
                    f"{self._or_leave_out(name)}"
                )
        return self

    @model_validator(mode="after")
    def _check_validator(self) -> Self:
        """Refuse to pick seeds by the anchor that has trained them, or by their priors."""
        if self.retrain.methods and self.select.validator == "oracle":
            raise ValueError(
                "select.validator: oracle reads target labels, and methods would be chosen by them; set "
                "retrain.methods to []"
            )
        if METHODS[self.train.method].reads_labels and self.select.validator == "atc":
            raise ValueError(
                f"select.validator atc reads the sources, and for {self.train.method} what is known of them is its "
                "prior's; choose another validator, such as information_maximisation"
            )
        for name in self._method_names:
            if METHODS[name].reads_anchor and self.select.validator == "nuclei":
                raise ValueError(
                    f"select.validator nuclei is no witness for {name}, which learns from that anchor; choose another "
                    f"validator, such as information_maximisation{self._or_leave_out(name)}"
                )
        return self

    def _or_leave_out(self, name: str) -> str:
        return f", or leave {name} out of retrain.methods" if name in self.retrain.methods else ""

    @model_validator(mode="after")
    def _check_variants(self) -> Self:
        """Refuse a choice of the variant that cannot be trained, or that has no witness."""
        variants, methods = self.retrain.variants, self.retrain.methods
        for key, names in (("retrain", variants), ("select", self.select.variants)):
            if absent := [name for name in names if name not in self.normalize.variants]:
                raise ValueError(
                    f"{key}.variants names {absent[0]!r}, which is not in normalize.variants "
                    f"{list(self.normalize.variants)}; add it there, or take it away here"
                )
        if variants and not methods:
            raise ValueError("retrain.variants is for the choice among retrain.methods; name at least one there")
        if len(variants) > 1 and methods and all(METHODS[name].reads_anchor for name in methods):
            raise ValueError(
                f"retrain.variants are compared by the anchor nuclei, and all of retrain.methods learn from anchors "
                f"({', '.join(methods)}); name a method that does not, or set retrain.variants to []"
            )
        return self

    @model_validator(mode="after")
    def _check_frozen_parts(self) -> Self:
        """Refuse methods that need frozen parts to change: their features are computed once."""
        freeze, tuned = self.model.freeze, self.tune.parameters
        methods = {name: METHODS[name] for name in self._method_names}
        changing = {
            "train.stain_jitter": self.train.stain_jitter > 0 or "train.stain_jitter" in tuned,
            "tune.parameters: self_training.stain_jitter": "self_training.stain_jitter" in tuned,
            **{name: row.changes_tiles for name, row in methods.items()},
        }
        if freeze != "none" and any(changing.values()):
            raise ValueError(
                f"{_find_first(changing)} changes tiles, and with model.freeze {freeze!r} training reads features that "
                "were computed once; set one of them to its default"
            )
        if self.model.backbone not in TRUNKS and any(row.per_domain for row in methods.values()):
            name = _find_first({name: row.per_domain for name, row in methods.items()})
            raise ValueError(
                f"{name} is about BatchNorm, which is separated in {' and '.join(TRUNKS)} alone, and not in "
                f"{self.model.backbone}; choose another method"
            )
        separating = {
            **{name: row.per_domain for name, row in methods.items()},
            "model.batch_norm per_domain": self.model.batch_norm == "per_domain",
        }
        if freeze in ("layer4", "all") and any(separating.values()):
            raise ValueError(
                f"{_find_first(separating)} is about BatchNorm in the trained parts of the trunk, and with "
                f"model.freeze {freeze!r} none is trained; freeze less of it (layer3), or choose another method"
            )
        return self


def _find_first(answers: dict[str, bool]) -> str:
    return next(name for name, answer in answers.items() if answer)
