"""Predicates on one step of an LSTM: what its weights ask of the memory, and what that leaves of the compute units."""

from __future__ import annotations

from . import calibration
from .claim_facts import Facts, Found, Timed, by_case, compared, fastest, ratio, span_of
from .claim_verdict import Finding, Number, Verdict, above, below, both, number, short, verdict
from .claims import Claim
from .floors import capacity, matmul_rate
from .machine import Ceiling, Machine
from .record import Fraction
from .verdict import fraction

GATES = 4  # input, forget, cell and output: the four affine layers of a step
# What decides a share that is above one: no call is faster than the roof that it is held against.
BEYOND = "times at {} are beyond the roof they are held against: measure the roofs again, or sizes that no cache holds"
# What decides a share of a roof that the memory did not hold during the run.
FELL = (
    "times at {} and roofs from one hour: the copies of this run reached a part of their roof only, so these shares "
    "may be larger; measure both again when the machine is quiet"
)


def weight_bandwidth(claim: Claim, facts: Facts) -> Verdict:
    """C1: weight bytes over the measured bandwidth, as a share of the time of the fastest row.

    Where the calibration copy fell short of its roof, steps may have had as much less: the shares reach up to that.
    """
    machine = facts.machine
    roof = machine.bandwidth("dram", 1, 0) if machine else None
    if roof is None or not _own(roof):
        return verdict(claim, (), ["a measured bandwidth of the memory"])
    fell = calibration.shortfall(facts.run.evidence if facts.run else ())
    findings = []
    for row in _steps(facts, claim):
        share = fraction(row.work.weight_bytes / roof.value, row.time, roof.spread)
        if share is None:
            findings.append(Finding(where=row.where, holds=None))
            continue
        share = share.model_copy(update={"high": share.high / (fell.share if fell else 1.0)})
        figure = number(f"weight bytes / {roof.pattern} bandwidth / time", share)
        findings.append(Finding(where=row.where, holds=above(share, claim.at("share")), numbers=(figure,)))
    return verdict(claim, findings, narrower=_beyond(findings) or (FELL if fell else ""), rows="fastest")


def _beyond(findings: list[Finding]) -> str:
    """What would decide shares that are no shares; nothing where there are none."""
    return BEYOND if any(not finding.numbers for finding in findings) else ""


def _own(roof: Ceiling) -> bool:
    """Whether a ceiling was measured on the machine itself, now or in an earlier run."""
    return roof.provenance in ("measured", "replayed")


def _steps(facts: Facts, claim: Claim, most_B: float | None = None) -> list[Timed]:
    """The fastest row of every LSTM step that is large and whose batch is small enough, coldly measured."""
    limit = claim.at("most_B") if most_B is None else most_B
    rows = (row for row in facts.points("lstm_step", "cold") if row.at("H") >= claim.at("least_H"))
    return [fastest(case) for case in by_case(rows) if case[0].at("B") <= limit]


def idle_compute(claim: Claim, facts: Facts) -> Verdict:
    """C2: operations per second over the measured rate, at small batches; and the batch where half of them work."""
    if facts.machine is None:
        return verdict(claim, ())
    findings, curve = [], []
    for row in _steps(facts, claim, float("inf")):
        peak = matmul_rate(facts.machine, row.point.dtype)
        if peak is None or not _own(peak):
            return verdict(claim, (), ["a measured rate of matrix products"])
        share = fraction(row.work.flops / peak.value, row.time, peak.spread)
        few = row.at("B") <= claim.at("most_B")
        if share is None:
            findings += [Finding(where=row.where, holds=None)] if few else []
            continue
        curve.append((row, share))
        if few:
            figure = number("share of the FLOP/s of the machine", share)
            findings.append(Finding(where=row.where, holds=below(share, claim.at("share")), numbers=(figure,)))
    made = verdict(claim, findings, narrower=_beyond(findings), rows="fastest")
    return made.model_copy(update={"summary": "; ".join(filter(None, [made.summary, *_passing(claim, curve)]))})


def _passing(claim: Claim, curve: list[tuple[Timed, Fraction]]) -> list[str]:
    """Where half of the units work, for every size of the weights that was measured over several batches."""
    texts = []
    for sizes in sorted({(row.at("H"), row.at("I")) for row, _ in curve}):
        walk = sorted(
            ((row.at("B"), share.value) for row, share in curve if (row.at("H"), row.at("I")) == sizes),
            key=lambda step: step[0],
        )
        if len(walk) < 2 or walk[-1][0] <= claim.at("most_B"):
            continue
        idle = [batch for batch, share in walk if share < claim.at("passes")]
        after = [batch for batch, _ in walk if not idle or batch > max(idle)]
        place = f"from B={min(after)} on" if after else f"at no B up to {walk[-1][0]}"
        texts.append(f"H={sizes[0]}: half of the units work {place}")
    return texts


