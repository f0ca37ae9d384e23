"""The record of paired experiments: what they measured, and which wall they show."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ._model import Frozen

SeenWall = Literal["memory", "compute", "serial", "undetermined"]


class Ratio(Frozen):
    """A time over another of the same rounds: the median of the paired ratios, with its order-statistic interval."""

    value: float = Field(gt=0)
    low: float = Field(gt=0)
    high: float = Field(gt=0)
    rounds: int = Field(ge=1)


class Attribution(Frozen):
    """Which wall binds as paired experiments show it, without any floor.

    rotated : data rotated through more than the caches hold, over the same data again. sliced : the whole batch, over
        as many calls of a slice of it whose data a cache holds. lighter : the case over one of half its arithmetic that
        goes through four fifths of its bytes or more, where no slice fits. halved : half the threads over all of them;
        `threads` is how many there were. longer : twice the steps at half the batch, over the case.
    reason : what the wall was told by, or why it is undetermined, what could not be tried included.
    """

    wall: SeenWall
    rotated: Ratio | None = None
    sliced: Ratio | None = None
    lighter: Ratio | None = None
    halved: Ratio | None = None
    longer: Ratio | None = None
    threads: int | None = None
    reason: str = ""
