"""Copies and fills by the C library, in as many threads as torch uses.

For large blocks it may store past the caches, which saves reading what will be overwritten; torch's own loops do not.
A kernel may do the same, so a roof of writes or copies has to know it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

# Any byte but zero; a fill moves what the target holds, whatever the byte.
_BYTE = 0x3F


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="moves")


def copying(target: torch.Tensor, source: torch.Tensor, threads: int) -> Callable[[], object]:
    """A call that copies one contiguous tensor to another of the same size, a share per thread."""

    def share(start: int, size: int) -> None:
        ctypes.memmove(target.data_ptr() + start, source.data_ptr() + start, size)

    return _in_shares(share, min(target.nbytes, source.nbytes), threads)


def filling(target: torch.Tensor, threads: int) -> Callable[[], object]:
    """A call that fills a contiguous tensor, a share per thread."""
    return _in_shares(lambda start, size: ctypes.memset(target.data_ptr() + start, _BYTE, size), target.nbytes, threads)


def _in_shares(share: Callable[[int, int], object], size: int, threads: int) -> Callable[[], object]:
    """Call `share(start, bytes)` in every thread; ctypes lets go of the interpreter's lock meanwhile."""
    # Whole pages, so that no two threads write to one.
    each = -(-size // threads // 4096) * 4096
    shares = [(start, min(each, size - start)) for start in range(0, size, each)]
    return lambda: list(_pool(threads).map(lambda part: share(*part), shares))
