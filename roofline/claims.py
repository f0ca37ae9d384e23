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
from .record import Direction

FILE = Path(__file__).with_name("claims.toml")
SUITE = "claims"
# What measures everything that the verdicts need.
COMMAND = f"seqroof profile --suite {SUITE}"


class Threshold(Frozen):
    """What a predicate compares with, and why."""

    value: float
    reason: str = Field(min_length=1)


class Case(Frozen):
    """A kernel with sizes to measure; lists of sizes are combined. `device` is empty for every kind of device."""

    kernel: str
    shape: dict[str, int | tuple[int, ...]]
    directions: tuple[Direction, ...] = ("forward",)
    device: Literal["", "cpu", "cuda"] = ""

    def shapes(self) -> list[dict[str, int]]:
        """All combinations of the sizes."""
        axes = [values if isinstance(values, tuple) else (values,) for values in self.shape.values()]
        return [dict(zip(self.shape, sizes)) for sizes in itertools.product(*axes)]


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

    @property
    def condition(self) -> str:
        """What has to hold, in words with the values of the thresholds."""
        return self.test.format(**{name: f"{threshold.value:g}" for name, threshold in self.thresholds.items()})

    def at(self, name: str) -> float:
        """The value of a threshold."""
        return self.thresholds[name].value


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
    """Everything to measure on a kind of device, each case once: kernel, shape, dtype and direction."""
    found = [
        {"kernel": case.kernel, "shape": shape, "dtype": dtype, "direction": direction}
        for claim in all_claims()
        for case in claim.cases
        if case.device in ("", device)
        for shape, dtype, direction in itertools.product(case.shapes(), dtypes(device), case.directions)
    ]
    return [case for index, case in enumerate(found) if case not in found[:index]]


def probes() -> list[str]:
    """The probes that the claims need, each once."""
    return list(dict.fromkeys(name for claim in all_claims() for name in claim.probes))
