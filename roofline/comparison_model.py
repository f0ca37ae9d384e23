"""The records of comparisons: what a machine can resolve, and how an own row stands beside the vendor's."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ._model import Frozen


class Noise(Frozen):
    """How much identical code differs from itself on one machine; kept by device, and copied into its runs.

    machine, device_hash, computer_hash, threads : the machine and set-up that it belongs to. when : ISO 8601.
    subjects : what was timed, as `kernel implementation`. workers : processes, started one after another. rounds : of
        each pair.
    paired_change, between_change : the smallest change that nine comparisons in ten tell from none, relative; within
        one run by pairs, and between two runs. paired_verdict, between_verdict : that nine in ten call FASTER or
        SLOWER, beyond the default band. None where no change is resolved.
    between_runs : half width (95 %) of the ratio of two runs of the same code, in logarithms.
    pairs, between_pairs : comparisons of identical code that were made; false_verdicts, between_false : those that
        ended in FASTER or SLOWER; ambiguous, between_ambiguous : those left undecided.
    """

    machine: str
    device_hash: str = ""
    computer_hash: str = ""
    threads: int | None = None
    when: str
    subjects: tuple[str, ...] = ()
    workers: int = Field(ge=2)
    rounds: int = Field(ge=1)
    paired_change: float | None = None
    paired_verdict: float | None = None
    between_change: float | None = None
    between_verdict: float | None = None
    between_runs: float = Field(ge=0)
    pairs: int = 0
    false_verdicts: int = 0
    ambiguous: int = 0
    between_pairs: int = 0
    between_false: int = 0
    between_ambiguous: int = 0


class BesideVendor(Frozen):
    """An own row beside the fastest row of the vendor's library, paired over the rounds that both were timed in.

    speedup : time of the vendor's row over time of this one, above 1 is faster, with its interval (95 %; null below six
    rounds).
    """

    vendor: str
    speedup: float = Field(gt=0)
    low: float | None = None
    high: float | None = None
    rounds: int = Field(ge=1)
    verdict: Literal["SAME", "FASTER", "SLOWER", "AMBIGUOUS"]
