"""What a claim planned to measure and a run does not validly hold: named, and counted as not decided."""

from __future__ import annotations

from .claim_facts import COMPARED, Facts, class_of, uncounted
from .claim_verdict import LEAST_DECIDED, Verdict, listed
from .claims import COMMAND, Claim, Planned


def with_gaps(claim: Claim, facts: Facts, made: Verdict) -> Verdict:
    """The verdict with every planned case named that lacks a valid point of the rows that it rests on."""
    gaps = lacking(claim, facts, made.rows)
    if not gaps:
        return made
    undecided = made.undecided + len({case.place(claim.across) for case, _ in gaps})
    ends_with_command = bool(made.missing) and made.missing[-1].endswith(COMMAND)
    said, command = (made.missing[:-1], made.missing[-1]) if ends_with_command else (made.missing, _decides())
    changes: dict[str, object] = {"missing": (*said, *_described(gaps), command), "undecided": undecided}
    if _weak(claim, made, undecided):
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
