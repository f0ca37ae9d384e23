"""Is one time different from another? A ratio with its interval, and a verdict that noise alone does not reach.

Two kinds of evidence. *Paired*: two subjects timed in turn, round by round, so that whatever happens to the machine
reaches both; each round gives a ratio. *Unpaired*: two runs at different times, where the machine itself may have
changed in between, so the noise between runs of the same code counts too.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    not narrow; 0 for pairs. freedom : degrees of freedom with which that part is known; None where it is no estimate.
    """

    value: float
    low: float | None
    high: float | None
    rounds: int
    fixed: float = 0.0
    freedom: int | None = None


def paired(base_s: Sequence[float], new_s: Sequence[float]) -> Ratio:
    """Ratio of two subjects from the times of the rounds that they shared, in the same order.

    A noisy one may have been timed for longer: the first rounds are the shared ones.
    """
    differences = [math.log(new / base) for base, new in zip(base_s, new_s)]
    if len(differences) < FEWEST_SAMPLES:
        return Ratio(math.exp(median(differences)), None, None, len(differences))
    low, middle, high = map(math.exp, centre_interval(differences, PAIR_CONFIDENCE))
    return Ratio(middle, low, high, len(differences))


def unpaired(base: Timing, new: Timing, noise: float, freedom: int | None = None) -> Ratio:
    """Ratio of two separate runs. noise : log half width (95 %) of the ratio of two runs of the same code.

    freedom : degrees of freedom of that noise where it was measured.

    What differs within a run understates what differs between runs, so three parts are added in squares: the interval
    of either side, or the spread between blocks of its rounds where that is wider, and the noise of the machine.
    """
    value, rounds = new.median / base.median, min(base.rounds, new.rounds)
    if rounds < FEWEST_SAMPLES:
        return Ratio(value, None, None, rounds)
    (base_down, base_up), (new_down, new_up) = _reach(base), _reach(new)
    down, up = math.hypot(base_up, new_down, noise), math.hypot(base_down, new_up, noise)
    return Ratio(value, value * math.exp(-down), value * math.exp(up), rounds, noise, freedom)


def _reach(time: Timing) -> tuple[float, float]:
    """How far the true time may lie below and above the median, in logarithms."""
    slow = slow_spread([math.log(value) for value in time.rounds_s])
    return max(slow, math.log(time.median / time.low)), max(slow, math.log(time.high / time.median))


def overall(ratios: Sequence[Ratio]) -> Ratio | None:
    """Geometric mean of ratios; None where none has an interval.

    Nothing of an interval averages out. The noise between two runs moves all points together, and so may a drift or a
    step within a run, whose points are timed in turn: their own parts count as if they were one and the same, too.
    """
    known = [ratio for ratio in ratios if ratio.low is not None]
    if not known:
        return None
    mean = math.fsum(math.log(ratio.value) for ratio in known) / len(known)
    fixed = max(ratio.fixed for ratio in known)
    down, up = (math.fsum(_own(ratio, side) for ratio in known) / len(known) for side in ("low", "high"))
    low, high = math.exp(mean - math.hypot(down, fixed)), math.exp(mean + math.hypot(up, fixed))
    freedom = min((ratio.freedom for ratio in known if ratio.freedom), default=None)
    return Ratio(math.exp(mean), low, high, min(ratio.rounds for ratio in known), fixed, freedom)


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
    if ratio.high < 1 / (1 + band) and math.log(ratio.value) + _stretched(ratio, "high", among) < 0:
        return "FASTER"
    if ratio.low > 1 + band and math.log(ratio.value) - _stretched(ratio, "low", among) > 0:
        return "SLOWER"
    return "SAME" if ratio.low >= 1 / (1 + band) and ratio.high <= 1 + band else "AMBIGUOUS"


def _stretched(ratio: Ratio, side: str, among: int) -> float:
    """An interval of 95 % to one side, in logarithms, at the confidence that keeps verdicts by chance rare.

    The noise between runs is known from a few runs only, so its tails are longer than those of many rounds.
    """
    by = _stretch(ratio.rounds - 1, among)
    of_fixed = max(by, _stretch(ratio.freedom, 1)) if ratio.freedom else by
    return math.hypot(by * _own(ratio, side), of_fixed * ratio.fixed)


def _stretch(freedom: int, among: int) -> float:
    """How much wider an interval of 95 % becomes at that confidence, with so many degrees of freedom."""
    return student(freedom, 1 - FALSE_VERDICTS / among / 2) / student(freedom, (1 + CONFIDENCE) / 2)


def least_change(ratio: Ratio, band: float = BAND, among: int = 1) -> float:
    """How much slower the newer side would have had to be to be called SLOWER, relative; infinite without an interval.

    Of identical code, whose ratio is noise alone.
    """
    if ratio.low is None:
        return math.inf
    down = math.log(ratio.value / ratio.low)
    needed = max(math.log1p(band) + down, _stretched(ratio, "low", among)) - math.log(ratio.value)
    return max(0.0, math.expm1(needed))


def rounds_to_decide(ratio: Ratio, band: float = BAND, among: int = 1) -> int | None:
    """About how many rounds would settle an ambiguous ratio, from its spread; None where no affordable number would."""
    if ratio.low is None or ratio.high is None:
        return 4 * FEWEST_SAMPLES
    more = range(ratio.rounds + 1, MOST_ROUNDS + 1)
    first = bisect_left(more, True, key=lambda rounds: verdict(_with_rounds(ratio, rounds), band, among) != "AMBIGUOUS")
    # A tenth more, for the next interval is not this one scaled.
    needed = math.ceil(1.1 * more[first]) if first < len(more) else MOST_ROUNDS + 1
    return needed if needed <= MOST_ROUNDS else None


def _with_rounds(ratio: Ratio, rounds: int) -> Ratio:
    """The ratio as so many rounds would leave it: intervals narrow with their square root, but for the fixed part."""
    shrunk = math.sqrt(ratio.rounds / rounds)
    down, up = (math.hypot(shrunk * _own(ratio, side), ratio.fixed) for side in ("low", "high"))
    return replace(ratio, low=ratio.value * math.exp(-down), high=ratio.value * math.exp(up), rounds=rounds)


def _without_fixed(ratio: Ratio) -> Ratio:
    """The ratio as it would be if both sides had been timed in turn, in one run."""
    down, up = _own(ratio, "low"), _own(ratio, "high")
    return replace(ratio, low=ratio.value * math.exp(-down), high=ratio.value * math.exp(up), fixed=0.0)


def advice(ratio: Ratio, band: float = BAND, among: int = 1, call: bool = False) -> str:
    """What would settle an ambiguous ratio, as one clause. call : names arguments of a Python call, not options."""
    name_rounds, name_band = ("rounds=", f"band={band:g}") if call else ("--rounds ", f"--band {100 * band:g}%")
    needed = rounds_to_decide(ratio, band, among)
    if ratio.low is None:
        return f"only {ratio.rounds} rounds, which give no interval: measure with {name_rounds}{needed}"
    if needed is not None:
        return f"about {needed} rounds would decide: {name_rounds}{needed}"
    if ratio.fixed and rounds_to_decide(_without_fixed(ratio), band, among) is not None:
        return "more rounds would not decide, the machine differs by as much from run to run: time both in one run"
    if abs(abs(math.log(ratio.value)) - math.log1p(band)) < NEAR * math.log1p(band):
        return f"too near the edge of the band: choose another one than {name_band}"
    return f"more than {MOST_ROUNDS} rounds would be needed: quieten the machine, or take larger sizes or a wider band"
