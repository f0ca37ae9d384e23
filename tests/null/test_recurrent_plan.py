"""How recurrences are cut into launches: all that is launched fits on the device and is compiled offline.

The launchers run on tensors of the device "meta", which hold no values, with kernels that only note how they are
started. So what is checked is what would be launched, at sizes whose weights would take seconds to draw.
"""

import contextlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, get_args

import pytest
import torch
from recurrences import DEVICE_CELLS

from seqroof.kernels import _recurrent, _recurrent_launch, _torch, _triton, gru, lstm, rnn
from seqroof.kernels import _recurrent_plan as planning
from seqroof.kernels import _recurrent_tiles as tiles
from seqroof.kernels._recurrent import Shape
from seqroof.kernels._recurrent_plan import Plan, Schedule, plan_depth, plan_for
from seqroof.kernels._recurrent_triton import LAYER_LAG
from seqroof.kernels._torch import DTYPES
from seqroof.profiler import compiled
from seqroof.roofline.contract import CompileCase
from seqroof.roofline.occupancy import TARGETS, WARP_THREADS, occupancy

pytestmark = pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")
compiles = pytest.mark.skipif(_triton.interpreted(), reason="TRITON_INTERPRET=1: interpreted kernels do not compile")

FILES = {"lstm": lstm, "gru": gru, "rnn_tanh": rnn, "rnn_relu": rnn}
cells = pytest.mark.parametrize("name", list(DEVICE_CELLS))

KIB = 1024
# Multiprocessors, and shared memory that one program may have. Sources: NVIDIA's pages of A100, H100 SXM and B200; CUDA
# C++ Programming Guide, "Technical Specifications per Compute Capability". A seventh of an H100 has 16 or 14 of them.
A100, H100, B200, SLICE = (108, 163 * KIB), (132, 227 * KIB), (148, 227 * KIB), (14, 227 * KIB)
MACHINES = {80: A100, 90: H100, 100: B200}
TARGET_OF = {machine: target for target, machine in MACHINES.items()} | {SLICE: 90}

# L, D, dilation, ragged
STACKS = [(1, 1, 1, 0), (4, 1, 1, 0), (1, 2, 1, 1), (3, 2, 1, 0), (2, 1, 3, 1)]
SCHEDULES = get_args(Schedule)
HIDDEN = (32, 50, 200, 257, 512, 768, 1024, 1300, 1536)
BATCHES = (1, 16, 17, 33, 65, 512)
ALL_HIDDEN = (*range(32, 1537, 32), 33, 50, 257, 513, 1000, 1535)
ALL_BATCHES = (1, 2, 8, 15, 16, 17, 31, 32, 33, 48, 64, 65, 128, 200, 256, 512)


