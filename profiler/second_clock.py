"""A second clock beside the host's, read with every sample, and what tells that other work held the processors.

The monotonic clock may be slewed; the raw one may not. Their functions are held from the start, so that code which is
timed cannot replace them for this module.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..roofline.second_clock import SecondClock
from .host import usable_cores

_PROCESSES = Path("/proc")
# What the system counts its processors' time in, where it says so; a hundredth of a second is the rule.
_TICK_NS = 10**9 // (os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100)
_process_time_ns = time.process_time_ns
_host_ns = time.perf_counter_ns
# Windows has no raw clock; perf_counter is then its own second clock, and the reading says why there is none.
_RAW_ID = getattr(time, "CLOCK_MONOTONIC_RAW", None)
_clock_ns = getattr(time, "clock_gettime_ns", None)


def raw_ns() -> int | None:
    """The raw monotonic clock in ns, None where the system has none."""
    return _clock_ns(_RAW_ID) if _clock_ns is not None and _RAW_ID is not None else None


@dataclass
class Account:
    """Nanoseconds by several clocks, summed over what one subject was timed in.

    host, raw : of the samples, by the clock of the time and by the raw one. rounds : how many there were; worked,
    passed : in them, processor time of all threads and wall time.
    """

    host: int = 0
    raw: int | None = 0
    rounds: int = 0
    worked: int = 0
    passed: int = 0

    def sample(self, host: int, raw_before: int | None) -> None:
        """Add a sample that took so long by the host's clock and began at `raw_before` by the raw one."""
        now = raw_ns()
        self.host += host
        self.raw = None if self.raw is None or now is None or raw_before is None else self.raw + now - raw_before

    def round(self) -> _Round:
        """Account for a round: a context."""
        return _Round(self)

    def reading(self, median_s: float, threads: int, waiting_share: float | None) -> SecondClock:
        """What the raw clock says of a time whose median is `median_s` by the host's clock."""
        known = bool(self.raw) and self.host > 0
        return SecondClock(
            source="raw",
            time_s=median_s * (self.raw or 0) / self.host if known else None,
            reason="" if known else "this system has no raw clock",
            busy_share=self.worked / (threads * self.passed) if self.passed else None,
            # A thread that runs on another processor is charged at ticks, so a round may pay for what ran before it.
            busy_error=self.rounds * _TICK_NS / self.passed if self.passed else 0.0,
            waiting_share=waiting_share,
        )


class _Round:
    """The context of `Account.round`."""

    def __init__(self, account: Account) -> None:
        self.account = account

    def __enter__(self) -> None:
        self.worked, self.began = _process_time_ns(), _host_ns()

    def __exit__(self, *exception: object) -> None:
        self.account.rounds += 1
        self.account.passed += _host_ns() - self.began
        self.account.worked += _process_time_ns() - self.worked


class Waiting:
    """How long others held the processors, from its making on (Linux).

    Threads of this process that were ready to run and had none, and what a hypervisor took from the whole machine. The
    latter is counted in ticks of some 10 ms, so it is coarse where little time goes by.
    """

    def __init__(self, threads: int, processes: Path = _PROCESSES) -> None:
        self.threads, self.tasks, self.machine = threads, processes / "self" / "task", processes / "stat"
        self.before, self.began = self._waited_ns(), _host_ns()

    def share(self) -> float | None:
        """Waiting over threads times the time since then; None where the system does not tell."""
        after, passed = self._waited_ns(), _host_ns() - self.began
        if self.before is None or after is None or passed <= 0:
            return None
        return max(0, after - self.before) / (self.threads * passed)

    def _waited_ns(self) -> int | None:
        """The second number of every thread's schedstat, and the eighth of the machine's first line, in ticks.

        A thread that ends takes its number along.
        """
        try:
            waited = [int((thread / "schedstat").read_text().split()[1]) for thread in self.tasks.iterdir()]
            stolen = int(self.machine.read_text().split("\n", 1)[0].split()[8])
        except (OSError, ValueError, IndexError):
            return None
        return sum(waited) + stolen * _TICK_NS


def reading_of(account: Account | None, median_s: float, waiting_share: float | None) -> dict[str, Any] | None:
    """The reading of a subject's account as plain data; None where its stopwatch keeps no account."""
    return account.reading(median_s, usable_cores(), waiting_share).model_dump() if account else None
