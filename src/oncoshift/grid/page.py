"""The page of the grid's results: Markdown with tables and pictures, none of it typed."""

from __future__ import annotations

import os
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from oncoshift.errors import SettingsError
from oncoshift.files import writing
from oncoshift.grid import published
from oncoshift.grid.explained_page import draw_nuclei, render_explained
from oncoshift.grid.plots import draw_evidence, draw_matrices, draw_slopes, draw_values
from oncoshift.grid.registry import HONEST, PROTOCOLS
from oncoshift.grid.results import FAILED_BELOW, GOOD_FROM
from oncoshift.grid.rows import CONTROL, ENSEMBLE
from oncoshift.markdown import render_table
from oncoshift.methods.registry import METHODS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from oncoshift.evaluation.intervals import Interval
    from oncoshift.grid.results import Chosen, MeasuredRow, Results
    from oncoshift.grid.rows import Pool
    from oncoshift.registry.tracking import Tracker

PAGE, IMAGES = "results.md", "img"
"""Artifacts of the results' run: the page, and the folder of its pictures."""

_NOTHING = "–"

_FEW_GROUPS = 20
"""Test groups of a target below which the page warns of wide intervals."""

_ABOUT_PROTOCOLS = """\
Split by tile, test tiles are other ones than split by group. Models of single organs are trained as
DANN is under the same protocol; the paper's were trained with AdamW and picked on validation loss."""

_ABOUT_FROZEN = """\
The trunk is frozen in all rows, so there are none with a random start, as in the paper: features of
random weights separate nothing. The paper trains the whole network, which takes a GPU; what that gives
is in [studies](studies.md#the-papers-protocol-with-the-whole-network)."""

_ELSEWHERE = """\
## Beside this grid

- What a handful of labels adds, and how they gate: [a handful of labels](labels.md).
- More validators, the choice with fewer seeds, whole networks on a GPU, the made-up data set: [studies](studies.md).
- Hospitals in place of organs: the command for Camelyon17-WILDS is in [studies](studies.md#camelyon17-wilds)."""


def record_page(tracker: Tracker, results: Results) -> None:
    """Save the page and its pictures as artifacts of the results' run."""
    figures = draw_figures(results)
    for name, figure in figures.items():
        tracker.log_figure(results.run, figure, f"{IMAGES}/{name}")
    tracker.log_text(results.run, render_page(results, figures), PAGE)


def prepare_page(path: Path) -> None:
    """Make the folders of a page and its pictures, so that hours of work do not end in an error.

    Raises:
        DataError: one of them is not writable.
        SettingsError: the page's path is that of a folder, or of a file that is not writable.
    """
    if path.is_dir() or (path.exists() and not os.access(path, os.W_OK)):
        raise SettingsError(f"--out {path}: name a file that you may write, or one that does not exist")
    with writing(path.parent), writing(path.parent / IMAGES):
        (path.parent / IMAGES).mkdir(parents=True, exist_ok=True)


def write_page(results: Results, path: Path) -> None:
    """Write the page to a file, and its pictures into the folder `img` beside it."""
    prepare_page(path)
    figures = draw_figures(results)
    for name, figure in figures.items():
        figure.savefig(path.parent / IMAGES / name, dpi=110)
    path.write_text(render_page(results, figures), encoding="utf-8")


