"""Predicates that hold one kernel against another, or against itself at other sizes, class by class."""

from __future__ import annotations

from collections.abc import Callable

from .claim_facts import Facts, Found, Timed, compared, fastest, fastest_of, partners, ratio
from .claim_verdict import (
    Finding,
    Number,
    Verdict,
    above,
    below,
    both,
    exists,
    listed,
    number,
    within,
)
from .claims import Claim
from .record import Direction, Fraction


def roof_contrast(claim: Claim, facts: Facts) -> Verdict:
    """C4: how near an LSTM comes to the classic roof, over how near attention and gated convolution come."""

    def find(rows: str) -> Found:
        lstm, *others = (
            [row for row in fastest_of(rows, facts.points(kernel, "warm")) if row.at("T") >= claim.at("least_T")]
            for kernel in ("lstm", "transformer_block", "gated_conv")
        )
        findings = [
            finding for row in lstm if (finding := _nearer(claim, row, *(_partner(claim, row, o) for o in others)))
        ]
        return findings, [] if findings else [f"{rows} rows of all three kernels at equal parameters"]

    return compared(claim, find)


def _partner(claim: Claim, row: Timed, others: list[Timed]) -> Timed | None:
    found = partners(row, others, claim.at("parameters"))
    return fastest(found) if found else None


def _nearer(claim: Claim, row: Timed, attention: Timed | None, convolution: Timed | None) -> Finding | None:
    own = row.point.roof_fraction
    if attention is None or convolution is None:
        return None
    open_ = Finding(where=row.where, holds=None)
    if own is None:
        return open_
    parts, figures = [], []
    for name, other in (("attention", attention), ("convolution", convolution)):
        share = other.point.roof_fraction
        if share is None or not share.low:
            return open_
        relative = ratio(own, share)
        parts.append(below(relative, claim.at("share")))
        figures.append(number(f"roof share LSTM / {name}", relative))
    return Finding(where=row.where, holds=both(*parts), numbers=(number("roof share LSTM", own), *figures))


def resources(claim: Claim, facts: Facts) -> Verdict:
    """C6: device seconds per token, and joules where there is a meter, of an LSTM over those of attention."""
    ways: dict[Direction, str] = {"forward": "forward", "both": "training step"}

    def find(rows: str) -> Found:
        found: dict[str, list[Finding]] = {name: [] for name in ways.values()}
        for direction, name in ways.items():
            blocks = fastest_of(rows, facts.points("transformer_block", "warm", direction))
            for row in fastest_of(rows, facts.points("lstm", "warm", direction)):
                other = _partner(claim, row, blocks)
                if other is not None and row.at("T") >= claim.at("least_T"):
                    found[name] += _costs(claim, row, other, name)
        missing = [f"{rows} rows of lstm and transformer_block, {name}" for name, parts in found.items() if not parts]
        return [finding for parts in found.values() for finding in parts], missing

    made = compared(claim, find)
    metered = any("joules" in figure.name for figure in made.numbers)
    rows = [
        row
        for kernel in ("lstm", "transformer_block")
        for way in ways
        for row in facts.planned(claim, kernel, "warm", way)
    ]
    return made if metered else _without_joules(made, rows, facts)


def _without_joules(made: Verdict, rows: list[Timed], facts: Facts) -> Verdict:
    """The verdict with why no joules stand beside its seconds, in the words of the points, or of the run."""
    energies = [row.point.energy for row in rows]
    told = list(dict.fromkeys(energy.reason for energy in energies if energy is not None and energy.reason))
    if not told:
        told = [facts.no_meter() or "energy is taken for headline rows only, and not for all of these"]
    note = () if made.missing else (f"joules per token: {'; '.join(told)}; seconds decide",)
    return made.model_copy(update={"missing": (*made.missing, *note)})


def _costs(claim: Claim, row: Timed, other: Timed, name: str) -> list[Finding]:
    seconds = ratio(row.per_token, other.per_token)
    figures = [number(f"{name}, seconds per token LSTM / attention", seconds)]
    holds = above(seconds, claim.at("ratio"))
    mine, theirs = (part.point.energy.per_token_j if part.point.energy else None for part in (row, other))
    if mine and theirs:
        figures.append(Number(name=f"{name}, joules per token LSTM / attention", value=mine / theirs, mark="derived"))
    return [Finding(where=f"{row.where} {name}", holds=holds, numbers=tuple(figures))]


