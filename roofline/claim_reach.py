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
KEPT = 1.0  # a gradient that leaves a stack no smaller than it came has not vanished
# Units without a linear factor that the gated one is held against: names in the evidence, and in words.
_WITHOUT = (("tanh", "tanh"), ("gated_tanh", "gated tanh"))
_MORE_SEEDS = "more seeds at {}: those that were drawn lie on both sides of the threshold"
_Read = Callable[[Claim, Evidence], tuple[list[Finding], str]]


def _rows(claim: Claim, facts: Facts, id: str, read: _Read) -> Verdict:
    """The verdict from the rows of a probe that the claim plans, all of them; what a row lacks is said."""
    rows = {row.id: row for row in facts.evidence(id)}
    if not rows:
        return verdict(claim, (), [claim.needs], rows=_OWN)
    lost = f": {rows[id].how}" if id in rows and not rows[id].values else ""
    findings, missing = [], []
    for wanted in claim.evidence:
        found, reason = read(claim, rows[wanted]) if wanted in rows else ([], f"this row of the probe{lost}")
        findings += found
        if reason:
            missing.append(f"{wanted}: {reason}")
    return verdict(claim, findings, missing, narrower=_MORE_SEEDS, rows=_OWN)


def hierarchy_reach(claim: Claim, facts: Facts) -> Verdict:
    """C8: inputs that change the context when perturbed, and levels that one input more needs."""
    return _rows(claim, facts, HIERARCHY, _reach)


def _reach(claim: Claim, row: Evidence) -> tuple[list[Finding], str]:
    names = ("window", "inputs", "changed", "levels", "levels_one_more")
    values = [_plain(row, name) for name in names]
    if any(value is None for value in values) or values[0] != claim.at("window"):
        return [], f"a complete row of the probe ({row.how})"
    window, inputs, changed, levels, more = (value or 0.0 for value in values)
    wanted = claim.at("levels")
    holds = inputs == changed == window**wanted and levels == wanted and more == wanted + 1
    figures = (
        Number(name=f"inputs of {inputs:.0f} that change the context", value=changed, mark="measured"),
        Number(name="levels", value=levels, mark="measured"),
        Number(name="levels for one input more", value=more, mark="measured"),
    )
    return [Finding(where=f"windows of {window:.0f}", holds=holds, numbers=figures)], ""


def gradient_reach(claim: Claim, facts: Facts) -> Verdict:
    """C9: gradient norms of the last state to inputs far back, over that to the last but one, by forget bias."""
    return _rows(claim, facts, GRADIENT_REACH, _kept)


def _kept(claim: Claim, row: Evidence) -> tuple[list[Finding], str]:
    near, far = int(claim.at("near")), int(claim.at("far"))
    at_near, at_far = (_interval(row, f"norm_{steps}") for steps in (near, far))
    lacking = _lacking(claim, row, at_near, at_far)
    if at_near is None or at_far is None or lacking:
        return [], lacking
    limit = claim.at("share")
    figures = tuple(
        number(f"gradient norm {steps} steps back / 1 step back", share, "measured")
        for steps, share in ((near, at_near), (far, at_far))
    )
    where = f"forget bias {row.values.get('forget_bias')}"
    return [Finding(where=where, holds=both(above(at_near, limit), below(at_far, limit)), numbers=figures)], ""


def gradient_depth(claim: Claim, facts: Facts) -> Verdict:
    """C14: gradient norms through a deep stack of gated convolutions over those of stacks without a linear factor.

    Where those keep much of the gradient, there was little to ease; where it grows through them, there was nothing, and
    they decide nothing. The verdict says so in words.
    """
    made = _rows(claim, facts, GRADIENT_DEPTH, _eased)
    rows = facts.evidence(GRADIENT_DEPTH)
    told = [text for row in rows for text in (_little_lost(claim, row), _grown(row)) if text]
    return made.model_copy(update={"summary": "; ".join(filter(None, [made.summary, *told]))})


def _little_lost(claim: Claim, row: Evidence) -> str:
    """Which stacks keep more of the gradient than what counts as vanished, in words; empty where none does."""
    kept = [
        f"the {words} stack keeps {short(norm.value)} of the gradient"
        for name, words in _WITHOUT
        if (norm := _interval(row, name)) and claim.at("vanishes") < norm.value < KEPT
    ]
    if not kept:
        return ""
    where = f"weights {row.values.get('weights')}"
    return f"{where}: {' and '.join(kept)}, more than {claim.at('vanishes'):g}: little to ease (measured)"


def _grown(row: Evidence) -> str:
    """Through which stacks the gradient grows, in words, with what the gated one makes of it; empty where none does."""
    grown = []
    for name, words in _WITHOUT:
        norm, over = _interval(row, name), _interval(row, f"gated_over_{name}")
        if norm is not None and over is not None and norm.value >= KEPT:
            grown.append(
                f"through the {words} stack the gradient grows {short(norm.value)}-fold, so there is no vanishing to"
                f" ease and gated / {words} {short(over.value)} decides nothing"
            )
    return f"weights {row.values.get('weights')}: {'; '.join(grown)} (measured)" if grown else ""


def _eased(claim: Claim, row: Evidence) -> tuple[list[Finding], str]:
    gated = _interval(row, "gated")
    norms = {words: (_interval(row, name), _interval(row, f"gated_over_{name}")) for name, words in _WITHOUT}
    lacking = _lacking(claim, row, gated, *(value for pair in norms.values() for value in pair))
    if lacking or _plain(row, "layers") != claim.at("layers"):
        return [], lacking or f"a stack of {claim.at('layers'):.0f} layers ({row.how})"
    findings = []
    for words, (norm, over) in norms.items():
        if gated is None or norm is None or over is None or norm.value >= KEPT:
            continue
        figures = [
            number("gradient norm gated", gated, "measured"),
            number(f"gradient norm {words}", norm, "measured"),
            number(f"gradient norm gated / {words}", over, "measured"),
        ]
        where = f"weights {row.values.get('weights')} over {words}"
        findings.append(Finding(where=where, holds=above(over, claim.at("ratio")), numbers=tuple(figures)))
    residual = _interval(row, "residual_over_tanh")
    if residual is not None and findings:
        figure = number("gradient norm residual gated / tanh", residual, "measured")
        findings[0] = findings[0].model_copy(update={"numbers": (*findings[0].numbers, figure)})
    return findings, ""


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
