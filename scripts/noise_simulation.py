"""What the statistics are worth where the truth is known: verdicts on synthetic machines, and promises about them."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from seqroof.roofline.noise import between_runs
from seqroof.roofline.ratio import Ratio, overall, paired, unpaired, verdict
from seqroof.roofline.stats import median
from seqroof.roofline.units import percent

from .noisy_machines import WEATHERS, SyntheticMachine, Weather, pair, timing, two_runs

# As the clock takes them: 20 rounds, in each the median of several samples.
ROUNDS, SAMPLES = 20, 5
# The change that has to be seen.
CHANGE = 1.02
# A change that separate runs can be asked for, where the machine itself differs by LEVEL_NOISE.
APART = 1.10
# Of a machine from one run to another, where runs are simulated.
LEVEL_NOISE = 0.01
# Separate runs that are judged by the noise of one self-test: few, so that no lucky self-test decides.
RUNS_PER_SELF_TEST = 5
# What a self-test measures: the subjects of `seqroof doctor --aa` in each of its processes.
SUBJECTS, PROCESSES = 4, 5
# Points of two runs that are judged together, and their rounds: a small group with few rounds, as in a quick suite.
POINTS, FEW_ROUNDS = 6, 10
SEED = 20261121
# What is promised: false verdicts at most, coverage, power and width (at 1 % noise and nothing else) at least.
MOST_FALSE, LEAST_COVERAGE, LEAST_POWER, MOST_WIDTH = 0.01, 0.94, 0.90, 0.01
# A machine that leaves more than this share of identical pairs undecided proves nothing about false verdicts.
MOST_AMBIGUOUS = 0.90

Pairing = Callable[[Sequence[float], Sequence[float]], Ratio]


@dataclass(frozen=True)
class Tally:
    """Shares of many comparisons of subjects whose true ratio is known. width : median, of the ratio."""

    name: str
    count: int
    false: float
    called: float
    ambiguous: float
    coverage: float
    width: float


def tally(name: str, ratios: Sequence[Ratio], truth: float) -> Tally:
    """Count verdicts and intervals of ratios; false ones go against the truth, or see a change where there is none.

    Without a ratio, or without an interval among them, everything is undecided and nothing covered.
    """
    verdicts = Counter(verdict(ratio) for ratio in ratios)
    right = "SLOWER" if truth > 1 else "SAME"
    false = verdicts["FASTER"] + (verdicts["SLOWER"] if truth == 1 else 0)
    known = [(ratio.low, ratio.high) for ratio in ratios if ratio.low is not None and ratio.high is not None]
    if not known:
        return Tally(name, len(ratios), 0.0, 0.0, 1.0, 0.0, math.inf)
    return Tally(
        name,
        len(ratios),
        false / len(ratios),
        verdicts[right] / len(ratios),
        verdicts["AMBIGUOUS"] / len(ratios),
        sum(low <= truth <= high for low, high in known) / len(known),
        median([high - low for low, high in known]),
    )


def simulate_pairs(
    weather: Weather,
    truth: float,
    repetitions: int,
    rounds: int = ROUNDS,
    samples: int = SAMPLES,
    pairing: Pairing = paired,
    seed: int = SEED,
) -> Tally:
    """Compare two subjects in many runs under one weather. pairing : what makes a ratio of their rounds."""
    source = random.Random(f"{seed} {weather.name} {truth} {rounds} {samples}")
    ratios = [pairing(*pair(weather, truth, rounds, samples, source)) for _ in range(repetitions)]
    return tally(weather.name, ratios, truth)


def simulate_runs(weather: Weather, truth: float, repetitions: int, seed: int = SEED) -> Tally:
    """Compare separate runs of one subject, with the noise that a simulated `doctor --aa` found before."""
    source = random.Random(f"{seed} runs {weather.name} {truth}")
    weather = replace(weather, level_noise=LEVEL_NOISE)
    ratios = []
    for noise in _self_tests(weather, repetitions, source):
        ((base,), (new,)) = two_runs(weather, truth, ROUNDS, SAMPLES, source)
        ratios.append(unpaired(base, new, noise, PROCESSES - 1))
    return tally(weather.name, ratios, truth)


def simulate_overall(
    weather: Weather,
    truth: float,
    repetitions: int,
    together: Callable[[Sequence[Ratio]], Ratio | None] = overall,
    seed: int = SEED,
) -> Tally:
    """Compare all points of separate runs at once, timed in turn in each. together : makes one ratio of all."""
    source = random.Random(f"{seed} overall {weather.name} {truth}")
    weather = replace(weather, level_noise=LEVEL_NOISE)
    ratios = []
    for noise in _self_tests(weather, repetitions, source):
        runs = two_runs(weather, truth, FEW_ROUNDS, SAMPLES, source, POINTS)
        whole = together([unpaired(base, new, noise, PROCESSES - 1) for base, new in zip(*runs)])
        assert whole is not None, "ten rounds give an interval"
        ratios.append(whole)
    return tally(weather.name, ratios, truth)


def _self_tests(weather: Weather, repetitions: int, source: random.Random) -> Iterator[float]:
    """The noise between runs for each repetition: of one self-test for a few of them, then of the next."""
    noise = 0.0
    for number in range(repetitions):
        if number % RUNS_PER_SELF_TEST == 0:
            noise = self_tested(weather, source)
        yield noise


def self_tested(weather: Weather, source: random.Random) -> float:
    """What a simulated `doctor --aa` finds between runs: subjects of one process share the state of its machine."""
    levels = []
    for _ in range(PROCESSES):
        subjects = SyntheticMachine(weather, source).rounds((1.0,) * SUBJECTS, ROUNDS, SAMPLES)
        levels.append([timing(samples).median for samples in subjects])
    return between_runs(list(zip(*levels)))


def table(title: str, rows: Sequence[Tally], called: str) -> list[str]:
    """Tallies as a Markdown table."""
    lines = [f"| {title} | comparisons | false | {called} | AMBIGUOUS | coverage | median width |", "| --- " * 7 + "|"]
    for row in rows:
        shares = (percent(share) for share in (row.false, row.called, row.ambiguous, row.coverage, row.width))
        lines.append(f"| {row.name} | {row.count} | {' | '.join(shares)} |")
    return lines


def simulated(repetitions: int, told: Callable[[str], None] = lambda text: None) -> tuple[list[str], list[str]]:
    """The simulated part of the page, and the promises that were not kept. told : what is going on, in words."""
    told("simulating pairs")
    same = [simulate_pairs(weather, 1.0, repetitions) for weather in WEATHERS]
    changed = [simulate_pairs(weather, CHANGE, repetitions) for weather in WEATHERS]
    single = [
        replace(simulate_pairs(WEATHERS[0], truth, repetitions, samples=1), name=f"quiet, one sample a round, {what}")
        for truth, what in ((1.0, "identical"), (CHANGE, "2 % slower"))
    ]
    fewest = replace(simulate_pairs(WEATHERS[-1], 1.0, repetitions, rounds=6), name=f"{WEATHERS[-1].name}, 6 rounds")
    told("simulating separate runs")
    separate = [simulate_runs(weather, 1.0, repetitions) for weather in WEATHERS]
    slower = [simulate_runs(weather, APART, repetitions) for weather in WEATHERS]
    told(f"simulating runs of {POINTS} points")
    whole = [simulate_overall(weather, 1.0, repetitions) for weather in WEATHERS]
    lines = [
        "## Simulated",
        "",
        SETTING.format(rounds=ROUNDS, samples=SAMPLES, seed=SEED, level=percent(LEVEL_NOISE)),
        "",
        *table("paired, identical code", [*same, fewest], "SAME"),
        "",
        *table("paired, 2 % slower", changed, "SLOWER"),
        "",
        "With one sample in each round there is less to go by:",
        "",
        *table("paired", single, "right"),
        "",
        *table("separate runs, identical code", separate, "SAME"),
        "",
        *table("separate runs, 10 % slower", slower, "SLOWER"),
        "",
        f"All points together: {POINTS} of them, timed in turn for {FEW_ROUNDS} rounds in either run.",
        "",
        *table("separate runs, overall, identical code", whole, "SAME"),
    ]
    return lines, broken([*same, fewest, single[0], *separate, *whole], [*changed, single[1], *slower], changed[0])


def broken(identical: Sequence[Tally], changed: Sequence[Tally], seen: Tally) -> list[str]:
    """Sentences for the promises that these tallies do not keep.

    identical, changed : of identical code, and of code that did change. seen : the change that has to be called.
    """
    rows = [*identical, *changed]
    coverage = sum(row.coverage * row.count for row in rows) / sum(row.count for row in rows)
    false = sum(row.false * row.count for row in identical) / sum(row.count for row in identical)
    found = [
        (false <= MOST_FALSE, f"false verdicts on identical code {percent(false)}, at most {percent(MOST_FALSE)}"),
        (coverage >= LEAST_COVERAGE, f"coverage {percent(coverage)}, at least {percent(LEAST_COVERAGE)}"),
        (seen.called >= LEAST_POWER, f"a change of 2 % called in {percent(seen.called)}"),
        (seen.width <= MOST_WIDTH, f"median width {percent(seen.width)}, at most {percent(MOST_WIDTH)}"),
    ]
    for row in rows:
        kept = row.coverage >= least_coverage(row.count) and row.false <= MOST_FALSE
        found.append((kept, f"{row.name}: false {percent(row.false)}, covered {percent(row.coverage)}"))
    return [sentence for kept, sentence in found if not kept]


def least_coverage(count: int) -> float:
    """What a row of so many comparisons has to cover: a row is also moved by chance, by two standard deviations."""
    return LEAST_COVERAGE - 2 * math.sqrt(LEAST_COVERAGE * (1 - LEAST_COVERAGE) / max(count, 1))


SETTING = (
    "The truth is known here. Two subjects are timed in turn for {rounds} rounds, in shuffled order, with {samples} "
    "samples each in every round, of which the run keeps the median, as the clock does. Every sample has noise of its "
    "own with a standard deviation of 1 % (of its logarithm), unless the row says more; drift, steps, tails and spells "
    "come on top (`scripts/noisy_machines.py`). For separate runs the machine differs from run to run by {level} "
    "besides, and the noise that is counted with is what a simulated `seqroof doctor --aa` found, whose subjects share "
    "the level of their process. Seed {seed}."
)
