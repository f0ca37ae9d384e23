"""What a machine can resolve, from identical code timed against itself. Pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import variance

from .comparison_model import Noise
from .ratio import BAND, Ratio, Verdict, least_change, paired, unpaired, verdict
from .record import Timing
from .stats import CONFIDENCE, median, percentile, student, timing_interval
from .units import percent, ratio_within

# A change counts as resolvable when it would be seen in this share of the comparisons.
SEEN_IN = 0.9

Pair = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class AA:
    """Ratios of identical code: `within` a run by pairs, and `between` runs."""

    within: list[Ratio]
    between: list[Ratio]
    between_runs: float


def compare_identical(workers: Sequence[Mapping[str, Sequence[Pair]]], known: float | None = None) -> AA:
    """Compare identical code: workers[i][subject] holds the pairs that process i timed, each two lists of rounds.

    known : noise between runs to count with, as a log half width; None for the noise that these processes show.
    Needs two processes that timed the same subject; raises `ValueError` with a sentence otherwise.
    """
    within = [paired(*pair) for worker in workers for pairs in worker.values() for pair in pairs]
    subjects = {name for worker in workers for name, pairs in worker.items() if pairs}
    runs = {name: [_timing(worker[name]) for worker in workers if worker.get(name)] for name in sorted(subjects)}
    noise = between_runs([[timing.median for timing in timings] for timings in runs.values()])
    counted = noise if known is None else known
    freedom = max(map(len, runs.values())) - 1
    between = [unpaired(a, b, counted, freedom) for timings in runs.values() for a, b in combinations(timings, 2)]
    return AA(within, between, noise)


def between_runs(levels: Sequence[Sequence[float]]) -> float:
    """Log half width (95 %) of the ratio of two runs: levels[k] holds the times of subject k in separate runs.

    Student's interval from the variance that all subjects share, or the 95th percentile of the ratios seen where that
    is wider, as it is when a few subjects jump. Subjects that one run timed share the level of that run, so they tell
    no more of it than one of them: the degrees of freedom are those of the runs.
    """
    logs = [[math.log(value) for value in values] for values in levels if len(values) > 1]
    if not logs:
        raise ValueError("Noise between runs needs a subject that two processes at least have timed.")
    differences = sum(len(values) - 1 for values in logs)
    shared = math.fsum((len(values) - 1) * variance(values) for values in logs) / differences
    freedom = max(len(values) for values in logs) - 1
    seen = [abs(a - b) for values in logs for a, b in combinations(values, 2)]
    half = student(freedom, (1 + CONFIDENCE) / 2) * math.sqrt(2 * shared)
    return max(half, percentile(seen, CONFIDENCE))


def _timing(pairs: Sequence[Pair]) -> Timing:
    """The first pair of a process as a run would record it: one subject, the rounds of one twin."""
    rounds = list(pairs[0][0])
    low, middle, high = timing_interval([[value] for value in rounds])
    return Timing(
        median=middle,
        low=low,
        high=high,
        min=min(rounds),
        p95=percentile(rounds, 0.95),
        n=len(rounds),
        rounds=len(rounds),
        rounds_s=tuple(rounds),
    )


def resolvable(ratios: Sequence[Ratio], band: float) -> float | None:
    """The smallest change that nine in ten of such comparisons would call; None where it has no bound."""
    changes = [least_change(ratio, band) for ratio in ratios]
    found = percentile(changes, SEEN_IN) if changes else math.inf
    return found if math.isfinite(found) else None


def noise_of(found: AA, workers: int, subjects: Sequence[str], when: str, **machine: object) -> Noise:
    """The record of a self-test; machine : `machine`, both hashes and `threads`."""
    within, between = _verdicts(found.within), _verdicts(found.between)
    return Noise.model_validate(
        {
            **machine,
            "when": when,
            "subjects": tuple(subjects),
            "workers": workers,
            "rounds": round(median([ratio.rounds for ratio in found.within])),
            "paired_change": resolvable(found.within, 0.0),
            "paired_verdict": resolvable(found.within, BAND),
            "between_change": resolvable(found.between, 0.0),
            "between_verdict": resolvable(found.between, BAND),
            "between_runs": found.between_runs,
            "pairs": len(found.within),
            "false_verdicts": within["FASTER"] + within["SLOWER"],
            "ambiguous": within["AMBIGUOUS"],
            "between_pairs": len(found.between),
            "between_false": between["FASTER"] + between["SLOWER"],
            "between_ambiguous": between["AMBIGUOUS"],
        }
    )


def _verdicts(ratios: Sequence[Ratio]) -> Counter[Verdict]:
    return Counter(verdict(ratio) for ratio in ratios)


def in_words(noise: Noise) -> list[tuple[str, str]]:
    """What a self-test found, as (what, sentence)."""

    def seen(change: float | None, called: float | None) -> str:
        if change is None or called is None:
            return "no change is resolved: its rounds are too few"
        return (
            f"a change of {percent(change)} is resolved; beyond the band of {percent(BAND)}, one of {percent(called)}"
        )

    return [
        (
            "within a run",
            f"{seen(noise.paired_change, noise.paired_verdict)} ({noise.pairs} pairs of identical code, {noise.rounds} "
            f"rounds each: {noise.false_verdicts} false verdicts, {noise.ambiguous} AMBIGUOUS)",
        ),
        (
            "between runs",
            f"{seen(noise.between_change, noise.between_verdict)} ({noise.between_pairs} pairs of {noise.workers} "
            f"processes: {noise.between_false} false verdicts, {noise.between_ambiguous} AMBIGUOUS); 95 % of the time, "
            f"two runs of the same code differ by no more than {ratio_within(noise.between_runs)}",
        ),
    ]