def _same_sizes(
    claim: Claim, facts: Facts, over: str, under: str, judge: Callable[[Fraction], bool | None], what: str
) -> Verdict:
    """A ratio of the times of two recurrences at the same sizes."""

    def find(rows: str) -> Found:
        base = {row.where: row for row in fastest_of(rows, facts.planned(claim, under, "warm"))}
        findings = []
        for row in fastest_of(rows, facts.planned(claim, over, "warm")):
            other = base.get(row.where)
            if other is not None:
                times, basis = facts.over(row, other)
                figure = number(f"{what}, {basis}", times)
                findings.append(Finding(where=row.where, holds=judge(times), numbers=(figure,)))
        return findings, [] if findings else [f"{rows} rows of {over} and {under} at the same sizes"]

    return compared(claim, find)


def gru_ratio(claim: Claim, facts: Facts) -> Verdict:
    """C12: the time of a GRU over that of an LSTM of the same sizes."""
    least, most = claim.at("least"), claim.at("most")
    return _same_sizes(claim, facts, "gru", "lstm", lambda times: within(times, least, most), "time GRU / LSTM")


def dilation_ratio(claim: Claim, facts: Facts) -> Verdict:
    """C13: the time of a layer with its taps far apart over that with its taps side by side."""
    least, most = 1 - claim.at("within"), 1 + claim.at("within")

    def find(rows: str) -> Found:
        layers = fastest_of(rows, facts.planned(claim, "dilated_conv", "warm"))
        near = {_but(row, "first"): row for row in layers if row.at("first") == 1}
        findings = []
        for row in layers:
            other = near.get(_but(row, "first"))
            if row.at("first") == claim.at("dilation") and other is not None:
                times, basis = facts.over(row, other)
                figure = number(f"time with dilation / without, {basis}", times)
                findings.append(Finding(where=row.where, holds=within(times, least, most), numbers=(figure,)))
        return findings, [] if findings else [f"{rows} rows of dilated_conv, L=1, with first=1 and first=64"]

    return compared(claim, find)


def _but(row: Timed, *left_out: str) -> tuple[tuple[str, int | str], ...]:
    """The case of a row without some of its sizes."""
    sizes = tuple((name, size) for name, size in row.point.shape.items() if name not in left_out)
    return (*sizes, ("dtype", row.point.dtype))


def small_batch_cost(claim: Claim, facts: Facts) -> Verdict:
    """C16: device seconds per token one sequence at a time over those of a large batch."""

    def find(rows: str) -> Found:
        recurrences = fastest_of(rows, facts.planned(claim, "lstm", "warm"))
        large = {_but(row, "B"): row for row in recurrences if row.at("B") == claim.at("large")}
        findings = []
        for row in recurrences:
            other = large.get(_but(row, "B"))
            if row.at("B") == claim.at("small") and other is not None:
                seconds = ratio(row.per_token, other.per_token)
                figure = number(f"seconds per token B=1 / B={other.at('B')}", seconds)
                findings.append(Finding(where=row.where, holds=above(seconds, claim.at("ratio")), numbers=(figure,)))
        return findings, [] if findings else [f"{rows} rows of lstm at B=1 and B=64"]

    made = compared(claim, find)
    return _without_joules(made, facts.planned(claim, "lstm", "warm"), facts)


def place_left(claim: Claim, facts: Facts) -> Verdict:
    """C15: whether there is a measured case in which an LSTM takes no longer per token than attention."""

    def find(rows: str) -> Found:
        blocks = fastest_of(rows, facts.points("transformer_block", "warm"))
        findings = []
        for row in fastest_of(rows, facts.points("lstm", "warm")):
            other = _partner(claim, row, blocks)
            if other is not None:
                seconds = ratio(row.per_token, other.per_token)
                figure = number("seconds per token LSTM / attention", seconds)
                findings.append(Finding(where=row.where, holds=below(seconds, claim.at("ratio")), numbers=(figure,)))
        return findings, [] if findings else [f"{rows} rows of lstm and transformer_block at equal parameters"]

    made = compared(claim, find, exists)
    if made.verdict == "SUPPORTED":
        places = [figure.name.split(" at ", 1)[1] for figure in made.numbers if (figure.high or 2) <= claim.at("ratio")]
        return made.model_copy(update={"region": f"LSTM at least as fast at {listed(places)}"})
    return made
