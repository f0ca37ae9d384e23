"""Predicates on growth: of machines over the years, of times with the length of a sequence, of paths."""

from __future__ import annotations

from . import generations
from .claim_facts import IN_TURN, SEPARATE, Facts, Found, Timed, compared, fastest, ratio, span_of
from .claim_verdict import Finding, Number, Verdict, above, below, both, number, short, verdict, within
from .claims import Claim
from .record import Fraction
from .scaling import levels
from .trend import exponent

CATALOGUE = "the catalogue"


def growth_of_parts(claim: Claim, facts: Facts) -> Verdict:
    """C3: growth of dense 16-bit rate and of bandwidth by the catalogue; decided where their intervals lie apart.

    The growth of their ratio over the same parts is told beside it and decides nothing: parts of one die are no
    independent evidence of it.
    """
    parts = generations.parts(facts.catalogue)
    if not generations.fits(parts, claim.at("fewest")):
        needed = f"at least {claim.at('fewest'):.0f} datacentre parts of three years with rate and bandwidth"
        return verdict(claim, (), [needed], machine=CATALOGUE)
    period = claim.at("years")
    rate, bandwidth = (generations.growth_of(parts, of, period) for of in ("rate", "bandwidth"))
    assumed = sum(part.assumed for part in parts)
    years = [part.year for part in parts]
    where = f"{len(parts)} datacentre parts, {min(years)} to {max(years)}"
    per = f"per {period:.0f} years"
    beside = generations.beside(parts, period, claim.at("fewest"))
    figures = (
        number(f"growth of 16-bit FLOP/s {per}", rate),
        number(f"growth of B/s {per}", bandwidth),
        *(number(f"growth of FLOP/s over B/s {per}{how}", over) for how, over in beside),
        Number(name="parts with a figure not checked against its sheet", value=assumed, mark="assumed"),
    )
    apart = True if rate.low > bandwidth.high else False if rate.high < bandwidth.low else None
    made = verdict(claim, [Finding(where=where, holds=apart, numbers=figures)], machine=CATALOGUE, run="", rows="")
    summary = "; ".join(
        f"{f.name} x {short(f.value)} [{short(f.low)}, {short(f.high)}]" for f in figures if f.low and f.high
    )
    summary = f"{summary} (derived from datasheets; {assumed} of {where} unchecked)"
    shared = f"{short(max(rate.low, bandwidth.low))} to {short(min(rate.high, bandwidth.high))}"
    open_ = f"parts of more years: the intervals of the two growths overlap at x {shared}, which shows neither"
    needed = [open_] if apart is None else []
    return made.model_copy(update={"summary": summary, "region": "", "missing": tuple(needed)})


def path_length(claim: Claim, facts: Facts) -> Verdict:
    """C7: dependent steps of every kernel against T, ceil(log_F T) and 1, and the power of T in the LSTM's time."""
    counted, lacking = _counted(facts)

    def find(rows: str) -> Found:
        recurrences = [
            row for row in facts.points("lstm", "warm", B=1) if row.rows == rows and row.plain and row.at("T") > 0
        ]
        sizes = sorted({(row.at("I"), row.at("H"), row.point.dtype) for row in recurrences})
        powers = [power for size in sizes if (power := _power(claim, facts, recurrences, size)) is not None]
        missing = [] if powers else [f"{rows} rows of lstm at B=1 and {claim.at('lengths'):.0f} lengths"]
        return _with_counts(counted, powers), [*lacking, *missing]

    return compared(claim, find)


def _with_counts(counted: list[Finding], powers: list[Finding]) -> list[Finding]:
    """The powers, each holding only where the counts of steps do as well; the first tells the counts too."""
    steps = both(*(finding.holds for finding in counted))
    figures = tuple(figure for finding in counted for figure in finding.numbers)
    wrong = "".join(f", steps of {finding.where}" for finding in counted if finding.holds is False)
    return [
        Finding(
            where=power.where + wrong,
            holds=both(steps, power.holds),
            numbers=(*(figures if index == 0 else ()), *power.numbers),
        )
        for index, power in enumerate(powers)
    ]


def _counted(facts: Facts) -> tuple[list[Finding], list[str]]:
    """Dependent steps as kernels declare them, against what they should be; and the kernels that were not measured."""
    findings, lacking = [], []
    for kernel in ("lstm", "hierarchical_attention", "attention"):
        cases = {row.where: row for row in facts.points(kernel, "warm") if row.plain}
        if not cases:
            lacking.append(f"dependent steps of {kernel}")
            continue
        wrong = [where for where, row in cases.items() if row.work.depth != _steps(row)]
        longest = max(cases.values(), key=lambda row: row.at("T") or row.at("S"))
        length = longest.at("T") or longest.at("S")
        figure = Number(name=f"steps of {kernel} at length {length}", value=longest.work.depth, mark="derived")
        findings.append(Finding(where=f"{kernel} {', '.join(wrong)}".strip(), holds=not wrong, numbers=(figure,)))
    return findings, lacking


