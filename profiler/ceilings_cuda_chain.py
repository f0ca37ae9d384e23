"""Latency gauges of a GPU: how long one step waits for the step before, by the mechanism that makes it wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from . import microbench
from ._triton import AVAILABLE
from .cuda_events import LONG_SLEEP_CYCLES, Facts, launch, random_values, slope, timed
from .gauge import Gauge

# Launches in one queue: fewer than the driver's queue holds, enough that one costs far more than the clock errs.
LAUNCHES = 500
# Two lengths each of graphs, of barriers and of on-chip chains, whose difference holds no launch.
GRAPH_NODES = (100, 900)
BARRIER_STEPS = (200, 1200)
CHAIN_STEPS = (1000, 9000)
# Rounds of 32 multiply-adds: each takes some 70 ns, and the difference a hundred times what events resolve.
POINTWISE_ROUNDS = (100, 1100)
# The barrier is tried from so many programs up to one per SM.
FEWEST_PROGRAMS = 8
# A barrier is checked over so many steps before it is timed.
CHECKED_STEPS = 50


def launch_latencies(facts: Facts) -> list[Gauge]:
    """Launch back to back, launch with a waiting host, graph node."""
    one = random_values(1, facts.device)
    smallest: list[tuple[str, Callable[[], object]]] = [("neg_ of one value", one.neg_)]
    if AVAILABLE:
        smallest.append(("an empty Triton kernel", partial(launch, microbench.empty, 1, one, num_warps=1)))
    gauges = []
    for name, call in smallest:
        queued = timed(call, LAUNCHES, LONG_SLEEP_CYCLES)
        gauges += [
            Gauge("latency", "launch", "s", queued, f"{name}, {LAUNCHES} queued launches"),
            Gauge("latency", "launch_waited", "s", _waited(call), f"{name}, launched and waited for"),
            Gauge(
                quantity="latency",
                level="graph",
                unit="s",
                sample=slope(_graphs_of(call), GRAPH_NODES),
                how=f"{name}, one more node in a CUDA graph",
                difference=True,
            ),
        ]
    return gauges


def inside_latencies(facts: Facts) -> list[Gauge]:
    """Steps of one program that waits for nobody else: with a small product, and a multiply-add alone. Needs Triton."""
    return [_chain(facts), _pointwise(facts)]


def program_counts(sms: int) -> list[int]:
    """Numbers of programs for the grid barrier: powers of two from eight, and one per SM."""
    powers = [FEWEST_PROGRAMS << power for power in range(16)]
    return [*(count for count in powers if count < sms), sms]


def _waited(call: Callable[[], object]) -> Callable[[], float]:
    """A sample in host time from before the launch until the device is known to be done."""

    def sample() -> float:
        torch.cuda.synchronize()
        start = time.perf_counter_ns()
        call()
        torch.cuda.synchronize()
        return (time.perf_counter_ns() - start) * 1e-9

    return sample


def _graphs_of(call: Callable[[], object]) -> Callable[[int], None]:
    """Replay a CUDA graph of so many calls in a row; each graph is captured when it is first asked for."""
    graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def replay(nodes: int) -> None:
        if nodes not in graphs:
            call()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for _ in range(nodes):
                    call()
            graphs[nodes] = graph
        graphs[nodes].replay()

    return replay


def barrier_latencies(facts: Facts) -> list[Gauge]:
    """Steps of several programs of one launch that wait for one another. Needs Triton."""
    return [_barrier(facts, programs, poll) for programs in program_counts(facts.sms) for poll in microbench.POLLS]


def _barrier(facts: Facts, programs: int, poll: str) -> Gauge:
    """A grid-wide barrier inside one cooperative launch; checked before it is timed for the first time."""
    counter = torch.zeros(1, dtype=torch.int32, device=facts.device)
    slots, errors = (torch.zeros(programs, dtype=torch.int32, device=facts.device) for _ in range(2))

    def run(steps: int, check: bool = False) -> None:
        counter.zero_()
        options = {"num_warps": microbench.BARRIER_WARPS, "launch_cooperative_grid": True}
        launch(microbench.grid_barrier, programs, counter, slots, errors, steps, CHECK=check, POLL=poll, **options)

    timed_barrier = slope(run, BARRIER_STEPS)
    checked = False

    def sample() -> float:
        nonlocal checked
        if not checked:
            run(CHECKED_STEPS, check=True)
            early = int(errors.sum())
            if early:
                raise RuntimeError(f"{early} times a program passed the barrier before its neighbour had arrived")
            checked = True
        return timed_barrier()

    return Gauge(
        quantity="latency",
        level="barrier",
        unit="s",
        sample=sample,
        how=f"grid barrier of {programs} programs in one launch, {poll} poll",
        pattern=f"programs={programs}",
        difference=True,
    )


def _chain(facts: Facts) -> Gauge:
    """One program: a small product on the tensor cores and a sigmoid, each step waiting for the last."""
    rows, size = microbench.CHAIN_ROWS, microbench.CHAIN_SIZE
    weights = random_values(size * size, facts.device, "fp16")
    state = random_values(rows * size, facts.device, "fp16")

    def run(steps: int) -> None:
        options = {"ROWS": rows, "SIZE": size, "num_warps": microbench.CHAIN_WARPS}
        launch(microbench.dependent_chain, 1, weights, state, steps, **options)

    return Gauge(
        quantity="latency",
        level="inside",
        unit="s",
        sample=slope(run, CHAIN_STEPS),
        how=f"one program: ({rows}, {size}) x ({size}, {size}) on tensor cores and a sigmoid",
        pattern=f"{rows}x{size}x{size}",
        difference=True,
    )


def _pointwise(facts: Facts) -> Gauge:
    """One warp: a multiply-add in registers, each waiting for the last; nothing that waits is faster."""
    values = random_values(microbench.POINTWISE_LANES, facts.device)
    constants = {"LANES": microbench.POINTWISE_LANES, "UNROLLED": microbench.POINTWISE_UNROLLED}

    def run(rounds: int) -> None:
        # The values stay finite: what they tend to is shift / (1 - scale).
        launch(
            microbench.pointwise_chain, 1, values, rounds, 0.5, 1.0, num_warps=microbench.POINTWISE_WARPS, **constants
        )

    per_round = slope(run, POINTWISE_ROUNDS)
    return Gauge(
        quantity="latency",
        level="pointwise",
        unit="s",
        sample=lambda: per_round() / microbench.POINTWISE_UNROLLED,
        how="one program: a multiply-add of float32 in registers, which waits for the one before",
        difference=True,
    )
