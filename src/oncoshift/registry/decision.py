"""The gate: whether a challenger may become champion, with the value and limit of every condition.

Floors apply to the point estimate on the audit set: they ask whether the model is usable at all.
Gains apply to the lower end of the interval: a gain that may be zero is no reason to deploy.
Against the champion the gate tests non-inferiority: the lower end of the interval of the paired
difference may fall short by the margin at most, because a retraining on newer data is worth having
at equal quality.

Labels are stronger evidence than agreement between models. So an audit set that is large enough
decides, and the verdict without labels (`selection.verdict`) is a note, which says so where the two
contradict each other. With too small an audit set the gate refuses. `gate.without_audit: trust`
lets it promote a model that the verdict trusts, if the few labels do not contradict it and it
agrees with the champion. Where the two models differ, only labels can tell which one is right, and
the champion may have been chosen by labels. `gate.without_audit: few_labels` puts labels that a
person gave training tiles in the verdict's place (`evaluation.few_labels`): they show that a model
exceeds the floor, and are too few to show which of two models is better.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from oncoshift.data.tables import LABELS
from oncoshift.evaluation.few_labels import LabelCounts, compute_probability_above
from oncoshift.labels.table import OF_PRIOR
from oncoshift.markdown import escape
from oncoshift.registry.policy import PolicyEvidence, Reason, check_policy
from oncoshift.selection.rule import ORACLE
from oncoshift.selection.verdict import Kind, format_near_limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncoshift.evaluation.intervals import Interval
    from oncoshift.registry.history import Action
    from oncoshift.selection.verdict import Verdict
    from oncoshift.settings import GateSettings, SelectSettings

CONTRADICTION = "Contradiction"
"""First word of the note that labels contradict the verdict without them."""

MIN_GROUPS_PER_CLASS = 2
"""With one group in a class, resampling groups cannot show how that class's metrics vary, and few
labels of the class speak of one patient alone."""


@dataclass(frozen=True)
class LabelEvidence:
    """What the labels that gate say of a challenger.

    Attributes:
        counts: its right calls of their tiles, by class.
        groups: number of their groups.
        also_trained: number of these groups that have a label that trains, or tiles among the
            sources; it must be 0.
        by_class: number of these groups by class name; one with tiles of both counts in each.
        changed: whether the labels that train are no longer those that trained the challenger.
        skipped: number of tiles that a person skipped, so that no call of them is judged.
        digest: hash of the tiles and their labels.
        earlier: number of other versions of the model that the same labels have judged.
    """

    counts: LabelCounts
    groups: int
    also_trained: int
    by_class: Mapping[str, int]
    changed: bool = False
    skipped: int = 0
    digest: str = ""
    earlier: int = 0


@dataclass(frozen=True)
class GateEvidence:
    """The evidence on a challenger, on the target's audit set unless said otherwise.

    Attributes:
        balanced_accuracy: balanced accuracy of the challenger; the ends of its interval are NaN
            where there are too few groups for one.
        auroc: the same for AUROC.
        sensitivity: the same for sensitivity.
        gain_over_control: balanced accuracy of the challenger minus that of the source-only
            control, paired by group; None where there are too few groups for an interval.
        gain_over_champion: the same against the present champion; None also where there is no
            champion.
        groups: number of audit groups by class name; one with tiles of both counts in each.
        selection: validator that picked the challenger; `oracle` has read target labels.
        source_accuracy: balanced accuracy of the challenger on source validation tiles; where
            labels of the target corrected it, of the model that they corrected.
        verdict: verdict on the challenger without labels.
        agreement_with_champion: kappa of challenger and champion on unlabelled target tiles; None
            where there is no champion, or `gate.without_audit` is `refuse`.
        too_few: why there are too few groups for intervals; empty where there are enough.
        audit_size: width of the audit set's interval, and how many more groups would do.
        phantom: whether the data are made up.
        abstained: number of audit tiles on which the challenger abstains.
        policy: evidence for the optional rules; None: they are not judged.
        distinct_groups: number of audit groups; None: no group has tiles of both classes.
        anchor: the anchors that had a say in training, pick or verdict; empty if none had.
        labels: what the labels that gate say of the challenger; None unless `gate.without_audit` is
            `few_labels`.
        target_labels: the labels of the target that trained the challenger, in words; empty if none
            did.
    """

    balanced_accuracy: Interval
    auroc: Interval
    sensitivity: Interval
    gain_over_control: Interval | None
    gain_over_champion: Interval | None
    groups: Mapping[str, int]
    selection: str
    source_accuracy: float
    verdict: Verdict
    agreement_with_champion: float | None = None
    too_few: str = ""
    audit_size: str = ""
    phantom: bool = False
    abstained: int = 0
    policy: PolicyEvidence | None = None
    distinct_groups: int | None = None
    anchor: str = ""
    labels: LabelEvidence | None = None
    target_labels: str = ""


@dataclass(frozen=True)
class Decision:
    """The decision of the gate.

    Attributes:
        promote: whether all conditions hold.
        reasons: every condition, passed or failed.
        flags: notes that are not conditions, such as that the data are made up.
        champion: version that was champion and that the challenger was compared with, or None.
        at: time of the decision, ISO 8601 in UTC.
        approve_until: end of the time in which a person may approve the version, ISO 8601 in UTC;
            empty where none need to.
        labels: hash of the labels of training tiles that judged; empty where none did.
    """

    promote: bool
    reasons: tuple[Reason, ...]
    flags: tuple[str, ...] = field(default=())
    champion: str | None = None
    at: str = ""
    approve_until: str = ""
    labels: str = ""

    @property
    def action(self) -> Action:
        """The decision in a word, for the version's tag."""
        if not self.promote:
            return "refuse"
        return "await" if self.approve_until else "promote"

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {"verdict": self.action, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read the values that `to_dict` wrote."""
        reasons = tuple(Reason(**{**reason, "listed": tuple(reason.get("listed", ()))}) for reason in values["reasons"])
        known = {name: values[name] for name in ("champion", "at", "approve_until", "labels") if name in values}
        return cls(values["promote"], reasons, tuple(values["flags"]), **known)

    def to_markdown(self) -> str:
        """Render as a Markdown section: a table, failed conditions first, and what they counted."""
        failed = sum(not reason.passed for reason in self.reasons)
        outcome = "all conditions hold" if self.promote else f"{failed} of {len(self.reasons)} conditions failed"
        outcome += f"; a person must approve until {self.approve_until}" if self.action == "await" else ""
        ordered = sorted(self.reasons, key=lambda reason: reason.passed)
        rows = [
            f"| {reason.mark if reason.passed else '**failed**'} | {escape(reason.check)} "
            f"| {_format_cell(reason.value)} | {_format_cell(reason.limit)} | {escape(reason.words)} |"
            for reason in ordered
        ]
        head = ["| | check | value | limit | |", "|---|---|---:|---:|---|"]
        for reason in ordered:
            if reason.listed:
                rows += ["", f"{escape(reason.check)}:", "", *(f"- {escape(each)}" for each in reason.listed)]
        notes = [f"> {escape(flag)}" for flag in self.flags]
        return "\n".join([f"**{self.action}**: {outcome}.", "", *head, *rows, *(["", *notes] if notes else [])]) + "\n"


def decide(settings: GateSettings, select: SelectSettings, evidence: GateEvidence) -> Decision:
    """Judge the evidence by the settings; a value that is NaN fails its condition.

    Args:
        settings: section `gate`.
        select: section `select`: the source floor, and the kappa from which two models agree.
        evidence: evidence on the challenger.
    """
    picked = (
        _check_selection(evidence.selection),
        _check_source(settings, select.source_floor, evidence),
    )
    groups = _check_groups(settings, evidence.groups, evidence.distinct_groups)
    floors = (
        _check_floor("balanced accuracy", evidence.balanced_accuracy, settings.min_balanced_accuracy),
        _check_floor("AUROC", evidence.auroc, settings.min_auroc),
        _check_floor("sensitivity", evidence.sensitivity, settings.min_sensitivity),
    )
    suffices = not evidence.too_few and all(reason.passed for reason in groups)
    judged_by = ""
    if suffices or settings.without_audit == "refuse":
        reasons = (*picked, *groups, *floors, *_check_gains(settings, evidence))
    else:
        agreement = _check_agreement(evidence.agreement_with_champion, select.trust_agreement)
        by_labels = settings.without_audit == "few_labels"
        judged_by = evidence.labels.digest if by_labels and evidence.labels else ""
        proof = _check_labels(settings, evidence.labels) if by_labels else (_check_verdict(evidence.verdict),)
        reasons = (*picked, *proof, *floors, agreement)
    if evidence.policy is not None:
        reasons = (*reasons, *check_policy(settings, evidence.policy))
    flags = [_note_verdict(evidence.verdict, all(reason.passed for reason in floors) if suffices else None)]
    if not suffices and evidence.audit_size:
        flags.append(evidence.audit_size)
    if not suffices and settings.without_audit == "trust":
        flags.append(
            f"Too few labelled groups ({_list_groups(evidence.groups)}): decided without labels (without_audit)."
        )
    if not suffices and settings.without_audit == "few_labels":
        flags.append(
            f"Too few labelled groups ({_list_groups(evidence.groups)}): decided by labels of training tiles "
            "(without_audit)."
        )
    if evidence.target_labels:
        flags.append(f"Labels of the target trained this model: {evidence.target_labels}.")
    if evidence.anchor:
        flags.append(f"Anchor (prior knowledge of morphology, not a label): {evidence.anchor}.")
    if evidence.abstained:
        flags.append(
            f"The model abstains on {evidence.abstained} audit tiles; here they are judged by their probabilities."
        )
    if evidence.phantom:
        flags.append("Made-up data (phantom): the figures say nothing about tissue.")
    return Decision(all(reason.passed for reason in reasons), reasons, tuple(flags), labels=judged_by)


def _note_verdict(verdict: Verdict, usable: bool | None) -> str:
    """Describe the verdict, and whether labels contradict it.

    Args:
        verdict: the verdict without labels.
        usable: whether the floors hold on the audit set; None where it has too few groups.
    """
    said = f"Without labels the verdict is {verdict.kind.value}."
    if (verdict.kind is Kind.TRUST and usable is False) or (verdict.kind is Kind.REFUSE and usable is True):
        outcome = "holds the floors" if usable else "misses a floor"
        return (
            f"{CONTRADICTION}: {said} On the audit set the model {outcome}. Labels decide; find out why the two differ."
        )
    return said


def _check_verdict(verdict: Verdict) -> Reason:
    return Reason("verdict without labels", verdict.kind is Kind.TRUST, None, None, verdict.words)


def _check_labels(settings: GateSettings, evidence: LabelEvidence | None) -> tuple[Reason, ...]:
    """Check that labels prove the floor, are of several groups, and none of these trains."""
    if evidence is None:
        evidence = LabelEvidence(LabelCounts((0, 0), (0, 0)), 0, 0, dict.fromkeys(LABELS, 0))
    counts, groups, shared = evidence.counts, evidence.groups, evidence.also_trained
    floor, least = settings.min_balanced_accuracy, settings.min_label_probability
    fewest = min(evidence.by_class.values())
    several = f"{fewest} of the rarer class ({_list_groups(evidence.by_class)}), must reach {MIN_GROUPS_PER_CLASS}"
    if fewest < MIN_GROUPS_PER_CLASS:
        several += ": one says nothing about others; run oncoshift label propose, and apply what it asks for"
    if not min(counts.total):
        proof = Reason("proof by labels", False, None, None, "nothing is proved without labels of both classes")
    else:
        probability = compute_probability_above(floor, counts)
        words = f"P(balanced accuracy > {floor:.3g}) = {probability:.3f}, right on {counts}, of {groups} groups"
        words += f", {evidence.skipped} skipped, not judged" if evidence.skipped else ""
        proof = Reason("proof by labels", probability >= least, probability, least, f"{words}, must reach {least:.3g}")
    apart = f"{shared} of {groups} groups also train, must be 0"
    if evidence.changed:
        apart += "; the labels that train are no longer those that trained the model: train it again"
    versions = "version" if evidence.earlier == 1 else "versions"
    looks = f"exactly these {sum(counts.total)} labels have judged {evidence.earlier} earlier {versions}"
    looks += ": the more they judge, the less one that passes proves" if evidence.earlier else ""
    return (
        Reason("labels apart", shared == 0 and not evidence.changed, shared, 0, apart),
        Reason("label groups per class", fewest >= MIN_GROUPS_PER_CLASS, fewest, MIN_GROUPS_PER_CLASS, several),
        Reason("label reuse", True, evidence.earlier, None, looks),
        proof,
    )


def _check_agreement(kappa: float | None, least: float) -> Reason:
    name = "agrees with champion"
    if kappa is None:
        return Reason(name, True, None, None, "there is no champion yet", measured=False)
    words = f"kappa {kappa:.2f} on unlabelled tiles, must reach {least:.2f}: only labels can tell which of two is right"
    return Reason(name, kappa >= least, kappa, least, words)


def _check_selection(validator: str) -> Reason:
    passed = validator != ORACLE
    words = f"selected by {validator}, without target labels" if passed else "selected by oracle, with target labels"
    return Reason("selection", passed, None, None, words)


def _check_source(settings: GateSettings, floor: float, evidence: GateEvidence) -> Reason:
    """Check the source floor: if the sources fail, success on a small audit set may be luck."""
    accuracy = evidence.source_accuracy
    reached, allowed = accuracy >= floor, settings.below_source_floor == "allow"
    words = f"balanced accuracy {format_near_limits(accuracy, floor)} on the sources, floor {floor:.2f}"
    if evidence.target_labels:
        words += f" ({OF_PRIOR})"
    if allowed and not reached:
        words += ", allowed by gate.below_source_floor"
    return Reason("source accuracy", reached or allowed, accuracy, floor, words)


def _check_groups(settings: GateSettings, groups: Mapping[str, int], distinct: int | None) -> tuple[Reason, Reason]:
    total, least = sum(groups.values()) if distinct is None else distinct, settings.min_audit_groups
    smallest = min(groups.values(), default=0) if len(groups) > 1 else 0
    return (
        Reason("audit groups", total >= least, total, least, f"{total} ({_list_groups(groups)}), must reach {least}"),
        Reason(
            "audit groups per class",
            smallest >= MIN_GROUPS_PER_CLASS,
            smallest,
            MIN_GROUPS_PER_CLASS,
            f"{smallest} of the rarer class, must reach {MIN_GROUPS_PER_CLASS}: fewer cannot give an interval",
        ),
    )


def _list_groups(groups: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in groups.items()) or "none"


def _check_floor(name: str, interval: Interval, limit: float) -> Reason:
    passed = interval.point >= limit
    return Reason(
        name, passed, interval.point, limit, f"{_format_interval(interval)}, floor for the estimate {limit:.3f}"
    )


def _check_gains(settings: GateSettings, evidence: GateEvidence) -> tuple[Reason, ...]:
    if evidence.gain_over_control is None:
        return (Reason("intervals", False, None, None, evidence.too_few),)
    return (
        _check_gain("gain over source-only", evidence.gain_over_control, settings.min_gain_over_control),
        _check_non_inferiority(evidence.gain_over_champion, settings.non_inferiority_margin),
    )


def _check_gain(name: str, interval: Interval, limit: float) -> Reason:
    passed = interval.low > limit
    words = f"balanced accuracy {_format_interval(interval, signed=True)}, the lower end must exceed {limit:+.3f}"
    return Reason(name, passed, interval.low, limit, words)


def _check_non_inferiority(interval: Interval | None, margin: float) -> Reason:
    name = "not inferior to champion"
    if interval is None:
        return Reason(name, True, None, None, "there is no champion yet", measured=False)
    words = f"balanced accuracy {_format_interval(interval, signed=True)}, the lower end must reach {-margin:+.3f}"
    return Reason(name, interval.low >= -margin, interval.low, -margin, words)


def _format_interval(interval: Interval, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    if math.isnan(interval.low):
        return f"{interval.point:{sign}.3f}"
    return f"{interval.point:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def _format_cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"
