"""The predicate on what is stored: the state of an LSTM against a cache of keys and values."""

from __future__ import annotations

import itertools
import math

from .claim_facts import Facts, Found, Timed, compared, fastest_of, ratio, span_of
from .claim_verdict import Finding, Number, Verdict, below, both, number, short
from .claims import Claim


def stored_past(claim: Claim, facts: Facts) -> Verdict:
    """C11: bytes and time of one decoded token, state of an LSTM against a cache, on both sides of the crossovers.

    The claim is about what is stored, so bytes are those of state and cache, and every measured length beyond their
    crossover counts. The times of an LSTM step hold its weights too, which is in favour of the cache: lengths bracket
    the crossover with the weights, and where the times cross is told.
    """
    told: dict[str, list[tuple[str, Number]]] = {}

    def find(rows: str) -> Found:
        findings: list[Finding] = []
        caches = fastest_of(rows, facts.planned(claim, "attention_decode", "cold"))
        for step in fastest_of(rows, facts.planned(claim, "lstm_step", "cold")):
            mine = sorted((row for row in caches if _same_model(step, row)), key=_keys)
            per_key = _per_key(mine)
            if per_key and _keys(mine[0]) < (moved := _crossing(step, mine[0], per_key)) < _keys(mine[-1]):
                state = 2 * step.work.state_bytes / per_key  # the state is read and written
                told[step.where] = _crossovers(step, mine, state, moved) + _even(step, mine)
                findings += [_decoded(claim, step, cache, state) for cache in mine if _keys(cache) > state]
        wanted = f"{rows} rows of lstm_step and attention_decode with keys on both sides of the crossover"
        return findings, [] if findings else [wanted]

    made = compared(claim, find)
    if not told:
        return made
    beside = [entry for found in told.values() for entry in found]
    summary = "; ".join([*(text for text, _ in beside), made.summary])
    figures = (*made.numbers, *(figure for _, figure in beside))
    return made.model_copy(update={"summary": summary, "numbers": figures})


def _keys(cache: Timed) -> int:
    return cache.at("K")


def _even(step: Timed, caches: list[Timed]) -> list[tuple[str, Number]]:
    """Where attention begins to take longer than the step, on a straight line between the logarithms of two lengths."""
    found = []
    for shorter, longer in itertools.pairwise(caches):
        first, last = (math.log(cache.time.median / step.time.median) for cache in (shorter, longer))
        if first < 0 <= last:
            share = first / (first - last)
            keys = _keys(shorter) * (_keys(longer) / _keys(shorter)) ** share
            sides = f"between the measured K = {_keys(shorter)} and {_keys(longer)}"
            text = f"cache that takes as long as the step: K = {short(keys)} (derived, interpolated {sides})"
            name = f"crossover of times, interpolated at {step.where}"
            found.append((text, Number(name=name, value=keys, unit="keys", mark="derived")))
    return found


def _crossovers(step: Timed, caches: list[Timed], state: float, moved: float) -> list[tuple[str, Number]]:
    """Both crossovers in words and as numbers, each with the measured lengths on its sides.

    state, moved : keys at which a cache is as many bytes as the state, and as all that the step moves.
    """
    found = []
    lengths = [row.at("K") for row in caches]
    for what, keys in (("the state", state), ("the step with its weights", moved)):
        sides = [str(length) for length in lengths if length < keys][-1:]
        sides += [str(length) for length in lengths if length > keys][:1]
        text = f"cache of as many bytes as {what}: K = {short(keys)} (derived), measured at K = {' and '.join(sides)}"
        name = f"crossover of cache and {what.removeprefix('the ')} at {step.where}"
        found.append((text, Number(name=name, value=keys, unit="keys", mark="derived")))
    return found


def _same_model(step: Timed, cache: Timed) -> bool:
    """Whether step and cache have the same batch, dtype and width."""
    same = (step.at("B"), step.point.dtype) == (cache.at("B"), cache.point.dtype)
    return (
        same
        and cache.work.compulsory_bytes > 0
        and cache.at("N") * cache.at("P") == step.at("H")
        and not cache.at("ragged")
    )


def _per_key(caches: list[Timed]) -> float:
    """Bytes that attention reads for one key more; 0 without two lengths."""
    if len({row.at("K") for row in caches}) < 2:
        return 0.0
    first, last = caches[0], caches[-1]
    return max(0, last.work.compulsory_bytes - first.work.compulsory_bytes) / (last.at("K") - first.at("K"))


def _crossing(step: Timed, cache: Timed, per_key: float) -> float:
    """The number of keys at which attention moves as many bytes as the step with its weights."""
    return cache.at("K") + (step.work.compulsory_bytes - cache.work.compulsory_bytes) / per_key


def _decoded(claim: Claim, step: Timed, cache: Timed, state: float) -> Finding:
    """State against cache at one length. state : keys at which a cache is as many bytes as the state."""
    keys = _keys(cache)
    moved, times = state / keys, ratio(span_of(step.time), span_of(cache.time))
    figures = (
        Number(name=f"bytes of state / cache of {keys} keys", value=moved, mark="derived"),
        number(f"time LSTM step / attention with {keys} keys", times),
    )
    holds = both(moved <= claim.at("ratio"), below(times, claim.at("ratio")))
    return Finding(where=f"K={keys} {step.where}", holds=holds, numbers=figures)
