"""Triton micro-kernels that load one limit of a GPU each: streams, special functions, launches, dependent chains.

Each kernel leaves a result that a test can check, so that none of it can be optimised away. `COMPILE` lists the
configurations that are launched; the gauges of the `ceilings_cuda` files take theirs from the same constants. No count
is specialised, as Triton would do for 1 and for multiples of 16: what is launched is what was compiled.
"""

from __future__ import annotations

from ..roofline.contract import CompileCase
from ._triton import tl, triton

# Elements of one block of a stream, 8 and 32 KiB of float32: small blocks balance better, large ones have more loads
# in flight per thread; which is faster depends on the part, so both are tried.
STREAM_BLOCKS = (2048, 8192)
STREAM_WARPS = 8
# Values per program of the special-function kernel: 8 independent chains per thread hide the latency of each.
SPECIAL_BLOCK = 1024
SPECIAL_WARPS = 4
# One warp is enough for an empty step, and the block-wide barriers around it cost least.
BARRIER_WARPS = 1
# How a waiting program looks at the counter; the fastest differs between generations, so all are tried.
POLLS = ("atomic", "volatile", "acquire")
# The smallest product that tensor cores take from 16-bit operands in one instruction sequence: (16, 32) x (32, 32).
CHAIN_ROWS = 16
CHAIN_SIZE = 32
CHAIN_WARPS = 1
# One warp, and so many operations in a row that the end of a loop is lost among them.
POINTWISE_LANES = 32
POINTWISE_UNROLLED = 32
POINTWISE_WARPS = 1


