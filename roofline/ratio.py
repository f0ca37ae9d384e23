"""Is one time different from another? A ratio with its interval, and a verdict that noise alone does not reach.

Two kinds of evidence. *Paired*: two subjects timed in turn, round by round, so that whatever happens to the machine
reaches both; each round gives a ratio. *Unpaired*: two runs at different times, where the machine itself may have
changed in between, so the noise between runs of the same code counts too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from .record import Timing
from .stats import CONFIDENCE, FEWEST_SAMPLES, centre_interval, median, slow_spread, student

Verdict = Literal["SAME", "FASTER", "SLOWER", "AMBIGUOUS"]

# Changes within this are no news: what a user would not act upon, and about what the best of machines resolves.
BAND = 0.01
# Share of comparisons of identical code, all points of two runs being one, that may see a change: half of the hundredth
# that is promised, since tests are exact only for noise that keeps to their assumptions.
FALSE_VERDICTS = 0.005
# Intervals of pairs are made for this much, so that 95 % remain where the machine jumps in the midst of rounds: those
# made for 95 % cover 93.9 % there (docs/noise.md says how that is simulated).
PAIR_CONFIDENCE = 0.96
# More rounds than this would not be measured to settle a doubt; then the band, or the set-up, has to change.
MOST_ROUNDS = 1000
# A ratio within this share of the band from its edge is at the edge: no measurement puts it on either side for long.
NEAR = 0.2


@dataclass(frozen=True)
class Ratio:
    """New over base time: below 1 is faster. low, high : its interval (95 %), None below six rounds.

    rounds : of the shorter side. fixed : the part of the interval, in logarithms to either side, that more rounds do
    not narrow; 0 for pairs.
    """

    value: float
    low: float | None
    high: float | None
    rounds: int
    fixed: float = 0.0


def paired(base_s: Sequence[float], new_s: Sequence[float]) -> Ratio:
    """Ratio of two subjects from the times of the rounds that they shared, in the same order.

    A noisy one may have been timed for longer: the first rounds are the shared ones.
    """
    differences = [math.log(new / base) for base, new in zip(base_s, new_s)]
    if len(differences) < FEWEST_SAMPLES:
        return Ratio(math.exp(median(differences)), None, None, len(differences))
    low, middle, high = map(math.exp, centre_interval(differences, PAIR_CONFIDENCE))
    return Ratio(middle, low, high, len(differences))


def unpaired(base: Timing, new: Timing, noise: float) -> Ratio:
    """Ratio of two separate runs. noise : log half width (95 %) of the ratio of two runs of the same code.

    What differs within a run understates what differs between runs, so three parts are added in squares: the interval
    of either side, or the spread between blocks of its rounds where that is wider, and the noise of the machine.
    """
    value, rounds = new.median / base.median, min(base.rounds, new.rounds)
    if rounds < FEWEST_SAMPLES:
        return Ratio(value, None, None, rounds)
    (base_down, base_up), (new_down, new_up) = _reach(base), _reach(new)
    down, up = math.hypot(base_up, new_down, noise), math.hypot(base_down, new_up, noise)
    return Ratio(value, value * math.exp(-down), value * math.exp(up), rounds, noise)


def _reach(time: Timing) -> tuple[float, float]:
    """How far the true time may lie below and above the median, in logarithms."""
    slow = slow_spread([math.log(value) for value in time.rounds_s])
    return max(slow, math.log(time.median / time.low)), max(slow, math.log(time.high / time.median))


def overall(ratios: Sequence[Ratio]) -> Ratio | None:
    """Geometric mean of ratios; None where none has an interval.

    What the rounds of one point leave open is its own and averages out; the noise between two runs may move all points
    together, so it does not.
    """
    known = [ratio for ratio in ratios if ratio.low is not None]
    if not known:
        return None
    mean = math.fsum(math.log(ratio.value) for ratio in known) / len(known)
    fixed = max(ratio.fixed for ratio in known)
    down, up = (
        math.sqrt(math.fsum(_own(ratio, side) ** 2 for ratio in known)) / len(known) for side in ("low", "high")
    )
    low, high = math.exp(mean - math.hypot(down, fixed)), math.exp(mean + math.hypot(up, fixed))
    return Ratio(math.exp(mean), low, high, min(ratio.rounds for ratio in known), fixed)


def _own(ratio: Ratio, side: str) -> float:
    """The part of an interval that more rounds would narrow, in logarithms."""
    reach = abs(math.log(getattr(ratio, side) / ratio.value))
    return math.sqrt(max(0.0, reach**2 - ratio.fixed**2))


def verdict(ratio: Ratio, band: float = BAND, among: int = 1) -> Verdict:
    """SAME within the band; FASTER or SLOWER beyond it; AMBIGUOUS where the interval does not decide.

    FASTER and SLOWER need two things. The interval lies wholly beyond the band. And, stretched to the confidence at
    which `among` comparisons of identical code together hardly ever give a false verdict, it still leaves out 1; on
    a noisy machine the band alone would not protect from chance.
    """
    if ratio.low is None or ratio.high is None:
        return "AMBIGUOUS"
    stretch = _stretch(ratio.rounds, among)
    if ratio.high < 1 / (1 + band) and math.log(ratio.value) + stretch * math.log(ratio.high / ratio.value) < 0:
        return "FASTER"
    if ratio.low > 1 + band and math.log(ratio.value) - stretch * math.log(ratio.value / ratio.low) > 0:
        return "SLOWER"
    return "SAME" if ratio.low >= 1 / (1 + band) and ratio.high <= 1 + band else "AMBIGUOUS"


def _stretch(rounds: int, among: int) -> float:
    """How much wider an interval of 95 % becomes at the confidence that keeps verdicts by chance rare."""
    least = 1 - FALSE_VERDICTS / among / 2
    return student(rounds - 1, least) / student(rounds - 1, (1 + CONFIDENCE) / 2)


def least_change(ratio: Ratio, band: float = BAND, among: int = 1) -> float:
    """How much slower the newer side would have had to be to be called SLOWER, relative; infinite without an interval.

    Of identical code, whose ratio is noise alone.
    """
    if ratio.low is None:
        return math.inf
    down = math.log(ratio.value / ratio.low)
    needed = max(math.log1p(band) + down, _stretch(ratio.rounds, among) * down) - math.log(ratio.value)
    return max(0.0, math.expm1(needed))


def rounds_to_decide(ratio: Ratio, band: float = BAND, among: int = 1) -> int | None:
    """About how many rounds would settle an ambiguous ratio, from its spread; None where no affordable number would.

    Intervals narrow with the square root of the rounds, but for the fixed part.
    """
    if ratio.low is None or ratio.high is None:
        return 4 * FEWEST_SAMPLES
    middle, edge = abs(math.log(ratio.value)), math.log1p(band)
    changed = middle > edge
    own = max(_own(ratio, "low"), _own(ratio, "high"))
    allowed = min(middle - edge, middle / _many(among)) if changed else edge - middle
    if allowed <= ratio.fixed:
        return None
    needed = math.ceil(ratio.rounds * own**2 / (allowed**2 - ratio.fixed**2))
    # A tenth more, for the next interval is not this one scaled; and never fewer than would be an improvement.
    needed = max(ratio.rounds + 1, math.ceil(1.1 * needed))
    return needed if needed <= MOST_ROUNDS else None


def _many(among: int) -> float:
    """The stretch that remains when rounds are many."""
    normal = NormalDist()
    return normal.inv_cdf(1 - FALSE_VERDICTS / among / 2) / normal.inv_cdf((1 + CONFIDENCE) / 2)


def advice(ratio: Ratio, band: float = BAND, among: int = 1) -> str:
    """What would settle an ambiguous ratio, as one clause."""
    needed = rounds_to_decide(ratio, band, among)
    if ratio.low is None:
        return f"only {ratio.rounds} rounds, which give no interval: measure with --rounds {needed}"
    if needed is not None:
        return f"about {needed} rounds would decide: --rounds {needed}"
    if ratio.fixed > abs(abs(math.log(ratio.value)) - math.log1p(band)):
        return "more rounds would not decide, the machine differs by as much from run to run: time both in one run"
    if abs(abs(math.log(ratio.value)) - math.log1p(band)) < NEAR * math.log1p(band):
        return f"too near the edge of the band: choose another one than --band {100 * band:g}%"
    return (
        f"more than {MOST_ROUNDS} rounds would be needed: quieten the machine, or take larger sizes or a wider --band"
    )
