"""How a limit changes under load: its rate in the first moments against that after seconds of the same work.

A roof is what a machine can do at most, so floors use the best rounds; a long kernel meets the sustained rate, which
power and heat set. Both are information beside the roof.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence

from ..roofline.machine import Ceiling
from ..roofline.stats import median
from ..roofline.units import percent, seconds
from .gauge import Gauge

# The first tenth of the load is its first moments, and the last quarter its steady state.
BURST_SHARE = 0.1
STEADY_SHARE = 0.25
# A median of fewer samples than this is no rate.
FEWEST = 3
# At least this often the parent hears that the worker is alive.
PROGRESS_S = 5.0


def burst_and_sustained(
    gauges: Sequence[Gauge], load_s: float, progress: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> list[Ceiling]:
    """Two ceilings for each gauge, of scope "burst" and "sustained"; none without a load, or where a gauge fails.

    load_s : seconds of load per gauge. clock : tells the time in seconds; another one in tests.
    """
    if load_s <= 0:
        return []
    found: list[Ceiling] = []
    for gauge in gauges:
        progress(f"{gauge.level} {gauge.quantity} {gauge.dtype} under load for {seconds(load_s)}")
        try:
            found += _two_rates(gauge, _series(gauge, load_s, progress, clock), load_s)
        except Exception as error:  # an operation that this build of torch lacks must not cost the other gauges
            progress(f"{gauge.how} under load left out: {(str(error).splitlines() or [type(error).__name__])[0]}")
    return found


def _series(
    gauge: Gauge, load_s: float, progress: Callable[[str], None], clock: Callable[[], float]
) -> list[tuple[float, float]]:
    """Samples without a pause, as (seconds since the load began, seconds of the sample); a warm-up goes before."""
    gauge.sample()
    start = told = clock()
    samples: list[tuple[float, float]] = []
    while not samples or samples[-1][0] < load_s or len(samples) < 2 * FEWEST:
        time_s = gauge.sample()
        now = clock()
        samples.append((now - start, time_s))
        if now - told > PROGRESS_S:
            told = now
            progress(f"{gauge.how} under load")
    return samples


def _two_rates(gauge: Gauge, samples: list[tuple[float, float]], load_s: float) -> list[Ceiling]:
    end = samples[-1][0]
    first = [time_s for at, time_s in samples if at <= BURST_SHARE * end]
    last = [time_s for at, time_s in samples if at >= (1 - STEADY_SHARE) * end]
    times = [time_s for _, time_s in samples]
    first = first if len(first) >= FEWEST else times[:FEWEST]
    last = last if len(last) >= FEWEST else times[-FEWEST:]
    windows = (("burst", first, "the first moments"), ("sustained", last, f"the last {percent(STEADY_SHARE)}"))
    return [_ceiling(gauge, scope, window, f"{text} of {seconds(load_s)} of load") for scope, window, text in windows]


def _ceiling(gauge: Gauge, scope: str, times: list[float], text: str) -> Ceiling:
    values = [gauge.value(time_s) for time_s in times]
    return Ceiling(
        quantity=gauge.quantity,
        level=gauge.level,
        dtype=gauge.dtype,
        pattern=gauge.pattern,
        scope=scope,
        value=gauge.value(median(times)),
        low=min(values),
        high=max(values),
        unit=gauge.unit,
        provenance="measured",
        how=f"{gauge.how}: median over {text}",
        when=datetime.date.today().isoformat(),
    )
