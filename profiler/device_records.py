"""The driver's own records of what ran on a GPU during a few calls, by torch.profiler: a second clock, and names.

Every kernel that the host starts leaves two records, one of its launch on the host and one of its run on the device,
and both carry the same number. Kernels are given to the call in whose span their launch lies, so the writes that empty
a cache between two calls are nobody's. Profilers are known to drop the first records of a session: two calls are
made that nobody counts, and records are counted against launches.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..roofline.record import CacheState
from ..roofline.second_clock import SecondClock

# Calls that are watched per cache state: enough to see one lost or odd record, few enough to stay an afterthought.
CALLS = 5
# Calls of one state shall not take longer than this, but for one: a long chain of launches leaves thousands of records,
# and reading one takes some 10 us.
STATE_S = 0.02
# Spans of the calls; the cache state follows. The profiler repeats a span as a device event of the same name.
SPAN = "seqroof call, "
# Device records that are no kernels; they take the device's time all the same.
COPIES = ("Memcpy", "Memset")
NOTHING = "the profiler recorded nothing: it could not attach to the driver, or another profiler holds it"


@dataclass(frozen=True)
class Watched:
    """What ran on the device in some calls.

    launches : kernels that the host started; None where graphs started some, whose number is not told.
    kernels : (name, start in s, end in s, stream) of every record, copies included.
    """

    calls: int
    launches: int | None
    kernels: tuple[tuple[str, float, float, int], ...]

    def names(self) -> list[str]:
        """Names of the kernels, those that took longest first."""
        times: dict[str, float] = defaultdict(float)
        for name, start, end, _ in self.kernels:
            times[name] += end - start
        return sorted(times, key=lambda name: -times[name])

    def second_clock(self) -> SecondClock:
        """The time per call during which at least one kernel ran, and how complete the records are."""
        ran = [entry for entry in self.kernels if not entry[0].startswith(COPIES)]
        busy = covered((start, end) for _, start, end, _ in self.kernels) / self.calls
        return SecondClock(
            source="profiler",
            time_s=busy or None,
            reason="" if busy else NOTHING,
            calls=self.calls,
            launches=self.launches,
            records=len(ran),
            streams=len({stream for *_, stream in self.kernels}) or None,
        )


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of spans: kernels that run side by side count once."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def watch(
    call: Callable[[], object],
    states: Mapping[CacheState, Callable[[], object] | None],
    finish: Callable[[], object],
    session: Callable[[], Any] | None = None,
    calls: int = CALLS,
) -> dict[CacheState, Watched]:
    """Watch a call in some cache states: state -> what is done before each call, None for nothing.

    finish : waits for the device. session : makes the profiler, torch's own unless a test brings another.
    """
    from torch.profiler import record_function

    with (session or _torch_session)() as profiler:
        call()  # the first one also pays for attaching to the driver
        finish()
        began = time.perf_counter()
        call()
        finish()
        calls = max(1, min(calls, int(STATE_S / max(time.perf_counter() - began, 1e-9))))
        for state, before in states.items():
            for _ in range(calls):
                if before is not None:
                    before()
                with record_function(SPAN + state):
                    call()
            finish()
    events = profiler.events()
    return {state: _of_state(events, SPAN + state, calls) for state in states}


def _torch_session() -> Any:
    from torch.profiler import ProfilerActivity, profile

    return profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])


def _of_state(events: Sequence[Any], span: str, calls: int) -> Watched:
    """Pick the launches inside the spans of one name, and the device records that belong to them."""
    spans = [event.time_range for event in events if event.name == span and not _on_device(event)]
    started = [
        event
        for event in events
        if not _on_device(event)
        and _starts_work(event.name)
        and any(within.start <= event.time_range.start < within.end for within in spans)
    ]
    numbers = {event.id for event in started}
    kernels = tuple(
        (event.name, event.time_range.start * 1e-6, event.time_range.end * 1e-6, event.device_resource_id)
        for event in events
        if _on_device(event) and event.id in numbers and not event.name.startswith(SPAN)
    )
    graphs = any("GraphLaunch" in event.name for event in started)
    return Watched(calls, None if graphs else sum("Kernel" in event.name for event in started), kernels)


def _on_device(event: Any) -> bool:
    return event.device_type.name == "CUDA"


def _starts_work(name: str) -> bool:
    """Whether a call of the driver or the runtime starts work on the device: cudaLaunchKernel, cuLaunchKernelEx."""
    return name.startswith("cu") and any(word in name for word in ("Launch", *COPIES))