def nearer_weights(claim: Claim, facts: Facts) -> Verdict:
    """C5: the time of a step with weights from the memory over that with weights one level nearer."""
    find = _kept_over_reread if facts.device == "cuda" else _cached_over_rotated
    made = compared(claim, lambda rows: find(claim, facts, rows))
    modelled = _in_memory(facts)
    if not made.summary or not modelled:
        return made
    text = ", ".join(f"{figure.name} {short(figure.value)} x" for figure in modelled)
    return made.model_copy(
        update={
            "summary": f"{made.summary}; bandwidth beside the banks of compute-in-memory parts over this memory: "
            f"{text} (modelled)",
            "numbers": (*made.numbers, *modelled),
        }
    )


def _cached_over_rotated(claim: Claim, facts: Facts, rows: str) -> Found:
    """Calls whose weights were rotated out of the caches, over calls that find them in the last one."""
    cold = {(row.point.implementation, row.where): row for row in facts.points("lstm_step", "cold")}
    findings = []
    warm = [
        row
        for row in facts.points("lstm_step", "warm")
        if row.rows == rows and row.at("B") <= claim.at("most_B")
        if facts.machine and row.work.weight_bytes <= capacity(facts.machine, "cache")
    ]
    for case in by_case(warm):
        near = fastest(case)
        far = cold.get((near.point.implementation, near.where))
        if far is not None:
            times = ratio(span_of(far.time), span_of(near.time))
            figure = number("weights from memory / from cache, time", times)
            findings.append(Finding(where=near.where, holds=above(times, claim.at("ratio")), numbers=(figure,)))
    return findings, []


def _kept_over_reread(claim: Claim, facts: Facts, rows: str) -> Found:
    """Recurrences that read their weights at every step, over those that keep them on chip for the sequence.

    Only rows whose steps follow one another in the same way differ in nothing but where their weights lie.
    """
    found = [row for row in facts.points("lstm", "warm") if row.rows == rows and row.at("B") <= claim.at("most_B")]
    findings, unequal = [], []
    for case in by_case(found):
        kept, reread = ([row for row in case if row.point.weights == how] for how in ("kept", "reread"))
        pairs = [(far, near) for far in reread for near in kept]
        alike = [pair for pair in pairs if pair[0].point.chain and pair[0].point.chain == pair[1].point.chain]
        if not pairs:
            continue
        far, near = min(alike or pairs, key=lambda pair: (pair[1].time.median, pair[0].time.median))
        times = ratio(span_of(far.time), span_of(near.time))
        figure = number("weights read at every step / kept on chip, time", times)
        holds = above(times, claim.at("ratio")) if alike else None
        findings.append(Finding(where=case[0].where, holds=holds, numbers=(figure,)))
        if not alike:
            unequal.append(f"{_chain(far)} and {_chain(near)}")
    missing = [
        f"{rows} rows with the same chain: {pair} differ in more than weights" for pair in dict.fromkeys(unequal)
    ]
    return findings, missing if all(finding.holds is None for finding in findings) else []


def _chain(row: Timed) -> str:
    return f"{row.point.implementation} (chain {row.point.chain or 'not known'})"


def _in_memory(facts: Facts) -> list[Number]:
    """Bandwidth of compute-in-memory parts over that of the machine."""
    here = facts.machine.bandwidth("dram", 1, 0) if facts.machine else None
    parts: list[tuple[Machine, Ceiling]] = [
        (part, roof)
        for part in facts.catalogue
        if part.machine_class == "compute-in-memory" and (roof := part.best("bandwidth", "dram")) is not None
    ]
    if here is None:
        return []
    return [Number(name=part.id, value=roof.value / here.value, mark="modelled") for part, roof in parts]


def gate_shares(claim: Claim, facts: Facts) -> Verdict:
    """C17: the four gates make up the step, and their products nearly all of its operations."""
    rows = (row for row in facts.points("lstm_step", "cold") if row.at("H") >= claim.at("least_H"))
    findings = []
    for case in by_case(rows):
        row, work = case[0], case[0].work
        batch, inputs, hidden = (row.at(name) for name in ("B", "I", "H"))
        gate = 2 * batch * hidden * (inputs + hidden) + batch * hidden  # its product, and its bias
        update = 4 * batch * hidden  # f c + i g and o tanh(c'): three products and a sum
        share = work.matmul_flops / work.flops if work.flops else 0.0
        parts = (GATES * gate + update) / work.flops if work.flops else 0.0
        figures = (
            Number(name="matrix products / operations of the step", value=share, mark="derived"),
            Number(name="four gates and the update / step", value=parts, mark="derived"),
        )
        sums = GATES * gate + update == work.flops
        holds = both(sums, share >= claim.at("share"))
        findings.append(Finding(where=row.where, holds=holds, numbers=figures))
    return verdict(claim, findings, rows="every class: the cost is that of the mathematics")
