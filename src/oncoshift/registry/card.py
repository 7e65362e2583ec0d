"""The model card: what a model is, what is known about it, and what it is not for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncoshift.registry.gate import Decision, Interval
    from oncoshift.selection.verdict import Verdict

RESEARCH_ONLY = (
    "Research only. Not a medical device: it must not be used to diagnose, to triage, or to choose a treatment."
)
MADE_UP = "Trained and judged on made-up tissue (the phantom): the figures show that the machinery works, and no more."


@dataclass(frozen=True)
class CardFacts:
    """What a card tells.

    Attributes:
        name: the registered model's name.
        target: the organ adapted to.
        sources: the labelled organs.
        method: for example dann.
        backbone: for example resnet18.
        variant: stain variant.
        tile_size: pixels.
        selection: how the model was picked.
        verdict: whether to believe it, as far as that can be told without target labels.
        seeds: the seeds that the figures come from.
        data: digest by data set.
        metrics: interval by metric name, on the split named `split`.
        split: which labelled tiles of the target the metrics are of.
        gate: the gate's decision; None before it was asked.
        phantom: whether the data are made up.
    """

    name: str
    target: str
    sources: tuple[str, ...]
    method: str
    backbone: str
    variant: str
    tile_size: int
    selection: str
    verdict: Verdict
    seeds: tuple[int, ...]
    data: Mapping[str, str]
    metrics: Mapping[str, Interval]
    split: str
    gate: Decision | None = None
    phantom: bool = False


def model_card(facts: CardFacts) -> str:
    """The card as markdown."""
    sections = {
        "Figures": _figures(facts),
        "Verdict without labels": _verdict(facts.verdict),
        "Gate": "" if facts.gate is None else facts.gate.to_markdown().strip(),
        "Use and limits": _limits(facts),
        "Data": _table("data set", "DVC digest", facts.data),
        "Load": _load(facts.name),
    }
    body = [f"## {title}\n\n{text}" for title, text in sections.items() if text]
    return "\n\n".join([f"# {facts.name}", _summary(facts), *body]) + "\n"


def _summary(facts: CardFacts) -> str:
    return (
        f"Tells malignant from benign in H&E tiles of {facts.target}. Adapted by {facts.method} from labelled "
        f"{', '.join(facts.sources)} to unlabelled {facts.target}: no label of {facts.target} was used in training.\n\n"
        f"{facts.backbone}, stain variant {facts.variant}, tiles resized to {facts.tile_size} × {facts.tile_size} "
        f"pixels; picked by {facts.selection}."
    )


def _figures(facts: CardFacts) -> str:
    rows = {name: f"{value.point:.3f} [{value.low:.3f}, {value.high:.3f}]" for name, value in facts.metrics.items()}
    seeds = ", ".join(str(seed) for seed in facts.seeds)
    what = f"{facts.target}, {facts.split} tiles; seeds {seeds}; intervals are bootstrapped over groups, not tiles."
    return f"{what}\n\n{_table('metric', 'estimate [interval]', rows)}"


def _verdict(verdict: Verdict) -> str:
    return "\n".join([f"**{verdict.kind.value}**", "", *(f"- {reason}" for reason in verdict.reasons)])


def _limits(facts: CardFacts) -> str:
    made_up = [MADE_UP] if facts.phantom else []
    scope = (
        f"It knows {facts.target} tiles at the magnification and from the scanners of its training data, and answers "
        "benign or malignant even for other tissue, background or artefacts."
    )
    return "\n\n".join([*made_up, RESEARCH_ONLY, scope])


def _load(name: str) -> str:
    return f"""```python
import mlflow

mlflow.set_tracking_uri("sqlite:///mlruns/mlflow.db")
model = mlflow.pyfunc.load_model("models:/{name}@champion")
with open("tile.jpg", "rb") as file:
    print(model.predict({{"image": [file.read()]}}))  # columns probability, label, error
```"""


def _table(left: str, right: str, rows: Mapping[str, str]) -> str:
    return "\n".join([f"| {left} | {right} |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])
