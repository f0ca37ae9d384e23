"""Verdicts on made-up runs, and ways to spoil such runs; shared by the tests of the claims."""

from __future__ import annotations

from collections.abc import Callable

import claim_samples as samples

from seqroof.roofline import claims
from seqroof.roofline.claim_board import decided
from seqroof.roofline.machine import Machine
from seqroof.roofline.record import Point, Run

ALL = [claim.id for claim in claims.all_claims()]
CLAIMS = {claim.id: claim for claim in claims.all_claims()}
GROWING = samples.catalogue()


def words(run: Run | None, catalogue: tuple[Machine, ...] = GROWING) -> dict[str, str]:
    """The verdict on every claim from one run."""
    return {id: decided(claim, run, "r", catalogue).verdict for id, claim in CLAIMS.items()}


def one(id: str, run: Run | None, catalogue: tuple[Machine, ...] = GROWING):
    return decided(CLAIMS[id], run, "r", catalogue)


def without(run: Run, *kernels: str) -> Run:
    return run.model_copy(update={"points": tuple(p for p in run.points if p.kernel not in kernels)})


def vendor(run: Run, *kernels: str) -> Run:
    """The run with rows of a vendor that are ten times as fast for these kernels and as fast for the others."""
    more = tuple(
        p.model_copy(
            update={
                "implementation": "torch",
                "time_s": samples.timing(p.time_s.median / (10 if p.kernel in kernels else 1), samples.WIDTH),
            }
        )
        for p in run.points
        if p.time_s
    )
    return run.model_copy(update={"points": (*run.points, *more)})


def spoilt(run: Run, where: Callable[[Point], bool], **changes: object) -> Run:
    return run.model_copy(update={"points": tuple(p.model_copy(update=changes) if where(p) else p for p in run.points)})
