"""Synthetic machines with drift, steps and tails, on which the truth about two subjects is known.

A sample takes the true time, times the state of the machine at that moment, times noise of its own. All noise is
multiplicative, and its size is the standard deviation of a sample's logarithm. The generators are seeded.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from seqroof.roofline.record import Timing
from seqroof.roofline.stats import median, percentile, timing_interval


@dataclass(frozen=True)
class Weather:
    """What happens to a machine during a run.

    sample_noise : of every sample. drift : growth of all times over the run. steps : expected jumps of the machine in a
    run, each by up to `step_size` to either side, at any moment and lasting. tail_share, tail_mean : so many samples
    are longer by an exponentially distributed share of this mean. spells : share of rounds with a neighbour who comes
    at any moment of the round and makes the rest of it longer by up to a half. level_noise : of the machine from one
    run to another.
    """

    name: str
    sample_noise: float = 0.01
    drift: float = 0.0
    steps: float = 0.0
    step_size: float = 0.05
    tail_share: float = 0.0
    tail_mean: float = 0.2
    spells: float = 0.0
    level_noise: float = 0.0


WEATHERS = (
    Weather("quiet"),
    Weather("drift of 10 %", drift=0.10),
    Weather("steps of up to 5 %, three a run", steps=3.0),
    Weather("tails: 5 % of samples, 20 % longer", tail_share=0.05),
    Weather("spells in 10 % of the rounds", spells=0.10),
    Weather("all of these", drift=0.10, steps=3.0, tail_share=0.05, spells=0.10),
    Weather("all of these, and 10 % noise", 0.10, drift=0.10, steps=3.0, tail_share=0.05, spells=0.10),
)


class SyntheticMachine:
    """A machine under one weather for the length of one run."""

    def __init__(self, weather: Weather, source: random.Random) -> None:
        self.weather = weather
        self.source = source
        self.level = math.exp(source.gauss(0, weather.level_noise))
        count = sum(source.random() < weather.steps / 100 for _ in range(100))
        self.jumps = [(source.random(), source.uniform(-weather.step_size, weather.step_size)) for _ in range(count)]

    def state(self, moment: float) -> float:
        """The factor on all times at a moment of the run, from 0 to 1."""
        jumped = math.fsum(size for when, size in self.jumps if when <= moment)
        return self.level * (1 + self.weather.drift * moment) * math.exp(jumped)

    def rounds(self, true_s: tuple[float, ...], rounds: int, samples: int) -> list[list[list[float]]]:
        """Samples by subject and round: all subjects in turn, in shuffled order, `samples` of each in every round."""
        taken: list[list[list[float]]] = [[] for _ in true_s]
        order = list(range(len(true_s)))
        for number in range(rounds):
            self.source.shuffle(order)
            comes, stays = self.source.random(), self.source.uniform(0, 0.5)
            disturbed = self.source.random() < self.weather.spells
            for place, subject in enumerate(order):
                slot = []
                for index in range(samples):
                    within = (place + index / samples) / len(order)
                    factor = 1 + stays if disturbed and within >= comes else 1.0
                    slot.append(true_s[subject] * factor * self.state((number + within) / rounds) * self._sample())
                taken[subject].append(slot)
        return taken

    def _sample(self) -> float:
        factor = math.exp(self.source.gauss(0, self.weather.sample_noise))
        if self.source.random() < self.weather.tail_share:
            factor *= 1 + self.source.expovariate(1 / self.weather.tail_mean)
        return factor


def round_medians(samples: list[list[float]]) -> list[float]:
    """What a run keeps of the samples of a subject: the median of every round."""
    return [median(values) for values in samples]


def timing(samples: list[list[float]]) -> Timing:
    """The samples of a subject as the clock records them."""
    low, middle, high = timing_interval(samples)
    pooled = [value for values in samples for value in values]
    return Timing(
        median=middle,
        low=low,
        high=high,
        min=min(pooled),
        p95=percentile(pooled, 0.95),
        n=len(pooled),
        rounds=len(samples),
        rounds_s=tuple(round_medians(samples)),
    )


def pair(weather: Weather, true_ratio: float, rounds: int, samples: int, source: random.Random):
    """Rounds of two subjects in one run, the second `true_ratio` times as slow: (base, new) of round medians."""
    base, new = SyntheticMachine(weather, source).rounds((1.0, true_ratio), rounds, samples)
    return round_medians(base), round_medians(new)


def two_runs(
    weather: Weather, true_ratio: float, rounds: int, samples: int, source: random.Random, subjects: int = 1
) -> list[list[Timing]]:
    """Subjects, timed in turn, in two separate runs: [base, new], each with the timing of every subject."""
    return [
        [timing(taken) for taken in SyntheticMachine(weather, source).rounds((true_s,) * subjects, rounds, samples)]
        for true_s in (1.0, true_ratio)
    ]
