"""All claims, decided from runs: of those of a machine, the one with the most evidence for a claim decides it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import claim_bandwidth, claim_cache, claim_contrast, claim_reach, claim_scaling
from ._model import Frozen
from .catalogue import machines
from .claim_facts import COMPARED, Facts
from .claim_gaps import with_gaps
from .claim_verdict import Line, Verdict, verdict
from .claims import Claim, all_claims
from .compare import identity
from .machine import Machine
from .record import Run

PREDICATES: dict[str, Callable[[Claim, Facts], Verdict]] = {
    "weight_bandwidth": claim_bandwidth.weight_bandwidth,
    "idle_compute": claim_bandwidth.idle_compute,
    "growth": claim_scaling.growth_of_parts,
    "roof_contrast": claim_contrast.roof_contrast,
    "nearer_weights": claim_bandwidth.nearer_weights,
    "resources": claim_contrast.resources,
    "path_length": claim_scaling.path_length,
    "hierarchy_reach": claim_reach.hierarchy_reach,
    "gradient_reach": claim_reach.gradient_reach,
    "parallel_training": claim_scaling.parallel_training,
    "stored_past": claim_cache.stored_past,
    "gru_ratio": claim_contrast.gru_ratio,
    "dilation_ratio": claim_contrast.dilation_ratio,
    "gradient_depth": claim_reach.gradient_depth,
    "place_left": claim_contrast.place_left,
    "small_batch_cost": claim_contrast.small_batch_cost,
    "gate_shares": claim_bandwidth.gate_shares,
}


class Board(Frozen):
    """The verdicts on all claims, machine after machine: the document of `seqroof claims --json`."""

    claims: tuple[Verdict, ...]


def decided(claim: Claim, run: Run | None, label: str, catalogue: Sequence[Machine]) -> Verdict:
    """The verdict on one claim from one run, or from none."""
    facts = Facts(run, tuple(catalogue))
    try:
        found = PREDICATES[claim.predicate](claim, facts)
    except (ArithmeticError, ValueError):  # no measurement holds such numbers, but a file may
        found = verdict(claim, (), ["numbers that can be computed with: those of this run overflow"])
    if run is not None:
        found = with_gaps(claim, facts, found)
    if found.machine or run is None:
        return found
    return found.model_copy(update={"machine": run.machine.name, "run": label})


def board(runs: Sequence[tuple[str, Run]], catalogue: Sequence[Machine] | None = None) -> Board:
    """Decide every claim for every computer in every set-up: another count of threads is another set-up.

    runs : with their labels, in any order. Of several runs of one machine the one counts that decides a claim on the
    most shapes, of equal ones the newest; where none does, the newest says what is missing.
    """
    parts = tuple(machines().values()) if catalogue is None else tuple(catalogue)
    by_machine: dict[tuple[object, ...], list[tuple[str, Run]]] = {}
    for label, run in sorted(runs, key=lambda entry: entry[1].created, reverse=True):
        by_machine.setdefault(identity(run.machine.id, run.environment), []).append((label, run))
    groups: list[list[tuple[str, Run | None]]] = [list(group) for group in by_machine.values()] or [[("", None)]]
    return Board(claims=tuple(_fullest(claim, group, parts) for group in groups for claim in all_claims()))


def _fullest(claim: Claim, runs: Sequence[tuple[str, Run | None]], catalogue: Sequence[Machine]) -> Verdict:
    found = [decided(claim, run, label, catalogue) for label, run in runs]
    conclusive = [entry for entry in found if entry.verdict != "INCONCLUSIVE"]
    return max(conclusive or found[:1], key=lambda entry: entry.decided)


def _beside(line: Line) -> str:
    where = f", {line.region}" if line.region else ""
    return f"{line.rows} rows: {line.verdict}, {line.summary}{where}"


def rows(found: Board) -> list[dict[str, Any]]:
    """The verdicts as rows of text, ready for a table."""
    return [
        {
            "id": entry.id,
            "title": entry.title,
            "claim": entry.claim,
            "source": entry.source,
            "condition": entry.condition,
            "verdict": entry.verdict,
            "numbers": entry.summary,
            "rows": f"{entry.rows} rows" if entry.rows in (*COMPARED, "fastest") else entry.rows,
            "region": entry.region,
            "beside": "; ".join(map(_beside, entry.beside)),
            "missing": "; ".join(entry.missing),
            "machine": entry.machine,
            "run": entry.run,
        }
        for entry in found.claims
    ]