@triton.jit(do_not_specialize=["blocks", "repeats", "shift"])
def stream(
    first,
    second,
    target,
    sums,
    blocks,
    repeats,
    shift,
    scale,
    READS: tl.constexpr,
    WRITES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Read (READS = 1), copy (1 and WRITES), write (0 and WRITES) or triad (2 and WRITES) `blocks` blocks of float32.

    Every repeat goes over the whole array, each time `shift` blocks further on, so that no program meets its own
    blocks again; loads bypass the first-level cache. `sums` gets one partial sum per program when nothing is written.
    """
    program = tl.program_id(0)
    lanes = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for repeat in range(repeats):
        for index in range(program, blocks, tl.num_programs(0)):
            offsets = ((index + repeat * shift) % blocks).to(tl.int64) * BLOCK + lanes
            value = tl.full((BLOCK,), 1.0, tl.float32) * scale
            if READS >= 1:
                value = tl.load(first + offsets, cache_modifier=".cg")
            if READS == 2:
                value += scale * tl.load(second + offsets, cache_modifier=".cg")
            if WRITES:
                tl.store(target + offsets, value)
            else:
                total += value
    if not WRITES:
        tl.store(sums + program, tl.sum(total, 0))


@triton.jit(do_not_specialize=["steps"])
def special(values, steps, BLOCK: tl.constexpr):
    """Replace each of `BLOCK` float32 values per program by exp2(-x), `steps` times, in registers."""
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(values + offsets)
    for _ in range(steps):
        value = tl.exp2(-value)
    tl.store(values + offsets, value)


@triton.jit
def empty(target):
    """Do nothing: what is left is the cost of a launch."""


@triton.jit
def _wait(counter, goal, POLL: tl.constexpr):
    """Spin until the counter reaches `goal`, then order what follows after what the others wrote before."""
    if POLL == "acquire":
        seen = goal - 1
        while seen < goal:
            seen = tl.inline_asm_elementwise(
                "ld.acquire.gpu.global.s32 $0, [$1];", "=r,l", [counter], dtype=tl.int32, is_pure=False, pack=1
            )
    else:
        if POLL == "volatile":
            while tl.load(counter, volatile=True) < goal:
                pass
        while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < goal:
            pass


@triton.jit(do_not_specialize=["steps"])
def grid_barrier(counter, slots, errors, steps, CHECK: tl.constexpr, POLL: tl.constexpr):
    """Make all programs wait for one another `steps` times inside one launch.

    `counter` is one int32 that starts at zero and only grows: step s is over when it reaches (s + 1) x programs.
    All programs must be on the device at once (a cooperative launch). With CHECK each program leaves its step in
    `slots` before the barrier and counts, after it, how often its neighbour's entry is older: `errors` must stay 0.
    """
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    wrong = 0
    for step in range(steps):
        if CHECK:
            tl.store(slots + program, step + 1)
        tl.debug_barrier()
        tl.atomic_add(counter, 1, sem="release", scope="gpu")
        _wait(counter, (step + 1) * programs, POLL)
        tl.debug_barrier()
        if CHECK:
            neighbour = tl.load(slots + (program + 1) % programs, volatile=True)
            wrong += tl.where(neighbour < step + 1, 1, 0)
    if CHECK:
        tl.store(errors + program, wrong)


@triton.jit(do_not_specialize=["steps"])
def dependent_chain(weights, state, steps, ROWS: tl.constexpr, SIZE: tl.constexpr):
    """Replace a float16 state (ROWS, SIZE) by sigmoid(state x weights), `steps` times, each waiting for the last."""
    row = tl.arange(0, ROWS)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    square = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    weight = tl.load(weights + square)
    value = tl.load(state + row)
    for _ in range(steps):
        value = tl.sigmoid(tl.dot(value, weight)).to(tl.float16)
    tl.store(state + row, value)


@triton.jit(do_not_specialize=["steps"])
def pointwise_chain(values, steps, scale, shift, LANES: tl.constexpr, UNROLLED: tl.constexpr):
    """Replace each of `LANES` float32 values by scale x value + shift, `steps` times `UNROLLED` times, one by one."""
    lanes = tl.arange(0, LANES)
    value = tl.load(values + lanes)
    for _ in range(steps):
        for _ in tl.static_range(UNROLLED):
            value = value * scale + shift
    tl.store(values + lanes, value)


_POINTERS = {"first": "*fp32", "second": "*fp32", "target": "*fp32", "sums": "*fp32"}
_COUNTS = {"blocks": "i32", "repeats": "i32", "shift": "i32", "scale": "fp32"}
STREAMS = {"read": (1, False), "copy": (1, True), "write": (0, True), "triad": (2, True)}

COMPILE = (
    *(
        CompileCase(
            label=f"{pattern} stream, blocks of {block}",
            kernel=stream,
            signature={**_POINTERS, **_COUNTS, "READS": "constexpr", "WRITES": "constexpr", "BLOCK": "constexpr"},
            constexprs={"READS": reads, "WRITES": writes, "BLOCK": block},
            divisible=tuple(_POINTERS),
            options={"num_warps": STREAM_WARPS},
            expects=("wide",) if reads else (),
            representative=pattern == "triad" and block == STREAM_BLOCKS[0],
        )
        for pattern, (reads, writes) in STREAMS.items()
        for block in STREAM_BLOCKS
    ),
    CompileCase(
        label="special functions",
        kernel=special,
        signature={"values": "*fp32", "steps": "i32", "BLOCK": "constexpr"},
        constexprs={"BLOCK": SPECIAL_BLOCK},
        divisible=("values",),
        options={"num_warps": SPECIAL_WARPS},
        representative=True,
    ),
    CompileCase(
        label="empty launch",
        kernel=empty,
        signature={"target": "*fp32"},
        divisible=("target",),
        options={"num_warps": 1},
    ),
    *(
        CompileCase(
            label=f"grid barrier, {poll} poll{', checked' if check else ''}",
            kernel=grid_barrier,
            signature={
                "counter": "*i32",
                "slots": "*i32",
                "errors": "*i32",
                "steps": "i32",
                "CHECK": "constexpr",
                "POLL": "constexpr",
            },
            constexprs={"CHECK": check, "POLL": poll},
            divisible=("counter", "slots", "errors"),
            options={"num_warps": BARRIER_WARPS, "launch_cooperative_grid": True},
            representative=not check,
        )
        for poll in POLLS
        for check in (False, True)
    ),
    CompileCase(
        label="dependent chain",
        kernel=dependent_chain,
        signature={
            "weights": "*fp16",
            "state": "*fp16",
            "steps": "i32",
            "ROWS": "constexpr",
            "SIZE": "constexpr",
        },
        constexprs={"ROWS": CHAIN_ROWS, "SIZE": CHAIN_SIZE},
        divisible=("weights", "state"),
        options={"num_warps": CHAIN_WARPS},
        expects=("tensor",),
        representative=True,
    ),
    CompileCase(
        label="pointwise chain",
        kernel=pointwise_chain,
        signature={
            "values": "*fp32",
            "steps": "i32",
            "scale": "fp32",
            "shift": "fp32",
            "LANES": "constexpr",
            "UNROLLED": "constexpr",
        },
        constexprs={"LANES": POINTWISE_LANES, "UNROLLED": POINTWISE_UNROLLED},
        divisible=("values",),
        options={"num_warps": POINTWISE_WARPS},
        representative=True,
    ),
)
