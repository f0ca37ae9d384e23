"""What the statistics are worth: verdicts on synthetic machines whose truth is known, and on identical code here.

`python -m seqroof.scripts.noise_benchmark` prints the figures; `--write` puts them into docs/noise.md.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from seqroof.profiler.host import processor_name, usable_cores
from seqroof.roofline.noise import between_runs, compare_identical
from seqroof.roofline.ratio import Ratio, paired, unpaired, verdict
from seqroof.roofline.stats import median
from seqroof.roofline.units import percent

from .noisy_machines import WEATHERS, SyntheticMachine, Weather, pair, timing, two_runs

PAGE = Path(__file__).resolve().parents[1] / "docs" / "noise.md"
COMMAND = "python -m seqroof.scripts.noise_benchmark"
# As the clock takes them: 20 rounds, in each the median of several samples.
ROUNDS, SAMPLES = 20, 5
# The change that has to be seen.
CHANGE = 1.02
# A change that separate runs can be asked for, where the machine itself differs by LEVEL_NOISE.
APART = 1.10
# Of a machine from one run to another, where runs are simulated.
LEVEL_NOISE = 0.01
# Self-tests whose noise the separate runs are judged by: enough that no lucky one decides.
SELF_TESTS = 50
SEED = 20261121
MEASURED = "## Measured"
# What is promised: false verdicts at most, coverage, power and width (at 1 % noise and nothing else) at least.
MOST_FALSE, LEAST_COVERAGE, LEAST_POWER, MOST_WIDTH = 0.01, 0.94, 0.90, 0.01

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
    """Count verdicts and intervals of ratios; false ones go against the truth, or see a change where there is none."""
    verdicts = Counter(verdict(ratio) for ratio in ratios)
    right = "SLOWER" if truth > 1 else "SAME"
    false = verdicts["FASTER"] + (verdicts["SLOWER"] if truth == 1 else 0)
    known = [(ratio.low, ratio.high) for ratio in ratios if ratio.low is not None and ratio.high is not None]
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
    """Compare separate runs, with the noise that a simulated `doctor --aa` found before."""
    source = random.Random(f"{seed} runs {weather.name} {truth}")
    weather = replace(weather, level_noise=LEVEL_NOISE)

    def level() -> float:
        return timing(SyntheticMachine(weather, source).rounds((1.0,), ROUNDS, SAMPLES)[0]).median

    def one() -> Ratio:
        return unpaired(*two_runs(weather, truth, ROUNDS, SAMPLES, source), noise)

    ratios = []
    for _ in range(SELF_TESTS):
        noise = between_runs([[level() for _ in range(5)] for _ in range(4)])
        ratios += [one() for _ in range(max(1, repetitions // SELF_TESTS))]
    return tally(weather.name, ratios, truth)


def table(title: str, rows: Sequence[Tally], called: str) -> list[str]:
    """Tallies as a Markdown table."""
    lines = [f"| {title} | comparisons | false | {called} | AMBIGUOUS | coverage | median width |", "| --- " * 7 + "|"]
    for row in rows:
        shares = (percent(share) for share in (row.false, row.called, row.ambiguous, row.coverage, row.width))
        lines.append(f"| {row.name} | {row.count} | {' | '.join(shares)} |")
    return lines


def simulated(repetitions: int) -> tuple[list[str], list[str]]:
    """The simulated part of the page, and the promises that were not kept."""
    same = [simulate_pairs(weather, 1.0, repetitions) for weather in WEATHERS]
    changed = [simulate_pairs(weather, CHANGE, repetitions) for weather in WEATHERS]
    single = [
        replace(simulate_pairs(WEATHERS[0], truth, repetitions, samples=1), name=f"quiet, one sample a round, {what}")
        for truth, what in ((1.0, "identical"), (CHANGE, "2 % slower"))
    ]
    fewest = replace(simulate_pairs(WEATHERS[-1], 1.0, repetitions, rounds=6), name=f"{WEATHERS[-1].name}, 6 rounds")
    separate = [simulate_runs(weather, 1.0, repetitions) for weather in WEATHERS]
    slower = [simulate_runs(weather, APART, repetitions) for weather in WEATHERS]
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
    ]
    return lines, broken([*same, fewest, *separate], changed[0])


def broken(identical: Sequence[Tally], changed: Tally) -> list[str]:
    """Sentences for the promises that these tallies do not keep."""
    count = sum(row.count for row in identical)
    false, coverage = (
        sum(getattr(row, name) * row.count for row in identical) / count for name in ("false", "coverage")
    )
    found = [
        (false <= MOST_FALSE, f"false verdicts on identical code {percent(false)}, at most {percent(MOST_FALSE)}"),
        (coverage >= LEAST_COVERAGE, f"coverage {percent(coverage)}, at least {percent(LEAST_COVERAGE)}"),
        (changed.called >= LEAST_POWER, f"a change of 2 % called in {percent(changed.called)}"),
        (changed.width <= MOST_WIDTH, f"median width {percent(changed.width)}, at most {percent(MOST_WIDTH)}"),
    ]
    for row in identical:  # a row alone is also moved by chance: two standard deviations of a share
        chance = 2 * math.sqrt(LEAST_COVERAGE * (1 - LEAST_COVERAGE) / row.count)
        kept = row.coverage >= LEAST_COVERAGE - chance and row.false <= MOST_FALSE
        found.append((kept, f"{row.name}: false {percent(row.false)}, covered {percent(row.coverage)}"))
    return [sentence for kept, sentence in found if not kept]


SETTING = (
    "The truth is known here. Two subjects are timed in turn for {rounds} rounds, in shuffled order, with {samples} "
    "samples each in every round, of which the run keeps the median, as the clock does. Every sample has noise of its "
    "own with a standard deviation of 1 % (of its logarithm), unless the row says more; drift, steps, tails and spells "
    "come on top (`scripts/noisy_machines.py`). For separate runs the machine differs from run to run by {level} "
    "besides, and the noise that is counted with is what a simulated `seqroof doctor --aa` found. Seed {seed}."
)


def real(device: str, pairs: int, minutes: float) -> tuple[list[str], list[str]]:
    """The part of the page that is measured here, and the promises that were not kept."""
    from .self_test import KERNELS, self_test

    workers = 8
    repeats = -(-pairs // (workers * len(KERNELS)))
    before = os.getloadavg()[0]
    test = self_test(device, workers, repeats, 60 * minutes, patience=math.inf)  # the number of pairs is promised
    found, noise = test.found, test.noise
    within = tally("all", found.within, 1.0)
    half = len(test.workers) // 2
    learnt = compare_identical([worker.pairs for worker in test.workers[:half]]).between_runs
    judged = compare_identical([worker.pairs for worker in test.workers[half:]], learnt).between
    by_subject = [
        tally(name, [paired(*both) for worker in test.workers for both in worker.pairs.get(name, [])], 1.0)
        for name in noise.subjects
    ]
    cores = usable_cores()
    name = (
        f"{processor_name()}, {cores} core{'' if cores == 1 else 's'}"
        if device == "cpu"
        else f"{noise.machine} ({device})"
    )
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    lines = [
        MEASURED,
        "",
        f"{name}, {today}, load {before:.1f} before and {os.getloadavg()[0]:.1f} after, on a machine that other "
        f"programs share unless the load says otherwise. Every case is timed against itself, {ROUNDS} rounds, in "
        f"{noise.workers} processes one after another.",
        "",
        *table("paired, identical code", [*by_subject, within], "SAME"),
        "",
        *table("separate runs, identical code", [tally("all", judged, 1.0)], "SAME"),
        "",
        f"Between two runs of the same code this machine differs by up to ±{percent(noise.between_runs)}; the second "
        f"table counts with ±{percent(learnt)}, found with the first half of the processes, and judges the other half.",
        "",
        f"The smallest change that nine in ten pairs tell from none: {_change(noise.paired_change)} within a run, "
        f"{_change(noise.between_change)} between runs. Beyond the band of 1 %, a verdict needs "
        f"{_change(noise.paired_verdict)} and {_change(noise.between_verdict)}.",
    ]
    wrong = [] if within.false <= MOST_FALSE else [f"false verdicts on real identical code: {percent(within.false)}"]
    return lines, wrong


def _change(share: float | None) -> str:
    return "none" if share is None else percent(share)


def page(parts: Sequence[Sequence[str]]) -> str:
    """The page."""
    lines = ["# How far verdicts can be trusted", "", INTRODUCTION.format(command=COMMAND)]
    for part in parts:
        lines += ["", *part]
    return "\n".join(lines) + "\n"


INTRODUCTION = (
    "Generated by `{command} --write`. *False*: FASTER or SLOWER on identical code, or against the truth; the promise "
    "is 1 % at most. *Coverage*: share of the 95 % intervals that hold the true ratio; the promise is 94 %, at least. "
    "A change of 2 % is to be called in 90 % of comparisons with 1 % noise, with intervals of 1 % median width. The "
    "band of SAME is 1 % everywhere."
)


def main(words: list[str] | None = None) -> int:
    """Print or write the page; returns 1 when a promise is broken."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Measure how far verdicts can be trusted.")
    parser.add_argument("--repetitions", type=int, default=1000, help="simulated comparisons of every kind")
    parser.add_argument("--pairs", type=int, default=200, help="pairs of real identical code at least; 0 for none")
    parser.add_argument("--minutes", type=float, default=4.0, help="about so long for the real ones")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.parent.name}/{PAGE.name}")
    options = parser.parse_args(words)
    parts, wrong = [], []
    for lines, sentences in (
        simulated(options.repetitions),
        real(options.device, options.pairs, options.minutes) if options.pairs else ([], []),
    ):
        parts += [lines] if lines else []
        wrong += sentences
    text = page(parts)
    if options.write and not options.pairs and PAGE.exists():  # what was measured before stands
        text += "\n" + MEASURED + PAGE.read_text().partition(MEASURED)[2]
    if options.write:
        PAGE.write_text(text)
    print(text)
    print("\n".join(f"broken: {sentence}" for sentence in wrong) or "Every promise is kept.", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
