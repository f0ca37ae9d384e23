"""What a claim comes to: findings on single shapes, and the verdict that they add up to. Pure functions.

A finding holds, fails, or is not decided because its interval contains the threshold. SUPPORTED when the predicate
holds on every shape that was decided, REFUTED when on none, CONDITIONAL with the region otherwise, INCONCLUSIVE with
what is missing when evidence is, or when more than half of the shapes are undecided, for noise or for want of a valid
measurement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from ._model import Frozen
from .claims import COMMAND, Claim
from .machine import Provenance
from .record import Fraction
from .units import significant

Word = Literal["SUPPORTED", "REFUTED", "CONDITIONAL", "INCONCLUSIVE"]
WORDS: tuple[Word, ...] = get_args(Word)
# Verdicts rest on what was decided; with less than half of it, what is left may be no fair sample.
LEAST_DECIDED = 0.5
# What narrows an interval that contains the threshold: of times, unless somebody knows better.
QUIETER = f"less noise at {{}}: on an idle machine, {COMMAND} --rounds 40"
# Cases in shared rounds have a hundred of them in any case.
QUIETER_IN_TURN = (
    f"less noise at {{}}: on an idle machine, more shared rounds than the usual 100, {COMMAND} --rounds 400"
)
# Shapes named in a region before the rest is counted.
_NAMED = 4


class Number(Frozen):
    """One figure of a verdict, with its interval where it has one and where it comes from."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""
    mark: Provenance


class Finding(Frozen):
    """The predicate on one shape.

    holds : None where the interval contains the threshold, or there is no number to hold against it.
    """

    where: str
    holds: bool | None
    numbers: tuple[Number, ...] = ()


class Line(Frozen):
    """What rows of another class would say: told beside the verdict, and no part of it."""

    rows: str
    verdict: Word
    summary: str
    region: str = ""


class Verdict(Frozen):
    """A claim with its verdict.

    claim, source : what is claimed, and by whom. condition : what has to hold.
    summary : the numbers in words; `numbers` are all of them.
    region : where it holds and where not, of a CONDITIONAL one. rows : the class of implementations that was compared.
    decided, undecided : shapes, or settings of a probe, on which the predicate could tell, and on which it could not,
    planned ones without a valid measurement included. machine, run : what it rests on.
    missing : what would be needed to decide it, or to decide more of it.
    """

    id: str
    title: str
    claim: str
    source: str
    condition: str
    verdict: Word
    summary: str = ""
    numbers: tuple[Number, ...] = ()
    region: str = ""
    rows: str = ""
    beside: tuple[Line, ...] = ()
    decided: int = 0
    undecided: int = 0
    machine: str = ""
    run: str = ""
    missing: tuple[str, ...] = ()


def number(name: str, value: Fraction, mark: Provenance = "derived", unit: str = "") -> Number:
    """A figure with its interval."""
    return Number(name=name, value=value.value, low=value.low, high=value.high, unit=unit, mark=mark)


def above(value: Fraction, threshold: float) -> bool | None:
    """Whether a value is at least the threshold; None where its interval contains it."""
    if value.low >= threshold:
        return True
    return False if value.high < threshold else None


def below(value: Fraction, threshold: float) -> bool | None:
    """Whether a value is at most the threshold; None where its interval contains it."""
    if value.high <= threshold:
        return True
    return False if value.low > threshold else None


def within(value: Fraction, least: float, most: float) -> bool | None:
    """Whether a value lies between two thresholds; None where its interval contains one of them."""
    return both(above(value, least), below(value, most))


def both(*parts: bool | None) -> bool | None:
    """Whether all parts hold: a failed one decides, else an undecided one leaves it open."""
    if any(part is False for part in parts):
        return False
    return None if any(part is None for part in parts) else True


