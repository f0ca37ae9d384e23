"""An NVIDIA GPU under test, and its clocks: events, graph replay, host. Never changes a setting of the device."""

from __future__ import annotations

import ctypes
import gc
import math
import time
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any

import torch

from ..roofline.record import CacheState, Clock, Environment
from .clock import HostStopwatch, Stopwatch
from .device_records import Watched, watch
from .energy import GpuMeter
from .nvml import Gpu, pci_id
from .sensors import GpuSensors
from .versions import compiler_name, hashed, software

# Calls queued behind a sleep hide the time that the host needs to start them: 100 us at first, 20 ms at most.
CYCLES_PER_S = 2e9
SLEEP_CYCLES = 200_000
MOST_SLEEP_CYCLES = 40_000_000


class EventStopwatch:
    """CUDA events around queued launches.

    flush : where given, empties the L2 cache before every call. Lines that an earlier call set aside as persisting are
    released before the calls are queued: doing so takes effect at once and not in the order of the queue.
    """

    def __init__(self, flush: Callable[[], object] | None) -> None:
        self.flush = flush
        self.sleep_cycles = SLEEP_CYCLES

    def _queued_in(self, host_s: float) -> None:
        """Let the next sleep cover twice the time that the host took to queue, so that the device never waits."""
        self.sleep_cycles = min(MOST_SLEEP_CYCLES, max(self.sleep_cycles, int(2 * CYCLES_PER_S * host_s)))

    def sample(self, calls: list[Callable[[], object]], first: int, repeats: int) -> list[float]:
        """Cold: every call between events of its own. Warm: all calls between two events, their mean."""
        spans = repeats if self.flush else 1
        starts = [torch.cuda.Event(enable_timing=True) for _ in range(spans)]
        ends = [torch.cuda.Event(enable_timing=True) for _ in range(spans)]
        if self.flush:
            _reset_persisting_cache()
        torch.cuda._sleep(self.sleep_cycles)
        queued = time.perf_counter()
        if self.flush:
            for span in range(spans):
                self.flush()
                starts[span].record()
                calls[(first + span) % len(calls)]()
                ends[span].record()
            self._queued_in(time.perf_counter() - queued)
            torch.cuda.synchronize()
            return [start.elapsed_time(end) * 1e-3 for start, end in zip(starts, ends)]
        call = calls[(first // max(repeats, 1)) % len(calls)]
        call()  # behind the sleep: this set is in the cache when the clock starts
        starts[0].record()
        for _ in range(repeats):
            call()
        ends[0].record()
        self._queued_in(time.perf_counter() - queued)
        torch.cuda.synchronize()
        return [starts[0].elapsed_time(ends[0]) * 1e-3 / repeats]


class GraphStopwatch:
    """Replays a CUDA graph of many calls: device time without the cost of launching from the host."""

    MOST_CALLS = 20
    # Starting a graph takes some 10 us, 1 % of this: enough calls are captured to last so long.
    LEAST_GRAPH_S = 1e-3

    def __init__(self) -> None:
        self.graphs: dict[int, tuple[Any, int]] = {}

    def _capture(self, call: Callable[[], object]) -> tuple[Any, int]:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        once_s = time.perf_counter() - started
        count = max(1, min(self.MOST_CALLS, math.ceil(self.LEAST_GRAPH_S / once_s)))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(count):
                call()
        return graph, count

    def sample(self, calls: list[Callable[[], object]], first: int, repeats: int) -> list[float]:
        """One replay, divided by the calls that it holds."""
        call = calls[0]
        if id(call) not in self.graphs:
            self.graphs[id(call)] = self._capture(call)
        graph, count = self.graphs[id(call)]
        replays = max(1, repeats // count)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(SLEEP_CYCLES)  # else the start event would pass while the host still launches the graph
        start.record()
        for _ in range(replays):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) * 1e-3 / (replays * count)]


class CudaDevice:
    """One GPU. Its L2 cache is flushed by writing twice its size, and reading as much."""

    kind = "cuda"
    most_suite_flops = None
    clocks: tuple[tuple[CacheState, Clock], ...] = (
        ("cold", "events"),
        ("warm", "events"),
        ("warm", "graph"),
        ("warm", "host"),
    )
    dtypes = ("fp32", "bf16")

    def __init__(self, index: int) -> None:
        self.torch_device = f"cuda:{index}"
        self.index = index
        torch.cuda.set_device(index)
        self.properties = torch.cuda.get_device_properties(index)
        self.name = self.properties.name
        self.gpu = Gpu(str(getattr(self.properties, "uuid", "")), pci_id(self.properties))
        self.sensors, self.meter = GpuSensors(self.gpu), GpuMeter(self.gpu)

    def last_cache_bytes(self) -> int:
        """Size of the L2 cache as the driver reports it."""
        return self.properties.L2_cache_size

    def free_memory_bytes(self) -> int:
        """Free memory of the device."""
        return torch.cuda.mem_get_info(self.index)[0]

    def finish(self) -> None:
        """Wait until everything that was queued has run."""
        torch.cuda.synchronize(self.index)

    def release_memory(self) -> None:
        """Give back what torch only caches, the pools of dropped graphs included."""
        gc.collect()
        torch.cuda.empty_cache()

    @cached_property
    def _flush_buffers(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What is written, what is read, and a number for what is found there. Both arrays are twice the L2."""
        written, read = (torch.zeros(2 * self.last_cache_bytes() // 4, device=self.torch_device) for _ in range(2))
        return written, read, torch.empty((), device=self.torch_device)

    def flush(self) -> None:
        """Write twice the L2 cache's size, so that nothing of a call is left there; then read as much.

        Lines that were written only would have to go to memory while the call runs that is timed next.
        """
        written, read, found = self._flush_buffers
        written.zero_()
        torch.sum(read, 0, out=found)

    def stopwatch(self, cache: CacheState, clock: Clock) -> Stopwatch:
        """The stopwatch of a cache state and clock."""
        if clock == "events":
            return EventStopwatch(self.flush if cache == "cold" else None)
        if clock == "graph":
            return GraphStopwatch()
        return HostStopwatch(block=True, finish=self.finish)

    def allow_tf32(self, allowed: bool) -> None:
        """Switch TF32 for products and for cuDNN, which has it on by default."""
        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed

    def peak_memory(self, call: Callable[[], object]) -> int | None:
        """Bytes that one call allocates at its peak, beyond what was allocated before."""
        self.finish()
        torch.cuda.reset_peak_memory_stats(self.index)
        before = torch.cuda.memory_allocated(self.index)
        result = call()
        self.finish()
        del result
        return torch.cuda.max_memory_allocated(self.index) - before

    def watch(self, call: Callable[[], object], states: Sequence[CacheState]) -> dict[CacheState, Watched]:
        """What the driver records of a few calls in each cache state."""
        return watch(call, {state: self.flush if state == "cold" else None for state in states}, self.finish)

    def describe(self) -> Environment:
        """What the numbers depend on, from torch and, where it answers, from NVML."""
        gpu = self.gpu
        return Environment(
            **software(),
            cuda=torch.version.cuda or "",
            driver=gpu.driver,
            device_hash=hashed(str(getattr(self.properties, "uuid", ""))),
            fp_fusion="on, set per kernel",
            clocks={
                "sm_clock_hz": gpu.clock_hz(),
                "memory_clock_hz": gpu.memory_clock_hz(),
                "highest_sm_clock_hz": gpu.highest_clock_hz,
            },
            power_limit_w=gpu.power_limit_w,
            power_default_w=gpu.power_default_w,
            mig=gpu.mig,
            ecc=gpu.ecc,
            compiler=compiler_name(),
        )


def _reset_persisting_cache() -> None:
    """Release L2 lines that were set aside as persisting; a flush would leave them in place."""
    reset = _runtime_function("cudaCtxResetPersistingL2Cache")
    if reset is not None:
        reset()


@cache
def _runtime_function(name: str) -> Callable[[], int] | None:
    """A function of the CUDA runtime that torch has loaded; None where it is not found."""
    for library in ("libcudart.so.13", "libcudart.so.12", "libcudart.so"):
        try:
            return getattr(ctypes.CDLL(library), name)
        except (OSError, AttributeError):
            continue
    return None
