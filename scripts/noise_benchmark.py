"""What the statistics are worth: verdicts on synthetic machines whose truth is known, and on identical code here.

`python -m seqroof.scripts.noise_benchmark` prints the figures; `--write` puts them into docs/noise.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from seqroof.profiler.host import processor_name, usable_cores
from seqroof.roofline.noise import compare_identical
from seqroof.roofline.ratio import paired
from seqroof.roofline.units import percent, ratio_within

from .noise_simulation import (
    LEAST_COVERAGE,
    MOST_AMBIGUOUS,
    MOST_FALSE,
    ROUNDS,
    Tally,
    least_coverage,
    simulated,
    table,
    tally,
)
from .progress import say

if TYPE_CHECKING:
    from .self_test import SelfTest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "noise.md"
COMMAND = "python -m seqroof.scripts.noise_benchmark"
MEASURED = "## Measured"
# Processes of the real part: half of them find the noise, the others are judged by it.
WORKERS = 8


def real(device: str, pairs: int, minutes: float) -> tuple[list[str], list[str]]:
    """The part of the page that is measured here, and the promises that were not kept.

    pairs : so many are wanted. minutes : no case is begun after them, so on a busy machine there may be fewer pairs.
    """
    from .self_test import KERNELS, self_test

    repeats = -(-pairs // (WORKERS * len(KERNELS)))
    before = os.getloadavg()[0]
    test = self_test(device, WORKERS, repeats, 60 * minutes, patience=1.0)
    found, noise = test.found, test.noise
    within = tally("all", found.within, 1.0)
    by_subject = [
        tally(name, [paired(*both) for worker in test.workers for both in worker.pairs.get(name, [])], 1.0)
        for name in noise.subjects
    ]
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    separate, sentences = _separate(test)
    lines = [
        MEASURED,
        "",
        f"{_machine(device, noise.machine)}, {today}, load {before:.1f} before and {os.getloadavg()[0]:.1f} after, on "
        f"a machine that other programs share unless the load says otherwise. Every case is timed against itself, "
        f"{ROUNDS} rounds, in {noise.workers} processes one after another.",
        *caveat(within.ambiguous),
        "",
        *table("paired, identical code", [*by_subject, within], "SAME"),
        "",
        *separate,
        "",
        f"The smallest change that nine in ten pairs tell from none: {_change(noise.paired_change)} within a run, "
        f"{_change(noise.between_change)} between runs. Beyond the band of 1 %, a verdict needs "
        f"{_change(noise.paired_verdict)} and {_change(noise.between_verdict)}.",
    ]
    return lines, broken_here(within, pairs) + sentences


def _separate(test: SelfTest) -> tuple[list[str], list[str]]:
    """Separate processes judged by the noise that others of them showed; and what was not kept, or not measured."""
    half = len(test.workers) // 2
    first, second = ([worker.pairs for worker in part] for part in (test.workers[:half], test.workers[half:]))
    try:
        learnt = compare_identical(first).between_runs
        judged = tally("all", compare_identical(second, learnt).between, 1.0)
    except ValueError:
        text = f"{len(test.workers)} processes are too few to judge one half of them by the other."
        return [text], [text]
    lines = [
        *table("separate runs, identical code", [judged], "SAME"),
        "",
        f"95 % of the time, two runs of the same code differ here by no more than {ratio_within(learnt)}: this the "
        "table counts with. It was found with the first half of the processes, and the table judges the other half; "
        f"all of them together say {ratio_within(test.noise.between_runs)}.",
    ]
    kept = judged.false <= MOST_FALSE
    return lines, [] if kept else [f"false verdicts between real runs of identical code: {percent(judged.false)}"]


def _machine(device: str, name: str) -> str:
    cores = usable_cores()
    return f"{processor_name()}, {cores} core{'' if cores == 1 else 's'}" if device == "cpu" else f"{name} ({device})"


def broken_here(within: Tally, pairs: int) -> list[str]:
    """Sentences for the promises that pairs of real identical code do not keep, or cannot show to be kept."""
    found = [
        (within.count >= pairs, f"{within.count} real pairs in the time, {pairs} were asked for: give more --minutes"),
        (within.false <= MOST_FALSE, f"false verdicts on real identical code: {percent(within.false)}"),
        (
            within.coverage >= least_coverage(within.count),
            f"coverage of real identical code {percent(within.coverage)}, at least {percent(LEAST_COVERAGE)}",
        ),
        (within.ambiguous <= MOST_AMBIGUOUS, " ".join(caveat(within.ambiguous)).strip()),
    ]
    return [sentence for kept, sentence in found if not kept]


def caveat(ambiguous: float) -> list[str]:
    """What a reader has to know of a table in which next to nothing was decided, as lines of the page."""
    if ambiguous <= MOST_AMBIGUOUS:
        return []
    return [
        "",
        f"**This proves nothing about false verdicts:** {percent(ambiguous)} of the pairs were left undecided, because "
        "this machine was too busy to decide them. Measure again on an idle one.",
    ]


def _change(share: float | None) -> str:
    return "none" if share is None else percent(share)


def page(parts: Sequence[Sequence[str]]) -> str:
    """The page."""
    lines = ["# How far verdicts can be trusted", "", INTRODUCTION.format(command=COMMAND)]
    for part in parts:
        lines += ["", *part]
    return "\n".join(lines) + "\n"


INTRODUCTION = (
    "Generated by `{command} --write`, in about a minute for what is simulated and four for what is measured. "
    "*False*: FASTER or SLOWER on identical code, or against the truth; the promise "
    "is 1 % at most. *Coverage*: share of the 95 % intervals that hold the true ratio; the promise is 94 %, at least. "
    "A change of 2 % is to be called in 90 % of comparisons with 1 % noise, with intervals of 1 % median width. The "
    "band of SAME is 1 % everywhere."
)


def timed(what: str, part: Callable[[], tuple[list[str], list[str]]]) -> tuple[list[str], list[str]]:
    """Make one part of the page, and say how long it took."""
    started = time.monotonic()
    made = part()
    say(f"the {what} part took {time.monotonic() - started:.0f} s")
    return made


def main(words: list[str] | None = None) -> int:
    """Print or write the page; returns 1 when a promise is broken."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Measure how far verdicts can be trusted.")
    parser.add_argument("--repetitions", type=int, default=1000, help="simulated comparisons of every kind")
    parser.add_argument("--pairs", type=int, default=200, help="pairs of real identical code at least; 0 for none")
    parser.add_argument("--minutes", type=float, default=4.0, help="for the real ones; nothing is begun after them")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.parent.name}/{PAGE.name}")
    options = parser.parse_args(words)
    made = [timed("simulated", lambda: simulated(options.repetitions, say))]
    if options.pairs:
        made.append(timed("measured", lambda: real(options.device, options.pairs, options.minutes)))
    text = page([lines for lines, _ in made])
    if options.write and not options.pairs and PAGE.exists():  # what was measured before stands
        text += "\n" + MEASURED + PAGE.read_text().partition(MEASURED)[2]
    if options.write:
        PAGE.write_text(text)
    print(text)
    wrong = [sentence for _, sentences in made for sentence in sentences]
    say("\n".join(f"broken: {sentence}" for sentence in wrong) or "Every promise is kept.")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
