from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from oncoshift.registry.card import MADE_UP, RESEARCH_ONLY, CardFacts, model_card
from oncoshift.registry.gate import Decision, Reason
from oncoshift.selection.verdict import Kind, Verdict


class Figure(NamedTuple):
    point: float
    low: float
    high: float


FACTS = CardFacts(
    name="oncoshift-kidney",
    target="kidney",
    sources=("lung", "colon"),
    method="dann",
    backbone="resnet18",
    variant="none",
    tile_size=64,
    selection="information_maximisation",
    verdict=Verdict(Kind.DOUBT, ("one source organ", "few tiles")),
    seeds=(0, 1, 2),
    data={"kidney/audit": "abc.dir"},
    metrics={"AUROC": Figure(0.851, 0.7, 0.95)},
    split="audit",
)


def test_the_card_tells_what_how_well_on_what_and_how_to_load() -> None:
    card = model_card(FACTS)
    assert card.startswith("# oncoshift-kidney\n")
    assert "| AUROC | 0.851 [0.700, 0.950] |" in card
    assert "kidney, audit tiles; seeds 0, 1, 2;" in card
    assert "| kidney/audit | abc.dir |" in card
    assert 'load_model("models:/oncoshift-kidney@champion")' in card
    assert "## Verdict without labels\n\n**doubt**\n\n- one source organ\n- few tiles\n" in card
    assert RESEARCH_ONLY in card
    assert MADE_UP not in card
    assert "## Gate" not in card


def test_made_up_data_and_the_gate_are_named() -> None:
    refused = Decision(promote=False, reasons=(Reason("AUROC", False, 0.5, 0.75, "too low"),))
    card = model_card(replace(FACTS, phantom=True, gate=refused))
    assert MADE_UP in card
    assert "| **failed** | AUROC | 0.500 | 0.750 | too low |" in card
