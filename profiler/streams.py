"""Work that a call leaves behind on another stream of a GPU, where events on its own stream do not see it."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

from ..roofline.units import seconds

# Calls queued before the look: their work outlasts what waiting itself costs.
CALLS = 10
# Waiting for an idle device takes some 10 us; a tenth of a millisecond is work.
LEAST_LEFT_S = 100e-6
# A fifth of the whole: what two clocks may differ by.
SHARE = 0.2


def left_behind(cuda: Any, call: Callable[[], object], now: Callable[[], float] = perf_counter) -> tuple[float, float]:
    """Seconds until the current stream has finished `CALLS` calls, and until the rest of the device has after it.

    cuda : `torch.cuda`, or a fake of it.
    """
    cuda.synchronize()
    start = now()
    for _ in range(CALLS):
        call()
    cuda.current_stream().synchronize()
    own = now()
    cuda.synchronize()
    return own - start, now() - own


def doubt(
    cuda: Any, call: Callable[[], object], now: Callable[[], float] = perf_counter
) -> list[tuple[str, dict[str, str]]]:
    """Doubt a call whose stream is done long before the device is."""
    own, rest = left_behind(cuda, call, now)
    if rest <= LEAST_LEFT_S or rest <= SHARE * (own + rest):
        return []
    return [("unfinished-work", {"rest": seconds(rest), "whole": seconds(own + rest)})]
