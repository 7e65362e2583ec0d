"""A model's card states its figures, and its judgement can be replaced on its own."""

from __future__ import annotations

from dataclasses import replace

from oncoshift.registry.card import (
    LEGEND,
    MADE_UP,
    NOT_JUDGED,
    RESEARCH_ONLY,
    CardFacts,
    render_card,
    render_judgement,
    replace_sections,
)
from oncoshift.registry.decision import Decision
from oncoshift.registry.policy import Reason
from oncoshift.selection.choice import HEADER, Candidate, choose
from oncoshift.selection.verdict import Kind, Verdict

FACTS = CardFacts(
    name="oncoshift-kidney",
    target="kidney",
    sources=("lung", "colon"),
    method="dann",
    backbone="resnet18",
    variant="none",
    tile_size=64,
    selection="seed 1 of 3, information_maximisation",
    verdict=Verdict(Kind.DOUBT, ("one source organ", "few tiles")),
    seed=1,
    seeds=(0, 1, 2),
    data={"kidney/audit": "abc.dir"},
    figures={"AUROC": "0.851 [0.700, 0.950]"},
    means={"AUROC": "0.700 [0.500, 0.900]"},
    split="audit",
)


def test_the_card_tells_what_how_well_on_what_and_how_to_load() -> None:
    card = render_card(FACTS)
    assert card.startswith("# oncoshift-kidney\n")
    assert "kidney, audit tiles;" in card
    assert "| kidney/audit | abc.dir |" in card
    assert 'load_model("models:/oncoshift-kidney@champion")' in card
    verdict = "Picked: seed 1 of 3, information_maximisation.\n\n**doubt**\n\n- one source organ\n- few tiles\n"
    assert f"## Verdict without labels\n\n{verdict}" in card
    assert RESEARCH_ONLY in card
    assert MADE_UP not in card
    assert f"## Gate\n\n{NOT_JUDGED}\n" in card


def test_figures_are_this_models_beside_the_mean_of_the_seeds() -> None:
    assert (
        "| metric | this model (seed 1) | mean of dann over seeds 0, 1, 2 |\n"
        "| --- | --- | --- |\n"
        "| AUROC | 0.851 [0.700, 0.950] | 0.700 [0.500, 0.900] |\n"
    ) in render_card(FACTS)


def test_the_columns_of_the_table_of_candidates_are_explained() -> None:
    tried = Candidate("mcc", "none", (0,), (0.5,), (0.2,), 0.6, None, Verdict(Kind.DOUBT, ("few tiles",)))
    card = render_card(replace(FACTS, choice=choose([tried])))
    assert f"({LEGEND}.)" in card
    assert all(f"{column}: " in LEGEND for column in HEADER[3:])
    assert all(f"{outcome} " in LEGEND for outcome in ("refused", "dropped", "not trained", "failed"))
    assert "negative where a seed misses select.source_floor" in LEGEND
    assert "learns from an anchor, nuclei is no evidence, and agreement is with models of single anchors" in LEGEND


def test_the_anchor_is_named_as_prior_knowledge() -> None:
    card = render_card(replace(FACTS, method="anchored", anchor="nuclei in training"))
    assert "Anchor (prior knowledge of morphology, not a label): nuclei in training." in card
    assert "Its head was computed by anchored for unlabelled kidney, from an anchor: no label of kidney" in card
    assert "Anchor" not in render_card(FACTS)


def test_made_up_data_are_named() -> None:
    assert MADE_UP in render_card(replace(FACTS, phantom=True))


def test_the_gates_decision_takes_its_place_however_often_it_is_made() -> None:
    refused = Decision(promote=False, reasons=(Reason("AUROC", False, 0.5, 0.75, "too low"),))
    promoted = replace(refused, promote=True)
    card = render_card(FACTS)
    once = replace_sections(card, {"Gate": refused.to_markdown()})
    assert "| **failed** | AUROC | 0.500 | 0.750 | too low |\n\n## Use and limits" in once
    assert NOT_JUDGED not in once
    assert replace_sections(once, {"Gate": refused.to_markdown()}) == once
    again = replace_sections(once, {"Gate": promoted.to_markdown()})
    assert again.count("## Gate\n\n**promote**") == again.count("## Gate") == 1


def test_what_is_judged_otherwise_is_replaced_and_all_else_stays() -> None:
    """A person's notes in the card stay as well."""
    card = render_card(FACTS) + "\n## Note\n\nby a person\n"
    other = replace(FACTS, selection="seed 1 of 3, entropy", figures={"AUROC": "0.600"})
    found = replace_sections(card, render_judgement(other))
    assert found == render_card(other) + "\n## Note\n\nby a person\n"


def test_a_card_without_the_section_gets_it_at_its_end() -> None:
    assert replace_sections("# card", {"Gate": "refuse\n"}) == "# card\n\n## Gate\n\nrefuse\n"


def test_labels_of_the_target_that_trained_the_model_are_named_and_not_denied() -> None:
    card = render_card(replace(FACTS, method="few_labels", target_labels="10 (4 benign, 6 malignant)"))
    assert (
        "computed by few_labels, from labels of kidney that a person gave for training: 10 (4 benign, 6 malig" in card
    )
    assert "no label of kidney" not in card