def word_of(findings: Sequence[Finding]) -> Word:
    """The verdict that findings add up to."""
    decided = [finding.holds for finding in findings if finding.holds is not None]
    if not decided or len(decided) < LEAST_DECIDED * len(findings):
        return "INCONCLUSIVE"
    if all(decided):
        return "SUPPORTED"
    return "CONDITIONAL" if any(decided) else "REFUTED"


def exists(findings: Sequence[Finding]) -> Word:
    """The verdict on a claim that something exists: one place where it holds is enough."""
    if any(finding.holds for finding in findings):
        return "SUPPORTED"
    return "INCONCLUSIVE" if any(finding.holds is None for finding in findings) or not findings else "REFUTED"


def region(findings: Sequence[Finding]) -> str:
    """Where the predicate holds, where it fails and where it is open, in words."""
    words = ((True, "holds at"), (False, "fails at"), (None, "not decided at"))
    parts = [(text, [finding.where for finding in findings if finding.holds is holds]) for holds, text in words]
    return "; ".join(f"{text} {listed(places)}" for text, places in parts if places)


def listed(places: Sequence[str]) -> str:
    """Places one after the other, the last of many counted."""
    rest = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    return " / ".join(places[:_NAMED]) + rest


def span(findings: Iterable[Finding]) -> str:
    """The numbers of all findings in words: those of one name as a range, each with its mark."""
    named: dict[str, list[Number]] = {}
    for finding in findings:
        for figure in finding.numbers:
            named.setdefault(figure.name, []).append(figure)
    return "; ".join(_range(name, figures) for name, figures in named.items())


def _range(name: str, figures: list[Number]) -> str:
    least, most = min(figures, key=lambda figure: figure.value), max(figures, key=lambda figure: figure.value)
    texts = dict.fromkeys((short(least.value), short(most.value)))
    text = " to ".join(texts)
    if len(figures) == 1 and least.low is not None and least.high is not None:
        text += f" [{short(least.low)}, {short(least.high)}]"
    return f"{name} = {text}{' ' + least.unit if least.unit else ''} ({least.mark})"


def short(value: float) -> str:
    """A number as short as it is useful: 0.047, 12.3, 1.2e-05."""
    if value == round(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    if 1e-2 <= abs(value) < 1e5:
        return significant(value, 3) if abs(value) >= 0.1 else f"{value:.2g}"
    return f"{value:.1e}"


def verdict(
    claim: Claim,
    findings: Sequence[Finding],
    missing: Sequence[str] = (),
    word: Word | None = None,
    narrower: str = "",
    **more: object,
) -> Verdict:
    """The verdict on a claim from its findings.

    missing : parts of the evidence without which there is no verdict. word : the verdict where it does not follow from
    the findings one by one. narrower : what would decide what is open, with braces for the places; more rounds where it
    is empty. more : other fields of `Verdict`.
    """
    decided = word or word_of(findings)
    wanting = list(missing) or ([] if findings else [claim.needs])
    if wanting:
        wanting.append(f"what decides it: {COMMAND}")
        decided = "INCONCLUSIVE"
    open_at = [finding.where for finding in findings if finding.holds is None]
    if open_at and not wanting:
        quieter = QUIETER_IN_TURN if claim.pair or claim.line else QUIETER
        wanting = [(narrower or quieter).format(listed(open_at))]
    told = region(findings) if decided == "CONDITIONAL" or (open_at and findings) else ""
    fields: dict[str, object] = {
        "decided": sum(finding.holds is not None for finding in findings),
        "undecided": len(open_at),
        "summary": span(findings),
        "region": told,
        "numbers": tuple(
            figure.model_copy(update={"name": f"{figure.name} at {finding.where}"})
            for finding in findings
            for figure in finding.numbers
        ),
    }
    return Verdict.model_validate(
        {"id": claim.id, "title": claim.title, "claim": claim.hypothesis, "source": claim.source}
        | {"condition": claim.condition}
        | {"verdict": decided, "missing": tuple(wanting)}
        | fields
        | more
    )
