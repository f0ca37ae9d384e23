"""What a claim planned to measure and a run does not validly hold: named, and counted as not decided."""

from __future__ import annotations

from .claim_facts import COMPARED, Facts, class_of, interval_of, line_id, pair_id, uncounted
from .claim_verdict import LEAST_DECIDED, Verdict, listed
from .claims import COMMAND, PAIRED, Claim, Planned

# The row that stands where a probe of shared rounds lost its worker.
LOST = PAIRED.replace("_", "-")


def with_gaps(claim: Claim, facts: Facts, made: Verdict) -> Verdict:
    """The verdict with every planned case named that lacks a valid point of the rows that it rests on.

    So are cases that should have been timed in turn and were not; separate times count in their place.
    """
    gaps, apart = lacking(claim, facts, made.rows), not_in_turn(claim, facts, made.rows)
    if not gaps and not apart:
        return made
    undecided = made.undecided + len({case.place(claim.across) for case, _ in gaps})
    ends_with_command = bool(made.missing) and made.missing[-1].endswith(COMMAND)
    said, command = (made.missing[:-1], made.missing[-1]) if ends_with_command else (made.missing, _decides())
    changes: dict[str, object] = {"missing": (*said, *_described(gaps), *apart, command), "undecided": undecided}
    if gaps and _weak(claim, made, undecided):
        changes["verdict"] = "INCONCLUSIVE"
    return made.model_copy(update=changes)


def lacking(claim: Claim, facts: Facts, rows: str) -> list[tuple[Planned, str]]:
    """Planned cases without a point that counts, each with the reason. rows : a class; any other text, every row."""
    found = []
    for case in claim.planned(facts.device):
        tried = [
            point
            for point in facts.asked
            if case.is_of(point) and (rows not in COMPARED or class_of(point.implementation) == rows)
        ]
        reasons = [uncounted(point) for point in tried]
        if all(reasons):
            found.append((case, "; ".join(dict.fromkeys(reasons)) or "not measured"))
    return found


def not_in_turn(claim: Claim, facts: Facts, rows: str) -> list[str]:
    """Valid cases that lack the evidence of shared rounds that the claim plans, in words with the reasons."""
    found: dict[str, list[str]] = {}
    groups = [("", list(pair)) for pair in claim.pairs(facts.device)]
    for size, cases in [*groups, *claim.lines(facts.device)]:
        ids = _ids(facts, rows, size, cases)
        known = [row for id in ids for row in facts.evidence(id)]
        if ids and not any(interval_of(row.values, "slope" if size else "ratio") for row in known):
            lost = [row.how for row in [*known, *facts.evidence(LOST)] if not row.values]
            reason = lost[0] if lost else "its evidence is not complete" if known else "not measured"
            found.setdefault(reason, []).append(ids[0])
    return [f"in shared rounds, {listed(ids)}: {reason}; separate times count" for reason, ids in found.items()]


def _ids(facts: Facts, rows: str, size: str, cases: list[Planned]) -> list[str]:
    """The ids of evidence on these cases, for every implementation of a class that has a valid point of each."""
    valid = [{p.implementation: p for p in facts.asked if case.is_of(p) and not uncounted(p)} for case in cases]
    names = [name for name in valid[0] if class_of(name) == rows and all(name in points for points in valid)]
    sides = {name: [(points[name].kernel, points[name].shape) for points in valid] for name in names}
    dtype = cases[0].dtype
    if size:
        return [line_id(of[0][0], size, [shape for _, shape in of], dtype, name) for name, of in sides.items()]
    return [pair_id(of[0], of[1], dtype, name) for name, of in sides.items()]


def _weak(claim: Claim, made: Verdict, undecided: int) -> bool:
    """Whether too little was decided; that something exists needs one place, that it does not, all of them."""
    if claim.one_is_enough:
        return made.verdict == "REFUTED"
    return made.decided < LEAST_DECIDED * (made.decided + undecided)


def _described(gaps: list[tuple[Planned, str]]) -> list[str]:
    """The cases in words, those of one kernel and reason together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for case, reason in gaps:
        sizes = ",".join(f"{name}={size}" for name, size in case.shape.items())
        way = "" if case.direction == "forward" else f" {case.direction}"
        groups.setdefault((f"{case.kernel} {case.dtype}{way} {case.cache}", reason), []).append(sizes)
    return [f"planned, {kernel} at {listed(places)}: {reason}" for (kernel, reason), places in groups.items()]


def _decides() -> str:
    return f"what decides it: {COMMAND}"
