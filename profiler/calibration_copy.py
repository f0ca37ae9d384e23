"""The calibration copy in the worker: one array copied to another, timed exactly as kernels are."""

from __future__ import annotations

import datetime
from typing import Any

import torch

from ..roofline.calibration import Look
from .clock import Subject, measure
from .host import most_array_bytes
from .points import HEADLINE_CLOCK

# Both arrays together are at least four times the last cache, so at most a quarter of the copy can come from it.
CACHES = 2
# Copies this long dwarf a launch and the clock: half a gigabyte takes a GPU 200 us, 64 MiB take a CPU milliseconds.
LEAST_BYTES = {"cpu": 32 * 2**20, "cuda": 512 * 2**20}
# A reported last cache of hundreds of MiB, as virtual machines have, must not make the copy take seconds.
MOST_BYTES = {"cpu": 256 * 2**20, "cuda": 2 * 2**30}
MEMORY_SHARE = 1 / 8
# Six rounds are the fewest from which an interval can be read; the copy is taken twice in every run, so no more.
ROUNDS = 6
BUDGET_S = 0.06


def timed_copy(device: Any) -> Look:
    """Copy one array to another and time it by the clock of headlines.

    device : an opened device of the worker. Raises `RuntimeError` when the copy did not happen.
    """
    try:
        return _timed(device)
    finally:
        device.release_memory()


def _timed(device: Any) -> Look:
    threads = torch.get_num_threads() if device.kind == "cpu" else 1
    size = array_bytes(device.kind, device.last_cache_bytes(), device.free_memory_bytes(), threads)
    source = _random(size // 4, device.torch_device)
    target = torch.full_like(source, torch.nan)
    clock = HEADLINE_CLOCK[device.kind]

    def copy() -> object:
        return target.copy_(source)

    with torch.inference_mode():
        subject = Subject("copy", "warm", clock, [copy], device.stopwatch("warm", clock))
        timing = measure([subject], BUDGET_S, ROUNDS, seed=0)[0]
        device.finish()
        if not torch.equal(source, target):
            raise RuntimeError("the calibration copy was timed, but its target does not hold the source")
    return Look(
        moved_bytes=source.nbytes + target.nbytes,
        cache_bytes=device.last_cache_bytes(),
        clock=clock,
        time_s=timing,
        when=datetime.date.today().isoformat(),
    )


def array_bytes(kind: str, cache_bytes: int, free_bytes: int, threads: int = 1) -> int:
    """Bytes of each of the two arrays, a multiple of 4096. threads : of a CPU that copies."""
    wanted = min(max(CACHES * cache_bytes, LEAST_BYTES[kind]), most_array_bytes(MOST_BYTES[kind], threads))
    return max(4096, int(min(wanted, MEMORY_SHARE * free_bytes)) // 4096 * 4096)


def _random(count: int, torch_device: str) -> torch.Tensor:
    """`count` normal numbers: one random block of a million, repeated, as drawing them is slow."""
    block = torch.randn(min(count, 2**20), device=torch_device)
    return block.repeat(-(-count // block.numel()))[:count].contiguous()