def render_page(results: Results, drawn: Collection[str]) -> str:
    """Render the page as Markdown.

    Args:
        results: all rows.
        drawn: the file names of the pictures that there are.
    """
    sections = [
        _render_head(results),
        _render_headline(results, drawn),
        _render_methods(results),
        _render_choice(results, drawn),
        _render_matrix(results, drawn),
        _render_stain(results, drawn),
        _render_protocols(results, drawn),
        _render_validators(results),
        render_explained(results, _show_picture(drawn, "nuclei", "Attribution on nuclei, source-only and chosen")),
        _ELSEWHERE,
        _render_hospitals(),
        _render_limits(results),
        _render_rows(results),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def draw_figures(results: Results) -> dict[str, Figure]:
    """Draw the pictures of the page, by file name; those without any value are left out."""
    drawn = {_name_picture(name): draw(results) for name, draw in _PICTURES.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _render_head(results: Results) -> str:
    settings = results.settings
    seeds = settings.retrain.seeds
    trunk = f"{settings.model.backbone}, {'frozen' if settings.model.freeze == 'all' else 'trained'}"
    pretrained = "from a random start" if settings.model.weights == "none" else "pretrained"
    return f"""\
# Results

This page is made by one command from the runs that it left in MLflow (experiment
`{settings.tracking.experiment}-paper`, commit {results.commit}); nothing on it is typed.

```sh
{results.command}{" --explain" if results.explained else ""} --out docs/results.md
```

Each figure is a mean over {seeds} seed{"s" if seeds > 1 else ""} on held-out tiles, with a
{settings.evaluate.confidence:.0%} bootstrap interval over groups (patients, slides, originals) and seeds. The
trunk is a {trunk}, {pretrained}; {settings.train.epochs} epochs. Test tiles took part in no decision: no training,
validator or verdict reads a label of the target, except where a column says so. But people have seen
labels: the candidates, the rule that chooses among them and the limits of the verdict were fixed
when results on tiles of these organs were known ([studies](studies.md#choosing-a-method)), so this is
no blind test of them."""


def _render_headline(results: Results, drawn: Collection[str]) -> str:
    rows = [
        (
            str(pool),
            _count(results, pool),
            _paper_dann(pool),
            _show(_interval(results.find(pool, CONTROL))),
            *_describe_chosen(results, pool),
            _describe_oracle(results, pool),
            _show_on(find_single(results, pool.target, pool.target), pool.target),
        )
        for pool in results.pools
    ]
    header = (
        "target ← sources", "tiles, groups", "paper's DANN", "source-only", "chosen without labels",
        "balanced accuracy", "gain, paired", "verdict", "best method (oracle)", "own labels (bound)",
    )  # fmt: skip
    return f"""\
## In one table

{render_table(header, rows)}

- *paper's DANN*: accuracy, one seed, split by image, the better of its two stain variants.
- *chosen without labels*: one of {", ".join(results.candidates)}{_describe_variants(results)}
  ([how](architecture.md#which-method)), by figures of all seeds; a retraining takes
  {results.settings.retrain.screen_seeds} for that. The gain is over source-only on the same variant.
- *best method (oracle)*: the row with the best mean on these very test tiles, so its figure is too high.
- *own labels (bound)*: trained on labels of the target's other groups, and measured on validation
  groups of it, which are not the test groups.

{_show_picture(drawn, "slopes", "Source-only to the method chosen without labels; the green line: own labels")}"""


def _render_methods(results: Results) -> str:
    names = [CONTROL, ENSEMBLE, *results.settings.paper.methods]
    parts = []
    for variant in results.variants:
        pools = [pool for pool in results.pools if results.find(pool, CONTROL, variant) is not None]
        rows = [
            (_describe_method(name), *(_show_with_seeds(results.find(pool, name, variant)) for pool in pools))
            for name in names
        ]
        parts.append(f"Stain variant `{variant}`:\n\n{render_table(('method', *map(str, pools)), rows)}")
    return (
        "## All methods\n\nBalanced accuracy on test tiles of the target; below it, the least and the greatest seed. "
        "Hyperparameters\nare those of the preset, untuned, so methods are not at their best.\n\n" + "\n\n".join(parts)
    )


def _render_choice(results: Results, drawn: Collection[str]) -> str:
    if not results.chosen:
        return ""
    rows = []
    for each in results.chosen:
        witnesses = any(not candidate.reads_anchor for candidate in each.choice.candidates)
        for candidate in each.choice.candidates:
            row = results.find_candidate(each.pool, candidate.method, candidate.variant)
            verdict = _NOTHING if candidate.verdict is None else candidate.verdict.kind.value
            name = results.name_candidate(candidate.method, candidate.variant, candidate.without)
            name += " (chosen)" if candidate == each.choice.chosen else ""
            score, nuclei = f"{candidate.score:.3f}", f"{candidate.following:.3f}"
            nuclei = f"({nuclei})" if candidate.reads_anchor and witnesses else nuclei
            stain = _NOTHING if candidate.stain is None else f"{candidate.stain:.2f}"
            rows.append((str(each.pool), name, score, nuclei, stain, verdict, _show(_interval(row))))
    variants = results.settings.candidate_variants
    ways = {
        "as a retraining does": results.chosen,
        "of all methods that read no anchor": results.choose_among(results.all_candidates, variants),
    }
    if len(variants) > 1:
        ways |= {f"on {name} alone": results.choose_among(results.candidates, (name,)) for name in variants}
    compared = [
        (
            str(pool),
            *(_describe_regret(results, [each for each in made if each.pool == pool]) for made in ways.values()),
        )
        for pool in results.pools
    ]
    accuracies = (np.mean([each.row.accuracy for each in made]) for made in ways.values())
    regrets = (np.mean([each.regret for each in made]) for made in ways.values())
    compared.append(("mean balanced accuracy", *(f"{mean:.3f}" for mean in accuracies)))
    compared.append(("mean regret", *(f"{mean:.3f}" for mean in regrets)))
    header = (
        "target ← sources",
        "candidate",
        "score",
        "nuclei",
        "stain",
        "verdict",
        "balanced accuracy, read afterwards",
    )
    judged = results.judged
    failed = judged[judged["balanced_accuracy"] < FAILED_BELOW]
    good = judged[judged["balanced_accuracy"] >= GOOD_FROM]
    wrong = [
        f"{results.name_candidate(row['method'], row['variant'])}, {row['pool']} ({row['balanced_accuracy']:.2f})"
        for row in failed[failed["verdict"] == "trust"].to_dict("records")
    ]
    counts = [
        (name, *(str(int((part["verdict"] == kind).sum())) for kind in ("trust", "doubt", "refuse")))
        for name, part in (
            (f"failed (below {FAILED_BELOW})", failed),
            (f"good (from {GOOD_FROM})", good),
            ("all", judged),
        )
    ]
    more = _render_left_out(results) + _render_stain_witness(results, drawn)
    return f"""\
## The choice without labels, and the verdict

{render_table(header, rows)}

Score: `{results.settings.select.validator}`; nuclei: correlation of the predictions with the anchor `nuclei`, by whose
mean the stain variant is chosen where the verdict trusts none (in parentheses: of a method that learns from an anchor,
which has no say in that); stain: kappa of the calls with those of the same training on another stain variant. What is
chosen, by what there is to choose from: its balanced accuracy, and what it loses against the best of the candidates
above (regret):

{render_table(("target ← sources", *ways), compared)}

What the verdict said of the picked seed of each adapted row, and what is true of that seed:

{render_table(("", "trusted", "doubted", "refused"), counts)}

Trusted although they failed: {"; ".join(wrong) or "none"}.{more}"""


def _render_left_out(results: Results) -> str:
    """Say what leaving out sources that contradict the others changes; nothing where none was."""
    found = [(each, known) for each in results.rows if (known := each.candidate) is not None and known.without]
    if not found:
        return ""
    rows = []
    for each, candidate in found:
        row = each.row
        usual = results.find(row.pool, row.method, row.variant)
        rows.append(
            (
                str(row.pool), results.name_candidate(row.method, row.variant), candidate.left_out,
                _show(_interval(usual)), _show(each.of_target), _show_signed(results.compute_difference(each, usual)),
            )
        )  # fmt: skip
    header = ("target ← sources", "candidate", "left out (kappa)", "from all sources", "without", "difference, paired")
    return f"""

Where the models from one source alone contradict those from the majority of sources on the unlabelled target, with a
kappa below {results.settings.retrain.leave_out_below} (`retrain.leave_out_below`), the candidate is trained again
without that source; it can be doubted at best, as at least one side is wrong:

{render_table(header, rows)}"""


def _render_stain_witness(results: Results, drawn: Collection[str]) -> str:
    """Say what agreement across stain variants tells; nothing where no row has it."""
    known = results.judged.dropna()
    if known.empty:
        return ""
    limit = results.settings.select.trust_stain
    alike = known[known["stain"] >= limit]
    failed, below = (known[known["balanced_accuracy"] < FAILED_BELOW] for known in (alike, known))
    return f"""

One witness of the verdict is agreement across stain variants: how many target tiles the same training
calls alike on differently normalised tiles. Of {len(known)} picks, {len(alike)} agree with a kappa of at least
{limit} (`select.trust_stain`), and {len(failed)} of these have failed; of the {len(known) - len(alike)} others,
{len(below) - len(failed)} have. It does not say which of two that contradict is right, and a pick on each variant is
mostly the other's witness, so these are about half as many comparisons.

{_show_picture(drawn, "witness", "Agreement across stain variants, without labels, and the truth")}"""


def _render_matrix(results: Results, drawn: Collection[str]) -> str:
    organs = results.organs
    rows = [
        (f"{organ} alone", *(_show_on(find_single(results, organ, tested), tested) for tested in organs))
        for organ in organs
    ]
    ensembles = [
        (organ, _show_number(published.ENSEMBLE.get(organ)), _show(_interval(_find_widest(results, organ, ENSEMBLE))))
        for organ in organs
    ]
    return f"""\
## From one organ to the others

Trained on one organ (rows), tested on each (columns); on its own organ, validation groups.

{render_table(("trained on", *organs), rows)}

{_show_picture(drawn, "matrix", "The same as a heat map, beside the paper's, in which kidney is abdominal CT")}

The ensemble of the models from single organs, of the target's pool with the most sources; the paper's is of
three:

{render_table(("target", "paper's accuracy", "balanced accuracy"), ensembles)}"""


def _render_stain(results: Results, drawn: Collection[str]) -> str:
    if len(results.variants) < 2:
        return ""
    first, *others = results.variants
    rows = []
    for pool in results.pools:
        for name in _list_stain_methods(results):
            for variant in others:
                with_it, without = results.find(pool, name, variant), results.find(pool, name)
                if with_it is None:
                    continue
                paper = _paper_stain_effect(pool, name, variant) if first == "none" else ""
                rows.append(
                    (
                        str(pool), name, variant, _show(_interval(without)), _show(_interval(with_it)),
                        _show_signed(results.compute_difference(with_it, without)), paper,
                    )
                )  # fmt: skip
    header = (
        "target ← sources",
        "method",
        "variant",
        first,
        "with the variant",
        "difference, paired",
        "paper's difference",
    )
    return f"""\
## Stain normalisation

{render_table(header, rows)}

{_show_picture(drawn, "stain", "What stain normalisation changes, paired by group, with intervals")}"""


def _render_protocols(results: Results, drawn: Collection[str]) -> str:
    protocols = list(dict.fromkeys(each.row.protocol for each in results.rows if each.row.protocol != HONEST))
    pools = [pool for pool in results.pools if len(pool.sources) == 2]
    if not protocols or not pools:
        return ""
    words = [f"- `{name}`: {PROTOCOLS[name].words}." for name in (HONEST, *protocols)]
    rows = []
    for pool in pools:
        for name in (HONEST, *protocols):
            control, dann = (results.find(pool, method, protocol=name) for method in (CONTROL, "dann"))
            rows.append(
                (
                    str(pool), name, _describe_own_organs(results, pool, name), _show(_interval(control)),
                    _show_with_seeds(dann), _show_signed(results.compute_gain(dann)),
                )
            )  # fmt: skip
    header = (
        "target ← sources", "protocol", "each source organ alone, on itself", "source-only", "DANN; its seeds",
        "DANN's gain, paired",
    )  # fmt: skip
    notes = [_ABOUT_PROTOCOLS, *([_ABOUT_FROZEN] if results.settings.model.freeze != "none" else [])]
    return f"""\
## What each difference to the paper's protocol is worth

{chr(10).join(words)}

{render_table(header, rows)}

{_show_picture(drawn, "protocols", "DANN's gain over source-only under each protocol")}

{" ".join(notes)}"""


def _render_validators(results: Results) -> str:
    ranks = results.rank_validators()
    if ranks.empty:
        return ""
    pools = list(dict.fromkeys(ranks["pool"]))
    rows = []
    for name, part in ranks.groupby("validator", sort=False):
        by_pool = part.set_index("pool")
        cells = [
            f"{by_pool.loc[pool, 'spearman']:.2f} / {by_pool.loc[pool, 'regret']:.3f}"
            if pool in by_pool.index
            else _NOTHING
            for pool in pools
        ]
        rows.append((str(name), *cells, f"{part['regret'].mean():.3f}"))
    return f"""\
## Validators

Over all adapted models of a pool that read no anchor, of all stain variants, each seed by itself: Spearman of the
score, above the source floor, with the true balanced accuracy, and what the model with the best score loses
against the best one. What `benchmarks/selection.py` measures of more validators is in
[studies](studies.md).

{render_table(("validator", *pools, "mean regret"), rows)}"""


def _render_hospitals() -> str:
    header = ("model", "accuracy, %", "by")
    return f"""\
## Camelyon17-WILDS

Published accuracy on the test hospital, with the standard deviation over trainings:

{render_table(header, [*published.WILDS, ("oncoshift", "not run: data not at hand", "")])}"""


def _render_limits(results: Results) -> str:
    judged = results.judged
    failed = judged[judged["balanced_accuracy"] < FAILED_BELOW]
    trusted = int((failed["verdict"] == "trust").sum())
    found = {pool.target: results.find(pool, CONTROL) for pool in results.pools}
    groups = {target: row.count(target)[1] for target, row in found.items() if row is not None}
    small = [f"{target} ({count})" for target, count in groups.items() if count < _FEW_GROUPS]
    anchored = [name for name in results.settings.paper.methods if METHODS[name].reads_anchor]
    lines = [
        f"- That the verdict is safe beyond these tiles: it trusted {trusted} of {len(failed)} failed models here.",
        "- That these are independent trials: models of one target are not, and the verdict's limits were set",
        "  with tiles of these organs.",
        "- That a method is the best of these: hyperparameters are untuned, and many differences are within",
        "  the spread of seeds.",
    ]
    lines += [
        f"- That the paper is beaten on {each.pool.target} without labels: its DANN has {_paper_dann(each.pool)},\n"
        f"  what is chosen here {each.row.accuracy:.3f}."
        for each in results.chosen
        if _is_papers(each.pool) and each.row.accuracy < _find_paper_dann(each.pool.target)
    ]
    if small:
        lines.append(
            f"- Anything about targets with few test groups: {', '.join(small)}. Their intervals are wide for that."
        )
    if anchored:
        lines.append(
            f"- That {', '.join(anchored)} need no prior knowledge: they read an anchor of morphology,\n"
            "  which was chosen when the labels of these organs were known."
        )
    lines.append(
        "- That the paper's figures and ours are of the same task: data, split and class balance differ, and its "
        "kidney is\n  abdominal CT."
    )
    return "## What we would not claim\n\n" + "\n".join(lines)


def _render_rows(results: Results) -> str:
    rows = []
    for each in results.rows:
        if each.repeats_another:
            continue
        tiles, groups = each.count(each.row.pool.target)
        value = f"cannot be trained: {each.failure}" if each.failure else _show(each.of_target)
        auroc = "" if each.failure else _show(each.get_interval(each.row.pool.target, "auroc"))
        row = each.row
        rows.append(
            (
                str(row.pool), row.name, row.variant, row.protocol, str(len(each.facts.get("jobs", ()))),
                f"{tiles}, {groups}", value, auroc, each.run[:8],
            )
        )  # fmt: skip
    header = (
        "target ← sources", "method", "variant", "protocol", "seeds", "tiles, groups", "balanced accuracy", "AUROC",
        "run",
    )  # fmt: skip
    return f"## Every row\n\n{render_table(header, rows)}"


def find_single(results: Results, trained: str, tested: str) -> MeasuredRow | None:
    """Find the row of a model from one organ on another's test tiles, or its validation tiles.

    It is read from the pool with the most sources that has both.
    """
    target = None if trained == tested else tested
    pools = [pool for pool in results.pools if trained in pool.sources and target in (None, pool.target)]
    if not pools:
        return None
    return results.find(max(pools, key=lambda pool: len(pool.sources)), f"{trained} alone")


def compute_bound(results: Results, organ: str) -> float | None:
    """Compute what a model trained on an organ's own labels reaches on other groups of it."""
    row = find_single(results, organ, organ)
    return None if row is None else row.compute_mean(organ)


def _describe_own_organs(results: Results, pool: Pool, protocol: str) -> str:
    found = {organ: results.find(pool, f"{organ} alone", protocol=protocol) for organ in pool.sources}
    return ", ".join(f"{organ} {_show_on(row, organ)}" for organ, row in found.items())


def _show_picture(drawn: Collection[str], name: str, caption: str) -> str:
    """Link a picture that there is; else say that there was nothing to draw."""
    file = _name_picture(name)
    return f"![{caption}]({IMAGES}/{file})" if file in drawn else "(Nothing to draw.)"


def _name_picture(name: str) -> str:
    return f"results-{name}.png"


def _find_widest(results: Results, target: str, name: str) -> MeasuredRow | None:
    pools = [pool for pool in results.pools if pool.target == target]
    return results.find(max(pools, key=lambda pool: len(pool.sources)), name) if pools else None


def _describe_regret(results: Results, found: list[Chosen]) -> str:
    """Describe a pool's choice, its balanced accuracy and its regret; nothing if there is none."""
    if not found:
        return _NOTHING
    (each,) = found
    return f"{results.name_chosen(each.choice)}: {each.row.accuracy:.3f}, {each.regret:.3f}"


def _describe_variants(results: Results) -> str:
    variants = results.settings.candidate_variants
    if len(variants) < 2:
        return ""
    listed = " or ".join(f"`{name}`" for name in variants)
    return (
        f" on {listed}:\n  those that the verdict trusts come first; without any, those on the variant that "
        "follows the anchor `nuclei` best\n  (mean over the methods that learn from no anchor), doubted before "
        "refused. Of equals, those that no anchor taught\n  come first, then the score decides"
    )


def _describe_chosen(results: Results, pool: Pool) -> tuple[str, str, str, str]:
    chosen = next((each for each in results.chosen if each.pool == pool), None)
    if chosen is None:
        return (_NOTHING,) * 4
    verdict = chosen.choice.chosen.verdict
    gain = results.compute_gain(chosen.row)
    return (
        results.name_chosen(chosen.choice),
        _show(chosen.row.of_target),
        _show_signed(gain),
        verdict.kind.value if verdict else _NOTHING,
    )


def _describe_oracle(results: Results, pool: Pool) -> str:
    every = product(results.settings.paper.methods, results.variants)
    found = [row for name, variant in every for row in results.find_all(pool, name, variant)]
    known = [row for row in found if not np.isnan(row.accuracy)]
    if not known:
        return _NOTHING
    best = max(known, key=lambda row: row.accuracy)
    return f"{results.name_candidate(best.row.method, best.row.variant, best.without)} {best.accuracy:.3f}"


def _describe_method(name: str) -> str:
    return f"{name} (reads an anchor)" if METHODS[name].reads_anchor else name


def _list_stain_methods(results: Results) -> list[str]:
    chosen = [each.choice.method for each in results.chosen]
    named = [CONTROL, *(["dann"] if "dann" in results.settings.paper.methods else []), *chosen]
    return list(dict.fromkeys(named))


def _count(results: Results, pool: Pool) -> str:
    row = results.find(pool, CONTROL)
    return _NOTHING if row is None else ", ".join(map(str, row.count(pool.target)))


def _is_papers(pool: Pool) -> bool:
    return {pool.target, *pool.sources} == {"lung", "colon", "breast"}


def _paper_dann(pool: Pool) -> str:
    if not _is_papers(pool):
        return _NOTHING
    return f"{_find_paper_dann(pool.target):.3f}"


def _find_paper_dann(target: str) -> float:
    return max(value for (organ, _), value in published.DANN.items() if organ == target)


def _paper_stain_effect(pool: Pool, name: str, variant: str) -> str:
    given = published.DANN.get((pool.target, variant))
    if name != "dann" or given is None or not _is_papers(pool):
        return ""
    return f"{given - published.DANN[pool.target, 'none']:+.3f}"


def _interval(row: MeasuredRow | None) -> Interval | None:
    return None if row is None else row.of_target


def _show(value: Interval | None) -> str:
    return _NOTHING if value is None else str(value)


def _show_on(row: MeasuredRow | None, organ: str) -> str:
    """Show balanced accuracy on an organ; without an interval where groups are too few for one."""
    if row is None:
        return _NOTHING
    interval, mean = row.get_interval(organ), row.compute_mean(organ)
    return str(interval) if interval is not None else _NOTHING if np.isnan(mean) else f"{mean:.3f} (few groups)"


def _show_number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.3f}"


def _show_signed(value: Interval | None) -> str:
    return _NOTHING if value is None else value.format_signed()


def _show_with_seeds(row: MeasuredRow | None) -> str:
    if row is None:
        return _NOTHING
    seeds = row.list_seeds(row.row.pool.target).values()
    return f"{_show(row.of_target)}; {min(seeds):.2f} to {max(seeds):.2f}" if seeds else _show(row.of_target)


def _draw_slopes(results: Results) -> Figure | None:
    panels = []
    for each in results.chosen:
        before, after = _interval(results.find(each.pool, CONTROL)), each.row.of_target
        if before is not None and after is not None:
            bound = compute_bound(results, each.pool.target)
            panels.append((str(each.pool), before, after, bound, results.name_chosen(each.choice)))
    return draw_slopes(panels) if panels else None


def _draw_matrix(results: Results) -> Figure | None:
    organs = results.organs
    theirs = _fill(organs, lambda row, column: published.SINGLE.get((row, column)))

    def get(row: str, column: str) -> float | None:
        found = find_single(results, row, column)
        return None if found is None else found.compute_mean(column)

    ours = _fill(organs, get)
    if np.isnan(ours).all():
        return None
    return draw_matrices([("the paper: accuracy", theirs), ("here: balanced accuracy", ours)], organs, organs)


def _fill(organs: list[str], get: Callable[[str, str], float | None]) -> NDArray[np.float64]:
    return np.array([[np.nan if (v := get(row, column)) is None else v for column in organs] for row in organs])


def _draw_stain(results: Results) -> Figure | None:
    rows = [
        (f"{pool} · {name}", variant, difference)
        for pool in results.pools
        for name in _list_stain_methods(results)
        for variant in results.variants[1:]
        if (difference := results.compute_difference(results.find(pool, name, variant), results.find(pool, name)))
    ]
    label = f"balanced accuracy, normalised minus {results.variants[0]}"
    return draw_values(rows, label) if rows else None


def _draw_protocols(results: Results) -> Figure | None:
    rows = [
        (str(pool), protocol, gain)
        for pool in results.pools
        if len(pool.sources) == 2
        for protocol in results.settings.paper.protocols
        if (gain := results.compute_gain(results.find(pool, "dann", protocol=protocol)))
    ]
    others = any(protocol != HONEST for _, protocol, _ in rows)
    return draw_values(rows, "balanced accuracy, DANN minus source-only") if others else None


def _draw_witness(results: Results) -> Figure | None:
    known = results.judged.dropna()
    if known.empty:
        return None
    points = [
        (str(row["pool"]), float(row["stain"]), float(row["balanced_accuracy"])) for row in known.to_dict("records")
    ]
    label = "kappa with the same training on another stain variant, unlabelled target tiles"
    return draw_evidence(points, results.settings.select.trust_stain, label)


_PICTURES: dict[str, Callable[[Results], Figure | None]] = {
    "slopes": _draw_slopes, "matrix": _draw_matrix, "stain": _draw_stain, "protocols": _draw_protocols,
    "witness": _draw_witness, "nuclei": draw_nuclei,
}  # fmt: skip