def _steps(row: Timed) -> int:
    """Dependent steps that the mathematics needs: T, ceil(log_F T) counted with whole numbers, or 1."""
    if row.point.kernel == "lstm":
        return row.at("T")
    if row.point.kernel == "attention":
        return 1
    if row.at("F") < 2 or row.at("T") < 1:
        return 0  # no hierarchy has such sizes, so no declared depth agrees
    return levels(row.at("T"), row.at("F"))


def _power(claim: Claim, facts: Facts, recurrences: list[Timed], size: tuple[int, int, str]) -> Finding | None:
    """The power of T in the time of one implementation over all lengths.

    Times of different minutes differ by more than their intervals on a machine whose speed wanders, so rounds that all
    lengths shared decide where a run has them.
    """
    mine = [row for row in recurrences if (row.at("I"), row.at("H"), row.point.dtype) == size]
    longest = max(row.at("T") for row in mine)
    # One implementation for all lengths: the fastest at the longest sequence.
    name = fastest(row for row in mine if row.at("T") == longest).point.implementation
    line = sorted((row for row in mine if row.point.implementation == name), key=_length)
    if len(line) < claim.at("lengths"):
        return None
    first, last = _length(line[0]), _length(line[-1])
    power = exponent([_length(row) for row in line], [span_of(row.time) for row in line])
    figures = [number(f"power of T in the time of lstm, T={first} to {last}, {SEPARATE}", power)]
    shared = facts.power_in_turn(line, "T")
    if shared is not None:
        power = shared
        figures.append(number(f"power of T in the time of lstm, T={first} to {last}, {IN_TURN}", power))
    holds = within(power, claim.at("least"), claim.at("most"))
    return Finding(where=f"lstm B=1,I={size[0]},H={size[1]} {size[2]}", holds=holds, numbers=tuple(figures))


def _length(row: Timed) -> int:
    return row.at("T")


def parallel_training(claim: Claim, facts: Facts) -> Verdict:
    """C10: the time of a training step in few long sequences over that in many short ones, at the same tokens."""

    def find(rows: str) -> Found:
        sides = {kernel: _rises(claim, facts, rows, kernel) for kernel in ("lstm", "gated_conv")}
        lacking = [kernel for kernel, rises in sides.items() if not rises]
        pairs = sorted(set(sides["lstm"]) & set(sides["gated_conv"]))
        if lacking or not pairs:
            return [], [_wanted(claim, rows, kernel) for kernel in lacking or sides]
        return [_side_by_side(claim, size, sides["lstm"][size], sides["gated_conv"][size]) for size in pairs], []

    return compared(claim, find)


def _side_by_side(claim: Claim, size: tuple[str, int, int, int], chain: Fraction, flat: Fraction) -> Finding:
    """Both halves at one size; the claim needs both, so where either fails, it fails."""
    dtype, width, _, tokens = size
    ends = f"training step at T={claim.at('long'):.0f} / T={claim.at('short'):.0f}"
    return Finding(
        where=f"width {width}, {tokens} tokens {dtype}",
        holds=both(above(chain, claim.at("rises")), below(flat, claim.at("flat"))),
        numbers=(number(f"lstm, {ends}", chain), number(f"gated_conv, {ends}", flat)),
    )


def _wanted(claim: Claim, rows: str, kernel: str) -> str:
    ends = f"T={claim.at('short'):.0f} and T={claim.at('long'):.0f}"
    return f"{rows} rows of {kernel}, direction both, at {ends}, at the width and as many tokens as those of the other"


def _rises(claim: Claim, facts: Facts, rows: str, kernel: str) -> dict[tuple[str, int, int, int], Fraction]:
    """The time at the long sequences over that at the short ones, for every size that has both."""
    mine = [row for row in facts.planned(claim, kernel, "warm", "both") if row.rows == rows]
    found = {}
    for size in {_size(row) for row in mine}:
        same = [row for row in mine if _size(row) == size]
        first, last = ([row for row in same if row.at("T") == claim.at(end)] for end in ("short", "long"))
        if first and last:
            found[size] = ratio(span_of(fastest(last).time), span_of(fastest(first).time))
    return found


def _size(row: Timed) -> tuple[str, int, int, int]:
    """What two cases of C10 have in common: dtype, width in and out, and tokens."""
    width = (row.at("I") or row.at("C"), row.at("H") or row.at("O"))
    return row.point.dtype, *width, row.at("B") * row.at("T")
