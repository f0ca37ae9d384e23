"""The claims as data: what each says, what decides it, and what has to be measured for that.

They stand in `claims.toml`. This module reads them; `claim_verdict` and the predicates decide.
"""

from __future__ import annotations

import itertools
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ._model import Frozen
from .record import CacheState, Direction, Point

FILE = Path(__file__).with_name("claims.toml")
SUITE = "claims"
# Sizes that a case need not name, as they usually are; a name stands for the size of that name.
USUAL: dict[str, int | str] = {"L": 1, "D": 1, "dilation": 1, "ragged": 0, "residual": 0, "causal": 1, "relu": 0}
USUAL |= {"base": 2, "G": "N", "K": "S"}
# The probe that times the pairs of claims; all other probes are of the mathematics alone.
PAIRED = "paired_times"
# What measures everything that the verdicts need.
COMMAND = f"seqroof profile --suite {SUITE}"


class Threshold(Frozen):
    """What a predicate compares with, and why."""

    value: float
    reason: str = Field(min_length=1)


class Case(Frozen):
    """A kernel with sizes to measure; lists of sizes are combined. `device` is empty for every kind of device.

    caches : the states of the caches in which the claim needs a time. fastest : whether the fastest of all rows counts,
    so that all rows of the vendor's library are wanted.
    """

    kernel: str
    shape: dict[str, int | tuple[int, ...]]
    directions: tuple[Direction, ...] = ("forward",)
    device: Literal["", "cpu", "cuda"] = ""
    caches: tuple[CacheState, ...] = ("warm",)
    fastest: bool = False

    def shapes(self) -> list[dict[str, int]]:
        """All combinations of the sizes."""
        axes = [values if isinstance(values, tuple) else (values,) for values in self.shape.values()]
        return [dict(zip(self.shape, sizes)) for sizes in itertools.product(*axes)]


class Pair(Frozen):
    """The two sides of a ratio: a kernel, or sizes, in which they differ; all else that a case has is the same."""

    over: dict[str, int | str]
    under: dict[str, int | str]


class LineUp(Frozen):
    """The kernel whose time grows with a power of a size, and that size."""

    kernel: str
    size: str


class Planned(Frozen):
    """One measurement that a claim plans: sizes that `shape` does not name are as they usually are."""

    kernel: str
    shape: dict[str, int]
    dtype: str
    direction: Direction
    cache: CacheState

    def place(self, across: tuple[str, ...]) -> tuple[str | int, ...]:
        """What the cases that one finding compares have in common: dtype, direction, batch, length and width.

        across : sizes that a finding compares with one another.
        """
        sizes = {name: size for name, size in self.shape.items() if name not in across}
        common = (next((sizes[name] for name in names if name in sizes), 0) for names in ("B", "TKS", "HMCP"))
        return self.dtype, self.direction, *common

    def with_side(self, side: dict[str, int | str]) -> Planned:
        """This case with the kernel or the sizes of one side of a ratio."""
        sizes = {name: int(size) for name, size in side.items() if name != "kernel"}
        return self.model_copy(update={"kernel": str(side.get("kernel", self.kernel)), "shape": self.shape | sizes})

    def is_of(self, point: Point) -> bool:
        """Whether a point, valid or not, is a measurement of this case."""
        same = (point.kernel, point.dtype, point.direction, point.cache)
        if same != (self.kernel, self.dtype, self.direction, self.cache):
            return False
        return self.shape.keys() <= point.shape.keys() and all(
            size == self.shape.get(name, _usual(name, point.shape)) for name, size in point.shape.items()
        )


def _usual(name: str, shape: dict[str, int]) -> int | None:
    """The usual value of a size in a shape; None where there is none."""
    value = USUAL.get(name)
    return shape.get(value) if isinstance(value, str) else value


