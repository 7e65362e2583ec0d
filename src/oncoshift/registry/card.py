"""The model card: what a model is, what is known about it, and what it must not be used for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncoshift.markdown import escape, render_table
from oncoshift.methods.registry import METHODS
from oncoshift.selection.choice import HEADER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncoshift.selection.choice import Choice
    from oncoshift.selection.verdict import Verdict

RESEARCH_ONLY = (
    "Research only. Not a medical device: it must not be used to diagnose, to triage, or to choose a treatment."
)
NOT_JUDGED = "Not asked when this was written; the version's description in the registry has its decision."
MADE_UP = "Trained and judged on made-up tissue (the phantom): the figures show that the machinery works, and no more."

LEGEND = (
    "without: source organs that were left out, with the kappa of their own models with those of the majority, which "
    "they contradict; "
    "score: select.validator, mean of the seeds, higher is better; negative where a seed misses select.source_floor, "
    "which ranks it below all that reach it, or where the validator is (entropy, nuclei); nuclei: correlation of "
    "predictions with the share of nuclei, mean of the seeds, where a clearly negative one speaks for exchanged "
    "classes; agreement: kappa of the best seed with models of single organs, 1 if they call all tiles alike, 0 if as "
    "many as by chance, negative if fewer; stain: least kappa of the best seed with the same training on another of "
    "select.variants; verdict: on the best seed; outcome: chosen, refused by the verdict, dropped as another one came "
    "first, not trained as retrain.minutes were used up, or failed as it cannot be trained; of a method that learns "
    "from an anchor, nuclei is no evidence, and agreement is with models of single anchors; none of it reads target "
    "labels"
)
"""The columns of the table of candidates (`selection.choice.HEADER`) in words."""

_SECTION = "\n\n## "


@dataclass(frozen=True)
class CardFacts:
    """The contents of a model card.

    Attributes:
        name: the registered model's name.
        target: the organ adapted to.
        sources: the labelled organs.
        method: for example dann.
        backbone: for example resnet18.
        variant: stain variant.
        tile_size: pixels.
        selection: how the model was picked.
        verdict: whether to trust the model, judged without target labels.
        seed: seed of this model.
        seeds: seeds of all trained models of the method.
        data: digest of each data set.
        figures: this model's metrics on `split`, formatted, by name.
        means: the same for the mean over `seeds`.
        split: split of labelled target tiles that the metrics were measured on.
        phantom: whether the data are made up.
        choice: how the method was chosen; None if it was given.
        anchor: the anchors that had a say, and in what; empty if none had.
        target_labels: the labels of the target that trained the model, in words; empty if none did.
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
    seed: int
    seeds: tuple[int, ...]
    data: Mapping[str, str]
    figures: Mapping[str, str]
    means: Mapping[str, str]
    split: str
    phantom: bool = False
    choice: Choice | None = None
    anchor: str = ""
    target_labels: str = ""


def render_card(facts: CardFacts) -> str:
    """Render the card as Markdown."""
    sections = {
        **render_judgement(facts),
        "Gate": NOT_JUDGED,
        "Use and limits": _render_limits(facts),
        "Data": render_table(("data set", "DVC digest"), facts.data.items()),
        "Load": _render_example(facts.name),
    }
    return replace_sections(f"# {escape(facts.name)}\n\n{render_summary(facts)}\n", sections)


def render_judgement(facts: CardFacts) -> dict[str, str]:
    """Render the sections that a later retraining may update for the same model, by title."""
    return {"Figures": _render_figures(facts), "Verdict without labels": _render_verdict(facts)}


def replace_sections(card: str, sections: Mapping[str, str]) -> str:
    """Replace sections of a card by title; append those that it lacks."""
    head, *rest = card.rstrip("\n").split(_SECTION)
    texts = dict(section.partition("\n\n")[::2] for section in rest) | dict(sections)
    return _SECTION.join([head, *(f"{title}\n\n{text.strip()}" for title, text in texts.items())]) + "\n"


def render_summary(facts: CardFacts) -> str:
    """Render what the model does and how it was made."""
    return f"{escape(describe_use(facts))}\n\n{escape(describe_input(facts))}"


def describe_use(facts: CardFacts) -> str:
    """Describe what the model does, in plain text."""
    made = f"Adapted by {facts.method} from labelled {', '.join(facts.sources)} to unlabelled {facts.target}"
    if facts.target_labels:
        return (
            f"Tells malignant from benign in H&E tiles of {facts.target}. Its head was computed by {facts.method}, "
            f"from labels of {facts.target} that a person gave for training: {facts.target_labels}."
        )
    if METHODS[facts.method].closed_form:
        made = f"Its head was computed by {facts.method} for unlabelled {facts.target}, from an anchor"
    return (
        f"Tells malignant from benign in H&E tiles of {facts.target}. {made}: no label of {facts.target} was used in "
        "training."
    )


def describe_input(facts: CardFacts) -> str:
    """Describe network and tiles, in plain text."""
    return (
        f"{facts.backbone}, stain variant {facts.variant}, tiles resized to {facts.tile_size} × {facts.tile_size} "
        "pixels."
    )


def _render_figures(facts: CardFacts) -> str:
    seeds = ", ".join(str(seed) for seed in facts.seeds)
    header = ("metric", f"this model (seed {facts.seed})", f"mean of {facts.method} over seeds {seeds}")
    rows = [(name, words, facts.means[name]) for name, words in facts.figures.items()]
    what = f"{escape(facts.target)}, {facts.split} tiles; intervals are bootstrapped over groups, not tiles."
    return f"{what}\n\n{render_table(header, rows)}"


def _render_verdict(facts: CardFacts) -> str:
    reasons = [f"- {escape(reason)}" for reason in facts.verdict.reasons]
    anchor = (
        [f"Anchor (prior knowledge of morphology, not a label): {escape(facts.anchor)}.", ""] if facts.anchor else []
    )
    lines = [f"Picked: {facts.selection}.", "", *anchor, f"**{facts.verdict.kind.value}**", "", *reasons]
    if facts.choice is not None:
        lines += ["", f"Method: {facts.choice.words}.", "", render_table(HEADER, facts.choice.rows)]
        lines += ["", f"({LEGEND}.)"]
    return "\n".join(lines)


def _render_limits(facts: CardFacts) -> str:
    made_up = [MADE_UP] if facts.phantom else []
    return "\n\n".join([*made_up, RESEARCH_ONLY, escape(describe_scope(facts))])


def describe_scope(facts: CardFacts) -> str:
    """Describe on which tiles the model can be used, in plain text."""
    return (
        f"It knows {facts.target} tiles at the magnification and from the scanners of its training data. It abstains "
        "on what shows no H&E tissue or is far from its training tiles, and still calls some other tissue and some "
        "artefacts benign or malignant."
    )


def _render_example(name: str) -> str:
    return f"""```python
import mlflow

mlflow.set_tracking_uri("sqlite:///mlruns/mlflow.db")
model = mlflow.pyfunc.load_model("models:/{name}@champion")
with open("tile.jpg", "rb") as file:
    print(model.predict({{"image": [file.read()]}}))  # label, probability, shift, abstain, error
```"""
