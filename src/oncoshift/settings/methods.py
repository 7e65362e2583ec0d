"""Sections of the methods: the settings of a method or loss term beside `model` and `train`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from oncoshift.methods.registry import METHODS
from oncoshift.settings.base import Choices, OneOf, Organ, Range, Section

LambdaSchedule = Annotated[Literal["paper", "ganin", "constant"], Choices()]


class SingleSettings(Section):
    """Source-only training on one organ."""

    organ: Organ | None = Field(None, description="source organ to train on; null: the first of `sources`")


class StainAugSettings(Section):
    """Source-only training with random stain strengths in place of normalisation (Tellez 2018)."""

    jitter: Annotated[float, Field(gt=0, le=1), Range(0.05, 0.5, log=True)] = Field(
        0.2, description="spread of the stain strengths, log scale; the larger of this and train.stain_jitter applies"
    )


class SelfTrainingSettings(Section):
    """Consistency of weak and strong views of target tiles (FixMatch 2020, AdaMatch 2022)."""

    weight: Annotated[float, Field(gt=0), Range(0.1, 3.0, log=True)] = Field(
        1.0, description="weight of the consistency loss"
    )
    threshold: Annotated[float, Field(gt=0.5, le=1), Range(0.7, 0.98)] = Field(
        0.9, description="least confidence of a pseudo-label, relative to the mean confidence on the sources"
    )
    align: Annotated[bool, Choices()] = Field(
        True, description="whether to align the target's predicted class proportions with the sources' (AdaMatch)"
    )
    stain_jitter: Annotated[float, Field(ge=0, le=1), Range(0.1, 0.6)] = Field(
        0.3, description="stain jitter of the strong view; see train.stain_jitter"
    )


class DomainHeadSettings(Section):
    """Settings of a method with a domain head; each such method has a section of its own."""

    schedule: LambdaSchedule = Field("ganin", description="growth of λ over training")
    max_lambda: Annotated[float, Field(gt=0), Range(0.1, 1.0, log=True)] = Field(0.33, description="largest λ")
    weight: Annotated[float, Field(gt=0), Range(0.3, 10.0, log=True)] = Field(
        3.0, description="weight of the domain loss (paper: 1); its gradient reaches the trunk times weight × λ"
    )
    hidden: Annotated[int, Field(ge=0), Choices((0, 64, 256))] = Field(
        0, description="width of the domain head's hidden layers; 0: a linear head, as in the paper"
    )
    label_shift: Annotated[Literal["none", "reweight"], Choices()] = Field(
        "none", description="reweight: source tiles are weighted to the target's class proportions as predicted"
    )


class DannSettings(DomainHeadSettings):
    """Domain-adversarial training (Ganin 2016)."""


class CdanSettings(DomainHeadSettings):
    """Conditional domain-adversarial training (Long 2018) on features times predictions."""

    max_lambda: Annotated[float, Field(gt=0), Range(0.1, 1.0, log=True)] = Field(1.0, description="largest λ")
    entropy_weighting: Annotated[bool, Choices()] = Field(
        True, description="whether tiles with confident predictions weigh more (CDAN+E)"
    )


class DannMultiSettings(DomainHeadSettings):
    """Domain-adversarial training with a head over all organs."""


class MccSettings(Section):
    """Minimum class confusion (Jin 2020)."""

    temperature: Annotated[float, Field(gt=0), Range(1.0, 4.0)] = Field(2.5, description="divisor of the logits")
    weight: Annotated[float, Field(gt=0), Range(0.1, 3.0, log=True)] = Field(
        1.0, description="weight of the class confusion"
    )


class MddSettings(Section):
    """Margin disparity discrepancy (Zhang 2019)."""

    schedule: LambdaSchedule = Field("ganin", description="growth of λ over training")
    max_lambda: Annotated[float, Field(gt=0), Range(0.1, 1.0, log=True)] = Field(0.33, description="largest λ")
    weight: Annotated[float, Field(gt=0), Range(0.3, 10.0, log=True)] = Field(
        3.0, description="weight of the disparity; its gradient reaches the trunk times weight × λ"
    )
    margin: Annotated[float, Field(ge=1), Range(1.0, 8.0, log=True)] = Field(
        2.0, description="γ, the weight of the sources within the disparity"
    )
    hidden: Annotated[int, Field(ge=0), Choices((0, 64, 256))] = Field(
        64, description="width of the auxiliary head's hidden layers; 0: a linear head, like the label head"
    )


class OrientSettings(Section):
    """A penalty on target predictions that do not follow the anchor."""

    weight: Annotated[float, Field(gt=0), Range(1.0, 10.0, log=True)] = Field(4.0, description="weight of the penalty")
    margin: Annotated[float, Field(gt=0, lt=1), Range(0.1, 0.5)] = Field(
        0.3, description="correlation of predictions and anchor in a batch from which there is none"
    )


class AnchoredSettings(Section):
    """A head for the target in closed form, self-trained from the anchor."""

    tiles: Annotated[float, Field(gt=0, le=1)] = Field(
        0.8, description="share of the target's tiles that a seed draws; 1: all, and every seed gives the same head"
    )


class FewLabelsSettings(Section):
    """A head that corrects a model without labels by a handful of them (`oncoshift label`)."""

    prior: Annotated[str, OneOf(tuple(name for name, row in METHODS.items() if row.can_be_prior))] = Field(
        "anchored", description="method of the model that the labels correct; it reads none of them"
    )


class MethodSections(Section):
    """The sections of methods, each under the method's name in `oncoshift.methods.registry`."""

    single: SingleSettings = SingleSettings()
    stain_aug: StainAugSettings = StainAugSettings()
    dann: DannSettings = DannSettings()
    cdan: CdanSettings = CdanSettings()
    mcc: MccSettings = MccSettings()
    mdd: MddSettings = MddSettings()
    dann_multi: DannMultiSettings = DannMultiSettings()
    self_training: SelfTrainingSettings = SelfTrainingSettings()
    orient: OrientSettings = OrientSettings()
    anchored: AnchoredSettings = AnchoredSettings()
    few_labels: FewLabelsSettings = FewLabelsSettings()
