"""All settings of one experiment, and what must hold between its sections."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from oncoshift.settings.base import Names, Organ, Section
from oncoshift.settings.data import IngestSettings, NormalizeSettings, PhantomSettings, SplitSettings
from oncoshift.settings.judging import (
    EvaluateSettings,
    ExplainSettings,
    GateSettings,
    RetrainSettings,
    SelectSettings,
    TrackingSettings,
    TuneSettings,
)
from oncoshift.settings.methods import (
    CdanSettings,
    DannMultiSettings,
    DannSettings,
    MccSettings,
    MddSettings,
    SelfTrainingSettings,
    SingleSettings,
    StainAugSettings,
)
from oncoshift.settings.training import ModelSettings, TrainSettings


class Settings(Section):
    """All settings of one experiment; params.yaml has the same shape."""

    target: Organ = "kidney"
    sources: Names[Organ] = ("lung", "colon", "breast")
    seed: int = Field(0, ge=0, description="of a single training; seeds of a retraining count up from here")
    phantom: PhantomSettings = PhantomSettings()
    ingest: IngestSettings = IngestSettings()
    split: SplitSettings = SplitSettings()
    normalize: NormalizeSettings = NormalizeSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    single: SingleSettings = SingleSettings()
    stain_aug: StainAugSettings = StainAugSettings()
    dann: DannSettings = DannSettings()
    cdan: CdanSettings = CdanSettings()
    mcc: MccSettings = MccSettings()
    mdd: MddSettings = MddSettings()
    dann_multi: DannMultiSettings = DannMultiSettings()
    self_training: SelfTrainingSettings = SelfTrainingSettings()
    tune: TuneSettings = TuneSettings()
    select: SelectSettings = SelectSettings()
    retrain: RetrainSettings = RetrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    explain: ExplainSettings = ExplainSettings()
    gate: GateSettings = GateSettings()
    tracking: TrackingSettings = TrackingSettings()

    @property
    def registered_model(self) -> str:
        """Name of the target's model in the registry."""
        return f"oncoshift-{self.target}"

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if self.target in self.sources:
            raise ValueError(f"target {self.target!r} is also in sources; a target is adapted to without its labels")
        if not self.sources:
            raise ValueError("sources is empty; name at least one labelled organ")
        if self.train.variant not in self.normalize.variants:
            raise ValueError(
                f"train.variant {self.train.variant!r} is not in normalize.variants {list(self.normalize.variants)}"
            )
        methods = {self.train.method, self.retrain.control}
        jitters = self.train.stain_jitter > 0 or "train.stain_jitter" in self.tune.parameters
        strong = "self_training.stain_jitter"
        for name, changes_tiles in (
            ("train.stain_jitter", jitters),
            (f"tune.parameters: {strong}", strong in self.tune.parameters),
            ("stain_aug", "stain_aug" in methods),
        ):
            if changes_tiles and self.model.freeze != "none":
                raise ValueError(
                    f"{name} changes tiles, and with model.freeze {self.model.freeze!r} training reads "
                    "features that were computed once; set one of them to its default"
                )
        per_domain = self.model.batch_norm == "per_domain" or "adabn" in methods
        if per_domain and self.model.freeze in ("layer4", "all"):
            name = "adabn" if "adabn" in methods else "model.batch_norm per_domain"
            raise ValueError(
                f"{name} is about BatchNorm in the trained parts of the trunk, and with model.freeze "
                f"{self.model.freeze!r} none is trained; freeze less of it (layer3), or choose another method"
            )
        if "single" in methods and self.single.organ not in (None, *self.sources):
            raise ValueError(f"single.organ {self.single.organ!r} is not one of the sources {list(self.sources)}")
        return self
