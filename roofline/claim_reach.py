"""Predicates on evidence that is no timing: how far gradients and windows reach, as the probes measured it."""

from __future__ import annotations

from collections.abc import Callable

from .claim_facts import Facts
from .claim_verdict import Finding, Number, Verdict, above, below, both, number, short, verdict
from .claims import Claim
from .record import Evidence, Fraction

# Ids of the evidence; what follows a blank tells rows of one probe apart.
HIERARCHY, GRADIENT_REACH, GRADIENT_DEPTH = "hierarchy-reach", "gradient-reach", "gradient-depth"
_OWN = "the kernels' references"


def _rows(
    claim: Claim, facts: Facts, id: str, read: Callable[[Claim, Evidence], tuple[Finding | None, str]]
) -> Verdict:
    """The verdict from the rows of a probe that the claim plans, all of them; what a row lacks is said."""
    rows = {row.id: row for row in facts.evidence(id)}
    if not rows:
        return verdict(claim, (), [claim.needs], rows=_OWN)
    lost = f": {rows[id].how}" if id in rows and not rows[id].values else ""
    findings, missing = [], []
    for wanted in claim.evidence:
        finding, reason = read(claim, rows[wanted]) if wanted in rows else (None, f"this row of the probe{lost}")
        if finding is not None:
            findings.append(finding)
        elif reason:
            missing.append(f"{wanted}: {reason}")
    return verdict(claim, findings, missing, rows=_OWN)


def hierarchy_reach(claim: Claim, facts: Facts) -> Verdict:
    """C8: inputs that change the context when perturbed, and levels that one input more needs."""
    return _rows(claim, facts, HIERARCHY, _reach)


def _reach(claim: Claim, row: Evidence) -> tuple[Finding | None, str]:
    names = ("window", "inputs", "changed", "levels", "levels_one_more")
    values = [_plain(row, name) for name in names]
    if any(value is None for value in values) or values[0] != claim.at("window"):
        return None, f"a complete row of the probe ({row.how})"
    window, inputs, changed, levels, more = (value or 0.0 for value in values)
    wanted = claim.at("levels")
    holds = inputs == changed == window**wanted and levels == wanted and more == wanted + 1
    figures = (
        Number(name=f"inputs of {inputs:.0f} that change the context", value=changed, mark="measured"),
        Number(name="levels", value=levels, mark="measured"),
        Number(name="levels for one input more", value=more, mark="measured"),
    )
    return Finding(where=f"windows of {window:.0f}", holds=holds, numbers=figures), ""


def gradient_reach(claim: Claim, facts: Facts) -> Verdict:
    """C9: gradient norms of the last state to inputs far back, over that to the last but one, by forget bias."""
    return _rows(claim, facts, GRADIENT_REACH, _kept)


def _kept(claim: Claim, row: Evidence) -> tuple[Finding | None, str]:
    near, far = int(claim.at("near")), int(claim.at("far"))
    at_near, at_far = (_interval(row, f"norm_{steps}") for steps in (near, far))
    lacking = _lacking(claim, row, at_near, at_far)
    if at_near is None or at_far is None or lacking:
        return None, lacking
    limit = claim.at("share")
    figures = tuple(
        number(f"gradient norm {steps} steps back / 1 step back", share, "measured")
        for steps, share in ((near, at_near), (far, at_far))
    )
    where = f"forget bias {row.values.get('forget_bias')}"
    return Finding(where=where, holds=both(above(at_near, limit), below(at_far, limit)), numbers=figures), ""


def gradient_depth(claim: Claim, facts: Facts) -> Verdict:
    """C14: gradient norms through a deep stack of gated convolutions over those of tanh convolutions.

    Only draws of weights in which the gradient vanishes through the tanh stack can show that something eases it.
    """
    made = _rows(claim, facts, GRADIENT_DEPTH, _eased)
    kept = [row for row in facts.evidence(GRADIENT_DEPTH) if _vanishes(claim, row) is False]
    told = [f"weights {row.values.get('weights')}: no vanishing, {_norms(row)} (measured)" for row in kept]
    changes: dict[str, object] = {"summary": "; ".join(filter(None, [made.summary, *told]))}
    if kept and not made.decided and not made.undecided:
        changes["missing"] = ("a draw of weights in which the gradient of the tanh stack vanishes", *made.missing[1:])
    return made.model_copy(update=changes)


def _norms(row: Evidence) -> str:
    return ", ".join(f"gradient norm {name} {short(_plain(row, name) or 0.0)}" for name in ("gated", "tanh"))


def _vanishes(claim: Claim, row: Evidence) -> bool | None:
    """Whether the gradient vanishes through the tanh stack; None where its interval contains the threshold."""
    tanh = _interval(row, "tanh")
    return None if tanh is None else below(tanh, claim.at("vanishes"))


def _eased(claim: Claim, row: Evidence) -> tuple[Finding | None, str]:
    over, gated, tanh = (_interval(row, name) for name in ("gated_over_tanh", "gated", "tanh"))
    lacking = _lacking(claim, row, over, gated, tanh)
    if over is None or gated is None or tanh is None or lacking or _plain(row, "layers") != claim.at("layers"):
        return None, lacking or f"a stack of {claim.at('layers'):.0f} layers ({row.how})"
    vanishes = _vanishes(claim, row)
    if vanishes is False:
        return None, ""
    figures = [
        number("gradient norm gated", gated, "measured"),
        number("gradient norm tanh", tanh, "measured"),
        number("gradient norm gated / tanh", over, "measured"),
    ]
    for name, words in (
        ("residual_over_tanh", "residual gated / tanh"),
        ("gated_over_gated_tanh", "gated / gated tanh"),
    ):
        beside = _interval(row, name)
        if beside is not None:
            figures.append(number(f"gradient norm {words}", beside, "measured"))
    where = f"weights {row.values.get('weights')}"
    holds = above(over, claim.at("ratio")) if vanishes else None
    return Finding(where=where, holds=holds, numbers=tuple(figures)), ""


def _lacking(claim: Claim, row: Evidence, *values: Fraction | None) -> str:
    """What keeps a row of evidence from deciding; empty where nothing does."""
    if any(value is None for value in values):
        return f"a complete row of the probe ({row.how})"
    if (_plain(row, "seeds") or 0) < claim.at("seeds"):
        return f"{claim.at('seeds'):.0f} seeds ({row.values.get('seeds')} were drawn)"
    return ""


def _plain(row: Evidence, name: str) -> float | None:
    value = row.values.get(name)
    return float(value) if isinstance(value, (int, float)) else None


def _interval(row: Evidence, name: str) -> Fraction | None:
    """A value with the interval over the seeds, or None where a part of it is missing."""
    value, low, high = (_plain(row, f"{name}{end}") for end in ("", "_low", "_high"))
    if value is None or low is None or high is None or not low <= value <= high:
        return None
    return Fraction(value=value, low=low, high=high)
