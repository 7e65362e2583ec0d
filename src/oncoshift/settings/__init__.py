"""One frozen, validated `Settings` from params.yaml, a preset and `--set` overrides.

All other code receives the section that it needs and reads no file. A `Range` or `Choices` in a
setting's annotation says what tuning searches (see `oncoshift.tuning.space`). The methods' sections
are in `oncoshift.settings.methods`.
"""

from oncoshift.settings.base import Choices, Range, Section, StainVariant
from oncoshift.settings.data import IngestSettings, NormalizeSettings, PhantomSettings, SplitSettings
from oncoshift.settings.files import unflatten
from oncoshift.settings.judging import (
    EvaluateSettings,
    ExplainSettings,
    GateSettings,
    PaperSettings,
    RetrainSettings,
    SelectSettings,
    TrackingSettings,
    TuneSettings,
    WatchSettings,
)
from oncoshift.settings.loading import (
    dump_settings,
    flatten,
    flatten_values,
    load_settings,
    parse_settings,
    replace_values,
)
from oncoshift.settings.training import ModelSettings, TrainSettings
from oncoshift.settings.tree import Settings

__all__ = [
    "Choices",
    "EvaluateSettings",
    "ExplainSettings",
    "GateSettings",
    "IngestSettings",
    "ModelSettings",
    "NormalizeSettings",
    "PaperSettings",
    "PhantomSettings",
    "Range",
    "RetrainSettings",
    "Section",
    "SelectSettings",
    "Settings",
    "SplitSettings",
    "StainVariant",
    "TrackingSettings",
    "TrainSettings",
    "TuneSettings",
    "WatchSettings",
    "dump_settings",
    "flatten",
    "flatten_values",
    "load_settings",
    "parse_settings",
    "replace_values",
    "unflatten",
]