class Claim(Frozen):
    """One claim; the names are those of `claims.toml`, which explains them."""

    id: str
    title: str
    hypothesis: str
    source: str
    predicate: str
    test: str
    cpu: Literal["yes", "time"]
    needs: str
    thresholds: dict[str, Threshold] = Field(default_factory=dict)
    cases: tuple[Case, ...] = ()
    probes: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    across: tuple[str, ...] = ()
    pair: Pair | None = None
    line: LineUp | None = None
    one_is_enough: bool = False

    @property
    def condition(self) -> str:
        """What has to hold, in words with the values of the thresholds."""
        return self.filled(self.test)

    def filled(self, test: str) -> str:
        """Such a text, in whatever language, with the values of the thresholds."""
        return test.format(**{name: f"{threshold.value:g}" for name, threshold in self.thresholds.items()})

    def at(self, name: str) -> float:
        """The value of a threshold."""
        return self.thresholds[name].value

    def planned(self, device: str) -> list[Planned]:
        """All measurements that the claim plans on a kind of device."""
        return [
            Planned(kernel=case.kernel, shape=shape, dtype=dtype, direction=direction, cache=cache)
            for case in self.cases
            if case.device in ("", device)
            for shape, dtype, direction, cache in itertools.product(
                case.shapes(), dtypes(device), case.directions, case.caches
            )
        ]

    def pairs(self, device: str) -> list[tuple[Planned, Planned]]:
        """The cases that are the two sides of a ratio: over which, and under which."""
        pair, planned = self.pair, self.planned(device)
        if pair is None:
            return []
        sides = [(case, case.with_side(pair.under)) for case in planned if case == case.with_side(pair.over)]
        return [(over, under) for over, under in sides if under in planned]

    def lines(self, device: str) -> list[tuple[str, list[Planned]]]:
        """The size of `line` with the cases that differ in it alone, in its order."""
        if self.line is None:
            return []
        size = self.line.size
        groups: dict[tuple[object, ...], list[Planned]] = {}
        for case in self.planned(device):
            if case.kernel == self.line.kernel and size in case.shape:
                others = tuple((name, value) for name, value in case.shape.items() if name != size)
                groups.setdefault((others, case.dtype, case.direction, case.cache), []).append(case)
        return [(size, sorted(cases, key=lambda case: case.shape[size])) for cases in groups.values()]


class Claims(Frozen):
    """All claims, and the dtypes that count by kind of device."""

    dtypes: dict[str, tuple[str, ...]]
    claim: tuple[Claim, ...]


@cache
def loaded() -> Claims:
    """Read the file of the claims once."""
    return Claims.model_validate(tomllib.loads(FILE.read_text(encoding="utf-8")))


def all_claims() -> tuple[Claim, ...]:
    """The claims in the order of their numbers."""
    return loaded().claim


def dtypes(device: str) -> tuple[str, ...]:
    """The dtypes that count on a kind of device, "cpu" or "cuda"."""
    return loaded().dtypes[device]


def cases(device: str) -> list[dict[str, Any]]:
    """Everything to measure on a kind of device, each case once, in the order of the claims that need it first.

    Each has kernel, shape, dtype and direction; its `caches`, and whether the `fastest` row counts, are what all of its
    claims need.
    """
    found: list[dict[str, Any]] = []
    here = (case for claim in all_claims() for case in claim.cases if case.device in ("", device))
    for case in here:
        for shape, dtype, direction in itertools.product(case.shapes(), dtypes(device), case.directions):
            named = {"kernel": case.kernel, "shape": shape, "dtype": dtype, "direction": direction}
            same = next((known for known in found if named.items() <= known.items()), None)
            if same is None:
                same = named | {"caches": [], "fastest": False}
                found.append(same)
            same["caches"] += [cache for cache in case.caches if cache not in same["caches"]]
            same["fastest"] |= case.fastest
    return found


def pairs(device: str) -> list[tuple[Planned, Planned]]:
    """The cases that claims hold against one another and want timed in turn: over which, and under which."""
    return [pair for claim in all_claims() for pair in claim.pairs(device)]


def lines(device: str) -> list[tuple[str, list[Planned]]]:
    """The sizes along which claims fit a power of the time, each with its cases in order, which differ in it alone."""
    return [line for claim in all_claims() for line in claim.lines(device)]


def probes() -> list[str]:
    """The probes that the claims need, each once; the one that times comes last, as it takes by far the longest."""
    named = dict.fromkeys(name for claim in all_claims() for name in claim.probes)
    return sorted(named, key=lambda name: name == PAIRED)
