"""The choice of one of several methods and stain variants without target labels.

Candidates that the verdict trusts come first. Where it trusts none, the variant is chosen before
the method: the one on which predictions follow the anchor `nuclei` best, the mean over seeds and
over the methods that were trained on every variant. A validator cannot tell a model that has turned
the classes around; on one variant all methods may do so, and on another none. Of what is left,
those that the verdict refuses come last, and of equals the highest validator wins, the mean over
seeds: a method whose seeds disagree is confident in few of them.

Methods that learn from an anchor cannot be confirmed by it. They have no say in the variant, and
come after the others of the same verdict. But where all others are refused, on every variant, these
say nothing on the variant either; then the best of those that learnt from an anchor is chosen, on
any variant, unless it is refused as well. docs/results.md has what the choice loses against the
best.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 (pydantic reads it)
from dataclasses import dataclass, field
from functools import cache
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from oncoshift.selection.verdict import Kind, Verdict
from oncoshift.settings import replace_values

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from oncoshift.settings import Settings

HEADER = ("method", "variant", "seeds", "without", "score", "nuclei", "agreement", "stain", "verdict", "outcome")
"""The columns of `Choice.rows`."""


@dataclass(frozen=True)
class Candidate:
    """A method on a stain variant that can be chosen, and what is known without target labels.

    Attributes:
        method: its name.
        variant: stain variant of the tiles that it was trained on.
        seeds: that it was trained with; none if the time was used up before.
        scores: of these seeds, by the validator above the source floor.
        nuclei: correlation of these seeds' predictions with the anchor `nuclei`.
        agreement: kappa of its best seed with the consensus of models from single organs; None
            without one.
        stain: least kappa of its best seed with the same training on another variant of
            `select.variants`; None without one.
        verdict: on its best seed; None if it was not trained.
        failure: why it could not be trained; empty if it was, or if the time was used up before.
        reads_anchor: whether the method learns from an anchor.
        without: source organs that it was not trained on, with the kappa of their own models with
            the majority's, which they contradict.
    """

    method: str
    variant: str
    seeds: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    nuclei: tuple[float, ...] = ()
    agreement: float | None = None
    stain: float | None = None
    verdict: Verdict | None = None
    failure: str = ""
    reads_anchor: bool = False
    without: Mapping[str, float] = field(default_factory=dict)

    @property
    def left_out(self) -> str:
        """The organs that it was not trained on, with their kappa, in words; empty without any."""
        return ", ".join(f"{organ} ({kappa:.2f})" for organ, kappa in self.without.items())

    @property
    def score(self) -> float:
        """Mean of the scores."""
        return fmean(self.scores)

    @property
    def following(self) -> float:
        """Mean of the correlations with the anchor `nuclei`."""
        return fmean(self.nuclei)

    @property
    def rank(self) -> tuple[int, bool, float]:
        """The verdict, 0 for refused to 2 for trusted; whether no anchor taught it; the score."""
        verdict = -1 if self.verdict is None else list(Kind)[::-1].index(self.verdict.kind)
        return verdict, not self.reads_anchor, self.score


@dataclass(frozen=True)
class Choice:
    """The chosen method and stain variant, and the candidates.

    Attributes:
        method: the chosen one.
        variant: the chosen one.
        candidates: in the order in which settings name them.
    """

    method: str
    variant: str
    candidates: tuple[Candidate, ...]

    @property
    def chosen(self) -> Candidate:
        """The chosen candidate."""
        return next(each for each in self.candidates if (each.method, each.variant) == (self.method, self.variant))

    @property
    def by_anchor(self) -> bool:
        """Whether the anchor `nuclei` has chosen the stain variant."""
        return self._has_variants and not _is_trusted(self.chosen) and not self.chosen.reads_anchor

    @property
    def _has_variants(self) -> bool:
        return len({each.variant for each in self.candidates}) > 1

    @property
    def words(self) -> str:
        """The choice in one line."""
        trained = sum(each.verdict is not None for each in self.candidates)
        failed = sum(bool(each.failure) for each in self.candidates)
        missing = len(self.candidates) - trained - failed
        failures = f"; {failed} failed" if failed else ""
        missed = f"; {missing} not trained, as retrain.minutes were used up" if missing else ""
        chosen = f"{self.method} on {self.variant}" if self._has_variants else self.method
        chosen = " ".join([chosen, *name_left_out(self.chosen.without)])
        if self.by_anchor:
            means = follow_anchor(self.candidates)
            best, *others = sorted(means.values(), reverse=True)
            digits = next((n for n in range(3, 7) if all(f"{each:.{n}f}" != f"{best:.{n}f}" for each in others)), 0)
            shown = ", ".join(f"{name} {mean:.{digits or 3}f}" for name, mean in means.items())
            tie = "" if digits else "; the best are equal, so the first of them"
            chosen += f" by the anchor nuclei (mean correlation: {shown}{tie})"
        elif self.chosen.reads_anchor and not _is_trusted(self.chosen):
            chosen += ", which learns from an anchor, as all that does not is refused"
        if all(each.verdict.kind is Kind.REFUSE for each in self.candidates if each.verdict is not None):
            missed += "; all are refused, and this is the least bad, for the gate to judge"
        return f"{chosen}, chosen of {trained} without target labels{failures}{missed}"

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The candidates as cells of a table with the columns of `HEADER`."""
        return [self._describe(each) for each in self.candidates]

    def _describe(self, candidate: Candidate) -> tuple[str, ...]:
        if candidate.verdict is None:
            outcome = f"failed: {candidate.failure}" if candidate.failure else "not trained"
            return candidate.method, candidate.variant, "", "", "", "", "", "", "", outcome
        kind = candidate.verdict.kind
        outcome = "refused" if kind is Kind.REFUSE else "dropped"
        return (
            candidate.method,
            candidate.variant,
            ", ".join(map(str, candidate.seeds)),
            candidate.left_out,
            f"{candidate.score:.3f}",
            f"{candidate.following:.3f}",
            *("" if value is None else f"{value:.3f}" for value in (candidate.agreement, candidate.stain)),
            kind.value,
            "chosen" if candidate is self.chosen else outcome,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the choice as JSON values."""
        values: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return values


def name_left_out(organs: Collection[str]) -> list[str]:
    """List the part of a candidate's name that says what was left out; nothing if nothing was."""
    return [f"without {' and '.join(organs)}"] if organs else []


def leave_out(settings: Settings, organs: Collection[str]) -> Settings:
    """Return the settings of a training that does not learn from some of the source organs."""
    if not organs:
        return settings
    rest = [organ for organ in settings.sources if organ not in organs]
    return replace_values(settings, {"sources": rest, "single.organ": None, "retrain.left_out": []})


def choose(candidates: Sequence[Candidate]) -> Choice:
    """Choose the best candidate; of equal ones, the first. If all are refused, one is still chosen.

    The gate then judges it, and labels are stronger evidence than the verdict.

    Args:
        candidates: at least one of them trained.
    """
    trained = [each for each in candidates if each.verdict is not None]
    left = [each for each in trained if _is_trusted(each)] or _find_taught(trained) or _keep_one_variant(trained)
    best = max(left, key=lambda each: each.rank)
    return Choice(best.method, best.variant, tuple(candidates))


def _is_trusted(candidate: Candidate) -> bool:
    return candidate.verdict is not None and candidate.verdict.kind is Kind.TRUST


def _find_taught(trained: Sequence[Candidate]) -> list[Candidate]:
    """Find candidates that an anchor taught, if nothing else is left that is not refused."""
    left = [each for each in trained if each.verdict is not None and each.verdict.kind is not Kind.REFUSE]
    return left if all(each.reads_anchor for each in left) else []


def _keep_one_variant(trained: Sequence[Candidate]) -> list[Candidate]:
    """Keep the candidates of the variant on which predictions follow the anchor best."""
    followed = follow_anchor(trained)
    best = max(followed, key=lambda name: followed[name])
    return [each for each in trained if each.variant == best]


def follow_anchor(candidates: Sequence[Candidate]) -> dict[str, float]:
    """Compute the mean correlation with the anchor by variant, over methods that all have.

    Methods that learn from an anchor follow it anyway: they count only where there are no others.
    """
    every = [each for each in candidates if each.verdict is not None]
    trained = [each for each in every if not each.reads_anchor] or every
    by_variant = {each.variant: [c for c in trained if c.variant == each.variant] for each in trained}
    common = set.intersection(*({each.method for each in part} for part in by_variant.values()))
    return {
        name: fmean(value for each in part if each.method in common or not common for value in each.nuclei)
        for name, part in by_variant.items()
    }


def read_choice(values: dict[str, Any]) -> Choice:
    """Read what `Choice.to_dict` returned.

    Raises:
        ValueError: another version wrote it, with other fields.
    """
    return _adapter().validate_python(values)


@cache
def _adapter() -> TypeAdapter[Choice]:
    return TypeAdapter(Choice)
