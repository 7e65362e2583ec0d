"""Sections of the methods: what one method or one of its loss terms reads beside `model` and `train`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from oncoshift.settings.base import Choices, Organ, Range, Section

LambdaSchedule = Annotated[Literal["paper", "ganin", "constant"], Choices()]


class SingleSettings(Section):
    """Source-only training on one organ."""

    organ: Organ | None = Field(None, description="one of `sources`; default: the first")


class StainAugSettings(Section):
    """Source-only training with random stain strengths (Tellez 2018): augmentation in place of normalisation."""

    jitter: Annotated[float, Field(gt=0, le=1), Range(0.05, 0.5, log=True)] = Field(
        0.2, description="as train.stain_jitter, of which the larger one counts"
    )


class SelfTrainingSettings(Section):
    """Consistency of weak and strong views of target tiles (FixMatch, Sohn 2020; AdaMatch, Berthelot 2022)."""

    weight: Annotated[float, Field(gt=0), Range(0.1, 3.0, log=True)] = Field(1.0, description="of the consistency loss")
    threshold: Annotated[float, Field(gt=0.5, le=1), Range(0.7, 0.98)] = Field(
        0.9, description="confidence of a pseudo-label, relative to the mean confidence on the sources"
    )
    align: Annotated[bool, Choices()] = Field(
        True, description="bring the target's predicted proportions to the sources' (AdaMatch)"
    )
    stain_jitter: Annotated[float, Field(ge=0, le=1), Range(0.1, 0.6)] = Field(
        0.3, description="of the strong view; see train.stain_jitter"
    )


class DomainHeadSettings(Section):
    """What the methods with a domain head have in common; each has a section of its own."""

    schedule: LambdaSchedule = Field("ganin", description="how λ grows over training")
    max_lambda: Annotated[float, Field(gt=0), Range(0.1, 1.0, log=True)] = Field(0.33, description="what λ grows to")
    weight: Annotated[float, Field(gt=0), Range(0.3, 10.0, log=True)] = Field(
        3.0, description="of the domain loss; the trunk sees weight × λ of it, paper: 1"
    )
    hidden: Annotated[int, Field(ge=0), Choices((0, 64, 256))] = Field(
        0, description="width of the domain head's hidden layer; 0 is the paper's linear head"
    )
    label_shift: Annotated[Literal["none", "reweight"], Choices()] = Field(
        "none", description="reweight: source tiles count by the target's class proportions as the model predicts them"
    )


class DannSettings(DomainHeadSettings):
    """Domain-adversarial training (Ganin 2016)."""


class CdanSettings(DomainHeadSettings):
    """Conditional domain-adversarial training (Long 2018); its head sees features times predictions, so λ is larger."""

    max_lambda: Annotated[float, Field(gt=0), Range(0.1, 1.0, log=True)] = Field(1.0, description="what λ grows to")
    entropy_weighting: Annotated[bool, Choices()] = Field(
        True, description="CDAN+E: tiles of a certain class count more"
    )


class DannMultiSettings(DomainHeadSettings):
    """Domain-adversarial training with a head over all organs."""


class MccSettings(Section):
    """Minimum class confusion (Jin 2020)."""

    temperature: Annotated[float, Field(gt=0), Range(1.0, 4.0)] = Field(2.5, description="divides the logits")
    weight: Annotated[float, Field(gt=0), Range(0.1, 3.0, log=True)] = Field(1.0, description="of the class confusion")


class MddSettings(Section):
    """Margin disparity discrepancy (Zhang 2019)."""

    schedule: LambdaSchedule = Field("ganin", description="how λ grows over training")
    max_lambda: Annotated[float, Field(gt=0), Range(0.1, 1.0, log=True)] = Field(0.33, description="what λ grows to")
    weight: Annotated[float, Field(gt=0), Range(0.3, 10.0, log=True)] = Field(
        3.0, description="of the disparity; the trunk sees weight × λ of it"
    )
    margin: Annotated[float, Field(ge=1), Range(1.0, 8.0, log=True)] = Field(
        2.0, description="γ, weight of the sources within the disparity"
    )
    hidden: Annotated[int, Field(ge=0), Choices((0, 64, 256))] = Field(
        64, description="width of the auxiliary head's hidden layer; 0: linear, as the label's"
    )


class MethodSections(Section):
    """One section a method that has settings, under the method's name in `oncoshift.methods.registry`."""

    single: SingleSettings = SingleSettings()
    stain_aug: StainAugSettings = StainAugSettings()
    dann: DannSettings = DannSettings()
    cdan: CdanSettings = CdanSettings()
    mcc: MccSettings = MccSettings()
    mdd: MddSettings = MddSettings()
    dann_multi: DannMultiSettings = DannMultiSettings()
    self_training: SelfTrainingSettings = SelfTrainingSettings()