@pytest.fixture(autouse=True)
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan as for a GPU, even where this process interprets its kernels."""
    for module in (planning, tiles):
        monkeypatch.setattr(module, "interpreted", lambda: False)


@dataclass(frozen=True)
class Launch:
    """One start of a kernel. values : its compile-time values and options. current : devices made current around it."""

    current: tuple[torch.device, ...]
    program: Any
    grid: tuple[int, ...]
    tensors: dict[str, torch.Tensor]
    numbers: dict[str, int]
    values: dict[str, Any]


class Noting:
    """Stands where a Triton function stands in the launchers; notes how it is started."""

    def __init__(self, kernel: Any, program: Any, launches: list[Launch], current: list[torch.device]) -> None:
        self.kernel, self.program, self.launches, self.current = kernel, program, launches, current

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def start(*arguments: Any, **values: Any) -> None:
            given = dict(zip((*self.kernel.tensors, *self.kernel.numbers), arguments, strict=True))
            tensors, numbers = (
                {name: given[name] for name in names} for names in (self.kernel.tensors, self.kernel.numbers)
            )
            self.launches.append(Launch(tuple(self.current), self.program, grid, tensors, numbers, values))

        return start


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """Everything that is launched from here on; nothing runs."""
    found: list[Launch] = []
    current: list[torch.device] = []

    @contextlib.contextmanager
    def on_device_of(tensor: torch.Tensor) -> Iterator[None]:
        current.append(tensor.device)
        yield
        current.pop()

    monkeypatch.setattr(_recurrent_launch, "on_device_of", on_device_of)
    for name in ("FORWARD", "BACKWARD"):
        kernel = getattr(_recurrent_launch, name)
        noting = {field: Noting(kernel, getattr(kernel, field), found, current) for field in ("aligned", "unaligned")}
        monkeypatch.setattr(_recurrent_launch, name, replace(kernel, **noting))
    return found


def call(
    monkeypatch: pytest.MonkeyPatch, name: str, shape: Shape, dtype: str, schedule: Schedule, machine: tuple[int, int],
    gradients: bool = True, recompute: bool = False,
) -> None:  # fmt: skip
    """Run a recurrence without values, forward and perhaps backward, where the schedule has that."""
    gradients = gradients and schedule != "streamed"
    monkeypatch.setattr(planning, "device_limits", lambda device: machine)
    monkeypatch.setattr(_torch, "tf32_allowed", lambda: dtype == "tf32")
    device = DEVICE_CELLS[name]
    tensors = {
        key: torch.empty(size, dtype=DTYPES[dtype], device="meta", requires_grad=gradients)
        for key, size in _recurrent.sizes_of(device.cell, shape).items()
        if key != "lengths"
    }
    if shape.ragged:
        tensors["lengths"] = torch.empty(shape.B, dtype=torch.int64, device="meta")
    outputs = _recurrent_launch.recurrence(device, shape, schedule, recompute, **tensors)
    if gradients:
        leaves = [tensor for tensor in tensors.values() if tensor.requires_grad]
        torch.autograd.grad(outputs, leaves, [torch.empty_like(output) for output in outputs])


@cache
def offline(name: str) -> dict[Any, CompileCase]:
    """The cases of COMPILE by all that a launch decides: the function, its types, its values and options."""
    return {
        _identity(case.kernel, {key: kind for key, kind in case.signature.items() if kind[0] == "*"},
                  case.constexprs | case.options): case
        for case in FILES[name].COMPILE
    }  # fmt: skip


def _identity(program: Any, types: dict[str, str], values: dict[str, Any]) -> Any:
    return id(program), frozenset(types.items()), frozenset((key, str(value)) for key, value in values.items())


_TYPES = {
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.int64: "*i64",
    torch.int32: "*i32",
}


def case_of(name: str, launch: Launch) -> CompileCase | None:
    """The case of COMPILE that a launch is, or None."""
    types = {key: _TYPES[tensor.dtype] for key, tensor in launch.tensors.items()}
    return offline(name).get(_identity(launch.program, types, launch.values))


def faults(name: str, launches: list[Launch], machine: tuple[int, int], dtype: str) -> Iterator[str]:
    """What is wrong with launches, in words."""
    sms, shared = machine
    for launch in launches:
        case = case_of(name, launch)
        if case is None:
            yield f"launched, not compiled: {launch.values}"
            continue
        if TARGET_OF[machine] not in case.targets:
            yield f"launched on sm_{TARGET_OF[machine]}, not compiled for it: {case.label}"
        if launch.current != (launch.tensors["exchange"].device,):
            yield f"launched on {launch.current} and not on the device of its tensors"
        programs, chains, groups = launch.grid
        H, values = launch.numbers["H"], launch.values
        if programs * values["UNITS"] < H or (programs - 1) * values["UNITS"] >= H:
            yield f"{programs} programs of {values['UNITS']} units for H={H}"
        if values["ALIGNED"] and H % 16:
            yield f"H={H} is taken for a multiple of 16"
        if not values["MULTI"] and groups * values["BATCH"] < launch.numbers["B"]:
            yield f"{groups} groups of {values['BATCH']} for B={launch.numbers['B']} in one tile each"
        steps = launch.numbers["last"] - launch.numbers["first"]
        if steps > 1 and (programs * chains * groups > sms or not values["launch_cooperative_grid"]):
            yield f"{launch.grid} programs wait for one another on {sms} processors"
        tile = tiles.Tile(*(values[key] for key in ("UNITS", "BATCH", "DEPTH", "CHUNKS", "FLIGHT")))
        if values["KEEP"]:
            if tile.chunks * tile.depth < H:
                yield f"{tile.chunks} x {tile.depth} columns are kept of H={H}"
            if tiles.shared_bytes(values["SLOTS"], tile, dtype, values.get("WAVE", False)) > shared:
                yield "more shared memory than there is"


def counted(launch: Launch) -> int:
    """Most elements of what a launch counts in 32 bits: weights of a chain, all states, and what a chain exchanges."""
    tensors = launch.tensors
    states = next(tensors[name] for name in ("state", "dstate") if name in tensors)
    rows, width = tensors["weight_hh"].shape[-2:]
    return max(rows * width, states.numel(), tensors["exchange"][0, 0].numel())


def _fails(
    monkeypatch: pytest.MonkeyPatch, launches: list[Launch], name: str, shape: Shape, dtype: str, schedule: Schedule,
    machine: tuple[int, int], **how: bool,
) -> list[str]:  # fmt: skip
    """Faults of one recurrence, named; what is planned to be refused must be refused by the launcher."""
    launches.clear()
    plan = plan_for(DEVICE_CELLS[name], shape, dtype, schedule, *machine)
    if isinstance(plan, str):
        with pytest.raises(ValueError, match=re.escape(plan)):
            call(monkeypatch, name, shape, dtype, schedule, machine, **how)
        return []
    call(monkeypatch, name, shape, dtype, schedule, machine, **how)
    found = list(faults(name, launches, machine, dtype))
    if not launches or (schedule == "resident" and any(launch.values["CHUNKS"] == 0 for launch in launches)):
        found.append("no launch that keeps the weights")
    return [f"{name} {shape} {dtype} {machine}: {fault}" for fault in found]


@cells
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_is_launched_fits_and_is_compiled(
    monkeypatch: pytest.MonkeyPatch, launches: list[Launch], name: str, schedule: Schedule
) -> None:
    """A spread of sizes, in which every hidden size meets every stack and every machine."""
    machines = itertools.cycle(itertools.product(("bf16", "fp32", "fp16", "tf32"), (H100, A100, B200, SLICE)))
    modes = itertools.cycle(({}, {"recompute": True}, {"gradients": False}))
    sizes = itertools.product(HIDDEN, BATCHES)
    found = []
    for (H, B), stack, (dtype, machine), how in zip(sizes, itertools.cycle(STACKS), machines, modes):
        found += _fails(monkeypatch, launches, name, Shape(B, 2, 3, H, *stack), dtype, schedule, machine, **how)
    assert found == []


@pytest.mark.long
@cells
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32", "tf32"])
@pytest.mark.parametrize("machine", [A100, H100, B200, SLICE], ids=["A100", "H100", "B200", "slice"])
def test_all_that_is_launched_fits_and_is_compiled(
    monkeypatch: pytest.MonkeyPatch,
    launches: list[Launch],
    name: str,
    schedule: Schedule,
    dtype: str,
    machine: tuple[int, int],
) -> None:
    found = []
    for H, B, stack in itertools.product(ALL_HIDDEN, ALL_BATCHES, STACKS):
        for how in ({}, {"recompute": True}, {"gradients": False}):
            found += _fails(monkeypatch, launches, name, Shape(B, 2, 3, H, *stack), dtype, schedule, machine, **how)
    assert found == []


@cells
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_programs_that_stream_are_refused_where_they_cannot_wait_for_one_another(name: str, dtype: str) -> None:
    cell, sms = DEVICE_CELLS[name], SLICE[0]
    largest = sms * tiles.units_of(cell.slots, dtype)
    assert isinstance(plan_for(cell, Shape(1, 8, 8, largest, D=2), dtype, "streamed", *SLICE), Plan)
    refusal = plan_for(cell, Shape(1, 8, 8, largest + 1), dtype, "streamed", *SLICE)
    assert refusal == (
        f"the {sms + 1} programs of H={largest + 1} in {dtype} wait for one another, and {sms} multiprocessors hold "
        f"one each; H={largest} is the largest that fits"
    )


# The largest sizes at which every offset fits into 32 bits, and the next. Weights have gates times H times the next
# multiple of 16 elements: 4 23168^2 < 2^31 < 4 23169 23184.
LARGEST = [
    ("lstm", "step", Shape(1, 1, 3, 23168), Shape(1, 1, 3, 23169)),
    ("gru", "step", Shape(1, 1, 3, 26752), Shape(1, 1, 3, 26753)),
    ("rnn_tanh", "step", Shape(1, 1, 3, 46336), Shape(1, 1, 3, 46337)),
    # Gradients of four slots are exchanged: 4 B H < 2^31.
    ("lstm", "resident", Shape(2**19 - 16, 1, 3, 1024), Shape(2**19 - 15, 1, 3, 1024)),
    ("lstm", "step", Shape(2**18 - 16, 1, 3, 2048), Shape(2**18 - 15, 1, 3, 2048)),
    # The states of both directions, of a single slot each.
    ("rnn_tanh", "resident", Shape(2**20 - 1, 1, 3, 1024, D=2), Shape(2**20, 1, 3, 1024, D=2)),
    # The states of as many layers as run together.
    ("rnn_tanh", "resident", Shape(2**19 - 1, 1, 3, 512, L=8), Shape(2**19, 1, 3, 512, L=8)),
    # 320 columns of a backward pass that this schedule does not have are counted, too.
    ("lstm", "streamed", Shape(1677712, 1, 3, 300), Shape(1677713, 1, 3, 300)),
]


@pytest.mark.parametrize(("name", "schedule", "largest", "beyond"), LARGEST)
def test_what_offsets_of_32_bits_do_not_reach_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    launches: list[Launch],
    name: str,
    schedule: Schedule,
    largest: Shape,
    beyond: Shape,
) -> None:
    call(monkeypatch, name, largest, "bf16", schedule, H100)
    assert max(counted(launch) for launch in launches) < 2**31
    refusal = plan_for(DEVICE_CELLS[name], beyond, "bf16", schedule, *H100)
    assert refusal == (
        f"with H={beyond.H} and {beyond.B} sequences, weights or states have 2^31 elements or more, and the kernels "
        "count them in 32 bits; take fewer units or sequences"
    )


@cells
def test_more_groups_than_a_grid_holds_are_refused(
    monkeypatch: pytest.MonkeyPatch, launches: list[Launch], name: str
) -> None:
    most = 65535 * 16
    call(monkeypatch, name, Shape(most, 1, 3, 16), "bf16", "step", H100)
    assert max(launch.grid[2] for launch in launches) == 65535
    refusal = plan_for(DEVICE_CELLS[name], Shape(most + 1, 1, 3, 16), "bf16", "step", *H100)
    assert refusal == (
        f"{most + 1} sequences are 65536 groups, and a launch has at most 65535; take at most {most} sequences"
    )
    assert isinstance(plan_for(DEVICE_CELLS[name], Shape(most + 1, 1, 3, 16), "bf16", "resident", *H100), Plan)


@cells
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_an_h100_keeps_the_weights_of_every_size_up_to_1536(name: str, dtype: str) -> None:
    refused = [
        H
        for H in range(32, 1537)
        if isinstance(plan_for(DEVICE_CELLS[name], Shape(1, 8, 8, H), dtype, "resident", *H100), str)
    ]
    assert refused == []


@cells
@pytest.mark.parametrize("dtype", ["bf16", "fp32", "tf32"])
@pytest.mark.parametrize("machine", [A100, H100, B200, SLICE, (132, 48 * KIB)], ids=str)
def test_a_refusal_names_the_largest_size_that_is_planned(name: str, dtype: str, machine: tuple[int, int]) -> None:
    cell = DEVICE_CELLS[name]
    refusal = plan_for(cell, Shape(1, 8, 8, 4096), dtype, "resident", *machine)
    assert isinstance(refusal, str)
    found = re.fullmatch(
        rf"the recurrent weights of H=4096 in {dtype} \((\d+)\.0 MiB\) do not fit on {machine[0]} multiprocessors with "
        rf"{machine[1] // KIB} KiB of shared memory each, one program on each; H=(\d+) is the largest that does",
        refusal,
    )
    assert found, refusal
    assert int(found[1]) == cell.slots * 4096**2 * DTYPES[dtype].itemsize / 2**20
    largest = int(found[2])
    assert isinstance(plan_for(cell, Shape(1, 8, 8, largest), dtype, "resident", *machine), Plan)
    for H in (largest + 1, largest + 16, 2 * largest):
        assert isinstance(plan_for(cell, Shape(1, 8, 8, H), dtype, "resident", *machine), str)


@pytest.mark.parametrize("name", ["lstm", "gru"])
@pytest.mark.parametrize("H", [1025, 1041])
def test_units_that_are_filled_up_count_among_the_programs(
    monkeypatch: pytest.MonkeyPatch, launches: list[Launch], name: str, H: int
) -> None:
    """Multiprocessors for the programs of H units, and of one unit more: what is planned is what is launched."""
    units, shape = tiles.units_of(DEVICE_CELLS[name].slots, "fp32"), Shape(1, 4, H, H)
    fewest = -(-H // units)
    for sms in range(fewest, fewest + 3):
        if isinstance(plan_for(DEVICE_CELLS[name], shape, "fp32", "resident", sms, 227 * KIB), str):
            continue
        call(monkeypatch, name, shape, "fp32", "resident", (sms, 227 * KIB))
        assert launches
        for launch in launches:
            assert launch.grid[0] * launch.grid[1] * launch.grid[2] <= sms, (launch.grid, sms)
    assert launches, "no number of multiprocessors was enough"


def test_where_no_size_fits_the_refusal_says_so() -> None:
    refusal = plan_for(lstm.DEVICE, Shape(1, 8, 8, 256), "bf16", "resident", 132, KIB)
    assert isinstance(refusal, str) and refusal.endswith("one program on each; no size does")


@pytest.mark.parametrize(("H", "L"), [(512, 4), (768, 2)])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_stack_on_an_h100_is_one_wavefront(
    monkeypatch: pytest.MonkeyPatch, launches: list[Launch], name: str, H: int, L: int
) -> None:
    shape = Shape(16, 64, H, H, L=L)
    plan = plan_for(DEVICE_CELLS[name], shape, "bf16", "resident", *H100)
    assert isinstance(plan, Plan) and plan.layers == L
    assert plan_depth(plan, shape, "forward") == 64 + LAYER_LAG * (L - 1)
    call(monkeypatch, name, shape, "bf16", "resident", H100, gradients=False)
    assert [launch.grid[1] for launch in launches] == [L] and launches[0].values["WAVE"]


@cells
@pytest.mark.parametrize("H", [256, 512, 768, 1024])
def test_both_directions_are_one_launch_on_an_h100(name: str, H: int) -> None:
    plan = plan_for(DEVICE_CELLS[name], Shape(16, 64, H, H, D=2), "bf16", "resident", *H100)
    assert isinstance(plan, Plan) and (plan.layers, plan.directions) == (1, 2)


@pytest.mark.parametrize(
    ("shape", "machine", "forward", "backward"),
    [
        (Shape(16, 10, 8, 512), H100, 10, 10),
        (Shape(16, 10, 8, 512, D=2), H100, 10, 10),
        # 96 programs for one direction: the other follows.
        (Shape(16, 10, 8, 1536, D=2), H100, 20, 20),
        # Four layers of 32 programs as one wavefront; backward layer by layer.
        (Shape(16, 10, 8, 512, L=4), H100, 10 + 3 * LAYER_LAG, 40),
        # Three layers of 16 programs fit beside one another, so one wavefront is of three layers and one of one.
        (Shape(16, 10, 8, 256, L=4), (50, 227 * KIB), 10 + 2 * LAYER_LAG + 10, 40),
        (Shape(16, 10, 8, 512, L=3, D=2), H100, 30, 30),
        (Shape(16, 10, 8, 512, dilation=4), H100, 3, 3),
    ],
)
def test_the_depth_is_the_steps_of_all_launches(
    monkeypatch: pytest.MonkeyPatch, launches: list[Launch], shape: Shape, machine: Any, forward: int, backward: int
) -> None:
    plan = plan_for(lstm.DEVICE, shape, "bf16", "resident", *machine)
    assert isinstance(plan, Plan)
    counted = [plan_depth(plan, shape, direction) for direction in ("forward", "backward", "both")]
    assert counted == [forward, backward, forward + backward]
    call(monkeypatch, "lstm", shape, "bf16", "resident", machine)
    steps = [launch.numbers["last"] - launch.numbers["first"] for launch in launches]
    is_forward = ["gx" in launch.tensors for launch in launches]
    assert sum(itertools.compress(steps, is_forward)) == forward and sum(steps) == forward + backward


@pytest.mark.parametrize(
    "shape", [Shape(16, 3, 8, 512, L=3, D=2), Shape(16, 3, 8, 1536, D=2), Shape(40, 3, 8, 256, L=5)], ids=str
)
@pytest.mark.parametrize("schedule", ["step", "resident"])
def test_every_direction_of_every_layer_is_launched_once(
    monkeypatch: pytest.MonkeyPatch, launches: list[Launch], shape: Shape, schedule: Schedule
) -> None:
    call(monkeypatch, "lstm", shape, "bf16", schedule, H100)
    for tensor in ("gx", "dy"):
        begins = [launch for launch in launches if tensor in launch.tensors and launch.numbers["first"] == 0]
        assert sum(launch.grid[1] for launch in begins) == shape.L * shape.D
        for launch in begins:
            chains = launch.numbers.get("layers", 1) * launch.numbers["D"]
            assert launch.numbers["first_chain"] + launch.grid[1] <= chains


# H up to what each target keeps of an LSTM. The ordinary run compiles what the others are between.
RESIDENT = [(90, H) for H in (256, 512, 768, 1024, 1536)] + [(80, 1024), (100, 1536)]
REST = [(80, H) for H in (256, 512, 768)] + [(100, H) for H in (256, 512, 768, 1024)]


@compiles
@pytest.mark.parametrize(("target", "H"), [*RESIDENT, *(pytest.param(*rest, marks=pytest.mark.long) for rest in REST)])
def test_programs_that_wait_for_one_another_are_on_the_device_together(
    monkeypatch: pytest.MonkeyPatch, launches: list[Launch], target: int, H: int
) -> None:
    """By the resources of the compiled programs; and the products of every step stand in the loop over time."""
    sms, shared_limit = MACHINES[target]
    call(monkeypatch, "lstm", Shape(16, 64, H, H), "bf16", "resident", (sms, shared_limit))
    assert len(launches) == 2
    for launch in launches:
        case = case_of("lstm", launch)
        assert case is not None and target in case.targets
        result = compiled.compile_case(case, target)
        tile = tiles.Tile(*(launch.values[key] for key in ("UNITS", "BATCH", "DEPTH", "CHUNKS", "FLIGHT")))
        assert result.shared_bytes <= tiles.shared_bytes(launch.values["SLOTS"], tile, "bf16", wave=False)
        per_sm = occupancy(result.resources, TARGETS[target]).programs
        assert per_sm >= 1 and launch.grid[0] * launch.grid[1] * launch.grid[2] <= sms * per_sm
        products = [entry for entry in result.program if entry.group == "tensor"]
        assert products and all(entry.in_loops == entry.count for entry in products)


STREAMED = [("lstm", 80), ("lstm", 90), ("lstm", 100), ("gru", 90), ("rnn_tanh", 90)]
OTHERS = [(name, target) for name in ("gru", "rnn_tanh") for target in (80, 100)]


@compiles
@pytest.mark.parametrize(
    ("name", "target"), [*STREAMED, *(pytest.param(*rest, marks=pytest.mark.long) for rest in OTHERS)]
)
def test_streamed_weights_are_read_in_the_loop_over_time(
    monkeypatch: pytest.MonkeyPatch, launches: list[Launch], name: str, target: int
) -> None:
    """Wide loads in the loop are more than the state alone would need, and those before it hold no tile of weights.

    A kernel that keeps the same weights reads all of them before the loop.
    """
    cell, before = DEVICE_CELLS[name], {}
    tile = planning.streaming_tile(cell, "bf16", 16, forward=True)
    rows = cell.slots * tile.units
    weights, state = (2 * tile.depth * lines for lines in (rows, tile.batch))
    access = 16 * WARP_THREADS * tile.warps  # bytes of a wide load of all threads
    for schedule in get_args(Schedule)[1:]:
        launches.clear()
        call(monkeypatch, name, Shape(16, 64, 512, 512), "bf16", schedule, MACHINES[target], gradients=False)
        assert [launch.numbers["last"] for launch in launches] == [64]
        case = case_of(name, launches[0])
        assert case is not None and target in case.targets
        result = compiled.compile_case(case, target)
        assert compiled.gates(case, result, target) == [] and occupancy(result.resources, TARGETS[target]).programs
        wide = [entry for entry in result.program if entry.group == "load" and entry.bits >= compiled.WIDE_BITS]
        before[schedule] = access * sum(entry.count - entry.in_loops for entry in wide)
        if schedule == "streamed":
            read_bytes = access * sum(entry.in_loops for entry in wide)
            assert read_bytes >= weights + state and read_bytes > tile.stages * state
    assert before["streamed"] < weights and before["resident"] >= 2 * cell.cell.gates * tile.units * 512
