"""Where the ranks of a fleet meet: they compare clocks, agree on a moment, and part for good.

torch.distributed with gloo is used for nothing else: what a rank measures goes through its worker and its journal.
Imports torch, so the parent of an ordinary run must not import this.
"""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

# Ranks load kernels and start workers before they meet; a slow disk takes minutes.
PATIENCE = timedelta(minutes=10)
# Exchanges of the time with rank 0; the quickest one tells best.
EXCHANGES = 16
# From the agreement to the start: longer than a broadcast takes.
HEAD_START_S = 0.5


@dataclass(frozen=True)
class Start:
    """What a rank knows after the meeting.

    host : the number of its host. shared : whether it sees the folder of rank 0. together : whether all ranks do.
    start_s : how long after the agreed moment it began, by its own clock, corrected to that of rank 0.
    clock_error_s : how far that correction may be off: half the quickest exchange.
    """

    rank: int
    ranks: int
    host: int
    shared: bool
    together: bool
    start_s: float
    clock_error_s: float


def meet(mark: Callable[[int], None], sees: Callable[[int], bool]) -> Start:
    """Wait for all ranks of this torchrun and start with them.

    mark : called by rank 0 with a number that it leaves where the others look. sees : whether a rank finds it.
    """
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        rank, ranks = dist.get_rank(), dist.get_world_size()
        offset_s, error_s = _clock_offset(rank, ranks)
        token = _told_by_first(time.time_ns() >> 1, torch.int64)
        if rank == 0:
            mark(int(token))
        dist.barrier()
        shared = _told_by_all(int(sees(int(token))))
        names = _told_by_all(_number_of(socket.gethostname()))
        start = float(_told_by_first(time.time() + HEAD_START_S, torch.float64))
    finally:
        dist.destroy_process_group()
    time.sleep(max(0.0, start - (time.time() - offset_s)))
    late_s = time.time() - offset_s - start
    host = list(dict.fromkeys(names)).index(names[rank])
    return Start(rank, ranks, host, bool(shared[rank]), all(shared), late_s, error_s)


def _number_of(name: str) -> int:
    """A number for a host, so that its name goes nowhere."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")


def _told_by_first(value: float, dtype: torch.dtype) -> float:
    told = torch.tensor([value], dtype=dtype)
    dist.broadcast(told, 0)
    return told.item()


def _told_by_all(value: int) -> list[int]:
    told = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
    dist.all_gather(told, torch.tensor([value], dtype=torch.int64))
    return [int(one.item()) for one in told]


def _clock_offset(rank: int, ranks: int) -> tuple[float, float]:
    """This rank's clock minus that of rank 0, and the error of that: (0, 0) for rank 0, which answers one by one."""
    buffer = torch.zeros(1, dtype=torch.float64)
    if rank == 0:
        for other in range(1, ranks):
            for _ in range(EXCHANGES):
                dist.recv(buffer, other)
                buffer[0] = time.time()
                dist.send(buffer, other)
        return 0.0, 0.0
    found = []
    for _ in range(EXCHANGES):
        asked = time.time()
        dist.send(buffer, 0)
        dist.recv(buffer, 0)
        answered = time.time()
        found.append((answered - asked, (asked + answered) / 2 - buffer.item()))
    trip_s, offset_s = min(found)
    return offset_s, trip_s / 2
