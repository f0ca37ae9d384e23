"""Runs the recurrent Triton kernels: the input products, the launches of every layer, and the gradients.

`triton_step` starts one kernel per time step, which reads the recurrent weights anew: a recurrence that streams its
weights. `triton_resident` starts one kernel for the whole sequence; its programs keep the weights on chip.
`triton_streamed`, forward only and layer by layer, has the same programs and barriers and reads the weights anew at
every step. All do the input product of a layer beforehand, for all steps. Letters as in `_recurrent`; after folding, T
steps of B sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from . import _recurrent_plan as planning
from ._recurrent import Shape, check, fold, folded_lengths, unfold
from ._recurrent_backward import BACKWARD
from ._recurrent_forward import FORWARD
from ._recurrent_padding import cut_back, fill_up, filled_up
from ._recurrent_plan import Plan, Schedule
from ._recurrent_tiles import DeviceCell, Tile, Variant, acc_of, columns_of, constants, options
from ._recurrent_triton import LAYER_LAG
from ._torch import dtype_of, once_differentiable
from ._triton import on_device_of

# int32 counters of two groups must not share a line of the cache: 128 bytes.
_COUNTER_STRIDE = 32


@dataclass(frozen=True)
class _Run:
    """One call: cell, sizes after folding, plan, whether gradients are wanted, and whether gates are kept for them."""

    cell: DeviceCell
    dtype: str
    T: int
    B: int
    H: int
    L: int
    D: int
    plan: Plan
    save: bool
    recompute: bool


@dataclass
class _Layers:
    """Layers `first` and on, after one launch: their input, y (layers, T, B, D, H), and what the cell saves."""

    first: int
    source: Tensor
    y: Tensor
    saved: Tensor | None
    carries: Tensor | None

    def input_of(self, index: int) -> Tensor:
        """The input (T, B, ...) of one of these layers: the source, or the outputs of the layer below."""
        return self.source if index == 0 else self.y[index - 1].flatten(2)

    @property
    def output(self) -> Tensor:
        """The outputs (T, B, D H) of the highest of these layers."""
        return self.y[-1].flatten(2)

    @property
    def kept(self) -> tuple[Tensor | None, ...]:
        """What the gradients need besides the source."""
        return self.y, self.saved, self.carries


def recurrence(
    cell: DeviceCell, shape: Shape, schedule: Schedule, recompute: bool = False, **tensors: Any
) -> tuple[Tensor, ...]:
    """Compute a stack as the reference does, differentiably; returns y, h_n and perhaps c_n.

    schedule : see `Schedule`. recompute : keep no gates for the gradients, compute them again by one product; the bytes
        that either leaves behind are `saved_bytes` of the kernel's cost with the same parameter.
    Raises ValueError with a sentence for tensors that do not fit the shape, programs or weights that do not fit on
    chip, and gradients asked of the schedule "streamed".
    """
    check(cell.cell, shape, tensors)
    if not shape.B:
        return _nothing(cell, shape, tensors)
    run, lengths, x, given = _planned(cell, shape, schedule, recompute, tensors)
    y, *states = _Recurrence.apply(run, lengths, x, *given)  # pyright: ignore[reportGeneralTypeIssues]
    if run.H != shape.H:
        y, *states = cut_back(shape, y, *states)
    return unfold(shape, y), *states


def _planned(
    cell: DeviceCell, shape: Shape, schedule: Schedule, recompute: bool, tensors: dict[str, Any]
) -> tuple[_Run, Tensor | None, Tensor, list[Tensor | None]]:
    """Plan a call; returns the plan, the folded lengths, the folded x, and weights and states in a fixed order, for as
    many units as the kernels take."""
    x = fold(shape, tensors["x"])
    dtype = dtype_of(x)
    plan = planning.plan_for(cell, shape, dtype, schedule, *planning.device_limits(x.device))
    if isinstance(plan, str):
        raise ValueError(plan + ".")
    names = ("weight_ih", "weight_ih_upper", "weight_hh", "bias", "h_0", "c_0")
    given = [tensors.get(name) for name in names]
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *given))
    if save and schedule == "streamed":
        raise ValueError(
            "The schedule 'streamed' computes no gradients; take 'step' or 'resident', or torch.no_grad()."
        )
    units = filled_up(shape.H) if schedule == "resident" else shape.H
    if units != shape.H:
        given = fill_up(cell.cell, shape, units, given)
    sizes = (shape.folded_steps, shape.folded_rows, units, shape.L, shape.D)
    run = _Run(cell, dtype, *sizes, plan, save, recompute)
    return run, folded_lengths(shape, tensors.get("lengths"), x.device), x, given


@dataclass(frozen=True)
class Phases:
    """The two halves of a forward pass, each on what the other has computed beforehand.

    multiply : the input product (T B, D G H) of the lowest layer of every launch, for all its steps.
    advance : every launch, given those products; returns y (T, B, D H) after folding.
    layers : layers of one launch; all but the lowest multiply their inputs inside the steps.
    """

    multiply: Callable[[], list[Tensor]]
    advance: Callable[[], Tensor]
    layers: int


@torch.no_grad()
def phases(cell: DeviceCell, shape: Shape, schedule: Schedule, **tensors: Any) -> Phases:
    """Prepare both halves of `recurrence` without gradients; raises what it raises. B must be at least 1."""
    check(cell.cell, shape, tensors)
    run, lengths, x, given = _planned(cell, shape, schedule, False, tensors)
    stack, x = _stack_of(run, lengths, x, given)
    states, source = stack.states(x), x
    operands: list[tuple[Tensor, Tensor]] = []
    products: list[Tensor] = []
    for first in stack.launches:
        operands.append((source, stack.input_weight(first)))
        products.append(_product(*operands[-1]))
        source = _launch_layers(stack, first, source, products[-1], *states).output

    @torch.no_grad()
    def multiply() -> list[Tensor]:
        return [_product(*pair) for pair in operands]

    @torch.no_grad()
    def advance() -> Tensor:
        states, y = stack.states(x), x
        for first, (source, _), product in zip(stack.launches, operands, products, strict=True):
            y = _launch_layers(stack, first, source, product, *states).output
        return y

    return Phases(multiply, advance, run.plan.layers)


def _nothing(cell: DeviceCell, shape: Shape, tensors: dict[str, Any]) -> tuple[Tensor, ...]:
    """Give the results for no sequences: empty tensors that depend on all inputs, so that all gradients are zero."""
    x = tensors["x"]
    nothing = torch.stack([t.sum() for t in tensors.values() if t is not None and t.is_floating_point()]).sum()
    y = x.new_zeros(shape.T, 0, shape.D * shape.H) + nothing
    state = x.new_zeros(shape.L * shape.D, 0, shape.H) + nothing
    return (y,) + (state,) * cell.cell.states


def _plain(tensor: Tensor) -> Tensor:
    """Dense rows at an address that wide loads can take."""
    dense = tensor.contiguous()
    return dense if dense.data_ptr() % 16 == 0 else dense.clone()


def _wide(weight: Tensor) -> Tensor:
    """The weights with zeros after each row up to the next multiple of 16, so that all rows suit wide loads."""
    missing = -weight.shape[-1] % 16
    return F.pad(weight, (0, missing)) if missing else weight


def _state(run: _Run, start: Tensor | None, like: Tensor) -> Tensor:
    """A state (L D, B, H) in the type of the sums, zeros where none is given; a kernel overwrites it."""
    kind = acc_of(run.dtype)[1]
    if start is None:
        return torch.zeros(run.L * run.D, run.B, run.H, dtype=kind, device=like.device)
    return torch.empty_like(start, dtype=kind, memory_format=torch.contiguous_format).copy_(start)


@dataclass(frozen=True)
class _Stack:
    """What all launches of a call share: the run, dense weights and initial states, and the ends of the rows (B)."""

    run: _Run
    weight_ih: Tensor
    upper: Tensor | None
    weight_hh: Tensor
    bias: Tensor
    h_0: Tensor | None
    c_0: Tensor | None
    ends: Tensor

    @property
    def launches(self) -> range:
        """The lowest layer of every launch."""
        return range(0, self.run.L, self.run.plan.layers)

    def input_weight(self, layer: int) -> Tensor:
        """The weights (D, G H, ...) that multiply the input of a layer."""
        return self.weight_ih if layer == 0 or self.upper is None else self.upper[layer - 1]

    def states(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Fresh h and c for the kernels to overwrite; the same tensor twice for a cell without c."""
        state = _state(self.run, self.h_0, like)
        return state, _state(self.run, self.c_0, like) if self.run.cell.carries else state


def _stack_of(run: _Run, lengths: Tensor | None, x: Tensor, given: Sequence[Tensor | None]) -> tuple[_Stack, Tensor]:
    """Make weights and states dense, and blank what lies after the end of a row in x (T, B, I)."""
    weight_ih, upper, weight_hh, bias, h_0, c_0 = (None if tensor is None else _plain(tensor) for tensor in given)
    assert weight_ih is not None and weight_hh is not None and bias is not None
    ends = lengths
    if ends is None:
        ends = torch.full((run.B,), run.T, dtype=torch.int64, device=x.device)
    else:  # what lies after the end of a row must not reach a gradient as 0 times infinity
        x = torch.where((torch.arange(run.T, device=x.device)[:, None] < ends)[..., None], x, 0)
    return _Stack(run, weight_ih, upper, weight_hh, bias, h_0, c_0, ends), x


class _Recurrence(torch.autograd.Function):
    """A stack over folded sequences: x (T, B, I) -> y (T, B, D H) and the last states (L D, B, H)."""

    @staticmethod
    def forward(ctx: Any, run: _Run, lengths: Tensor | None, x: Tensor, *given: Tensor | None) -> tuple[Tensor, ...]:
        stack, inputs = _stack_of(run, lengths, x, given)
        source = inputs
        state, carry = stack.states(x)
        layers: list[_Layers] = []
        for first in stack.launches:
            product = _product(source, stack.input_weight(first))
            done = _launch_layers(stack, first, source, product, state, carry)
            source = done.output
            layers.append(done)
        if run.save:
            ctx.run, ctx.firsts = run, [done.first for done in layers]
            shared = (stack.weight_ih, stack.upper, stack.weight_hh, stack.bias, stack.h_0, stack.c_0)
            # All of it, so that what is overwritten before the backward pass is noticed, and freed after it.
            ctx.save_for_backward(stack.ends, *shared, inputs, *(tensor for done in layers for tensor in done.kept))
        states = (state, carry) if run.cell.carries else (state,)
        # Detached, else it would count as a view of y, and lose its gradients where it is overwritten without them.
        return source.detach(), *(final.to(x.dtype) for final in states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        ends, *saved = ctx.saved_tensors
        layers = _layers_again(ctx.firsts, saved[6], saved[7:])
        return (None, None, *_gradients(ctx.run, layers, ends, tuple(saved[:6]), *grad_outputs))


def _layers_again(firsts: list[int], source: Tensor, kept: list[Any]) -> list[_Layers]:
    """What every launch left, from what was kept of each: the outputs of one are the input of the next."""
    layers: list[_Layers] = []
    for index, first in enumerate(firsts):
        layers.append(_Layers(first, source, *kept[3 * index : 3 * index + 3]))
        source = layers[-1].output
    return layers


def _product(source: Tensor, weight: Tensor) -> Tensor:
    """Multiply the input (T, B, ...) of a layer by its weights (D, G H, ...), all steps at once: (T B, D G H)."""
    return source.flatten(0, 1) @ weight.flatten(0, 1).t()


def _launch_layers(stack: _Stack, first: int, source: Tensor, product: Tensor, state: Tensor, carry: Tensor) -> _Layers:
    """Launch layer `first`, given its input product, with as many layers above it as the plan says.

    `state` and `carry` become those after the last step; where gates are kept, they may take the place of the product.
    """
    run, upper = stack.run, stack.upper
    cell, plan, slots = run.cell, run.plan, run.cell.slots
    count = min(plan.layers, run.L - first)
    chains = slice(first * run.D, (first + count) * run.D)
    y = source.new_empty(count if run.save else 1, run.T, run.B, run.D, run.H)
    saved = carries = None
    save_slots = run.save and slots > 1 and not run.recompute
    if save_slots:
        # One layer's values take the place of its input product, which is read just before they are written.
        in_place = count == 1 and slots == cell.cell.gates
        size = (count, run.T, run.B, run.D, slots, run.H)
        saved = product.view(size) if in_place else source.new_empty(size)
    if run.save and cell.carries:
        carries = torch.empty_like(y)
    tile = plan.forward
    exchange = _exchange(run, tile, count * run.D, 1, source)
    weight_hh = _wide(stack.weight_hh[first : first + count])
    exchange[-1, :, : run.B, 0, : run.H] = state[chains]
    below = weight_hh if upper is None or count == 1 else _wide(upper[first : first + count - 1])
    tensors = (
        product, weight_hh, below, stack.bias[first:], stack.ends, state[chains], carry[chains], y,
        y if saved is None else saved, y if carries is None else carries, exchange,
    )  # fmt: skip
    sizes = (run.T, run.B, run.H, run.D, count, count - len(y))
    _launch(run, True, tile, plan.groups, count, run.T + LAYER_LAG * (count - 1), tensors, sizes)
    return _Layers(first, source, y, saved, carries)


def _exchange(run: _Run, tile: Tile, chains: int, slots: int, like: Tensor) -> Tensor:
    """The buffer in which programs exchange the state: three parts of zeros, (3, chains, rows, slots, columns)."""
    rows = -(-run.B // tile.batch) * tile.batch
    return like.new_zeros(3, chains, rows, slots, columns_of(tile, run.H))


def _launch(
    run: _Run, forward: bool, tile: Tile, groups: int, layers: int, steps: int,
    tensors: tuple[Tensor, ...], sizes: tuple[int, ...],
) -> None:  # fmt: skip
    """Start the kernel once for all steps, or once per step; directions that do not fit together follow in turn."""
    exchange, plan = tensors[-1], run.plan
    per_launch = layers * min(plan.directions, run.D)
    several = -(-run.B // tile.batch) > groups
    variant = Variant.of(run.cell, run.H, several, layers > 1, forward and run.save, run.recompute)
    compiled = {
        **constants(run.cell, tile, run.dtype, variant, forward),
        **options(run.cell, tile, variant, plan.stepwise, forward),
    }
    program = (FORWARD if forward else BACKWARD).program(variant.aligned)
    grid = (-(-run.H // tile.units), per_launch, groups)
    ranges = [(step, step + 1) for step in range(steps)] if plan.stepwise else [(0, steps)]
    with on_device_of(exchange):
        for first_chain in range(0, layers * run.D, per_launch):
            counters = torch.zeros(groups * run.D * _COUNTER_STRIDE, dtype=torch.int32, device=exchange.device)
            for first, last in ranges:
                program[grid](*tensors, counters, first, last, *sizes, first_chain, exchange.shape[2], **compiled)


def _gradients(
    run: _Run, layers: list[_Layers], ends: Tensor, given: tuple[Any, ...], dy: Tensor, *dstates: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of x, weight_ih, weight_ih_upper, weight_hh, bias, h_0 and c_0, layer by layer from the top."""
    weight_ih, upper, weight_hh, bias, h_0, c_0 = given
    dweight_hh, dbias = torch.empty_like(weight_hh), torch.empty_like(bias)
    dweight_ih = torch.empty_like(weight_ih)
    dupper = None if upper is None else torch.empty_like(upper)
    inner = [] if upper is None or dupper is None else list(zip(upper, dupper))
    dstate = _state(run, dstates[0], dy)
    dcarry = _state(run, dstates[1], dy) if run.cell.carries else dstate
    dsource = dy
    for done in reversed(layers):
        for index in reversed(range(len(done.y))):
            layer = done.first + index
            one = slice(layer * run.D, (layer + 1) * run.D)
            source = done.input_of(index)
            weight, dweight = (weight_ih, dweight_ih) if layer == 0 else inner[layer - 1]
            start = torch.zeros_like(done.y[0, 0]).transpose(0, 1) if h_0 is None else h_0[one]
            carry_0 = None if not run.cell.carries else torch.zeros_like(start) if c_0 is None else c_0[one]
            saved = _saved(run, done, index, weight, weight_hh[layer], bias[layer], start, ends)
            track = done.y[index] if done.carries is None else done.carries[index]
            track_0 = start if carry_0 is None else carry_0
            dslots = _layer_gradients(
                run, dsource, weight_hh[layer], ends, dstate[one], dcarry[one], track, track_0, saved
            )
            dsource = _weight_gradients(
                run, dslots, source, done.y[index], start, ends, weight, weight_hh[layer],
                dweight, dweight_hh[layer], dbias[layer], dstate[one],
            )  # fmt: skip
    dh_0 = None if h_0 is None else dstate.to(dy.dtype)
    dc_0 = None if c_0 is None else dcarry.to(dy.dtype)
    return dsource, dweight_ih, dupper, dweight_hh, dbias, dh_0, dc_0


def _saved(
    run: _Run, done: _Layers, index: int, weight: Tensor, weight_hh: Tensor, bias: Tensor, start: Tensor, ends: Tensor
) -> Tensor | None:
    """What the cell saved in the forward pass (T, B, D, slots, H), or the same computed again for all steps at once."""
    if done.saved is not None:
        return done.saved[index]
    if run.cell.activate is None:
        return None
    source, y = done.input_of(index), done.y[index]
    saved = y.new_empty(run.T, run.B, run.D, run.cell.slots * run.H)
    columns = run.cell.cell.gates * run.H
    for d in range(run.D):
        earlier = torch.cat((start[None, d], y[:-1, :, d]) if d == 0 else (y[1:, :, d], start[None, d]))
        if d == 1:  # a row that ends early begins with its initial state
            earlier[(ends - 1).clamp(min=0), torch.arange(run.B, device=ends.device)] = start[d]
        of_state = F.pad(bias[d, columns:], (2 * columns - bias.shape[1], 0)) if bias.shape[1] > columns else None
        gx, gh = F.linear(source, weight[d], bias[d, :columns]), F.linear(earlier, weight_hh[d], of_state)
        saved[:, :, d] = run.cell.activate(gx, gh)
    return saved.view(run.T, run.B, run.D, run.cell.slots, run.H)


def _layer_gradients(
    run: _Run, dy: Tensor, weight_hh: Tensor, ends: Tensor, dstate: Tensor, dcarry: Tensor,
    track: Tensor, track_0: Tensor, saved: Tensor | None,
) -> Tensor:  # fmt: skip
    """Gradients before the nonlinearities, (T, B, D, slots, H); dstate, dcarry (D, B, H) become those before step 0."""
    tile = run.plan.backward
    # Not in the place of what was saved: the graph may be kept and gone through again.
    dslots = dy.new_empty(run.T, run.B, run.D, run.cell.slots, run.H)
    exchange = _exchange(run, tile, run.D, run.cell.slots, dy)
    tensors = (
        dy.contiguous(), _wide(weight_hh), ends, dstate, dcarry, track, track_0,
        dslots if saved is None else saved, dslots, exchange,
    )  # fmt: skip
    _launch(run, False, tile, run.plan.backward_groups, 1, run.T, tensors, (run.T, run.B, run.H, run.D))
    return dslots


def _state_slots(run: _Run) -> list[tuple[slice, slice]]:
    """Which columns of the slots' gradients belong to which rows of the recurrent weights."""
    H, gates, slots = run.H, run.cell.cell.gates, run.cell.slots
    if gates == slots:
        return [(slice(0, gates * H), slice(0, gates * H))]
    cut = (gates - 1) * H  # the last gate's rows belong to the slot after the input's part of that gate
    return [(slice(0, cut), slice(0, cut)), (slice(gates * H, slots * H), slice(cut, gates * H))]


def _weight_gradients(
    run: _Run, dslots: Tensor, source: Tensor, y: Tensor, start: Tensor, ends: Tensor, weight: Tensor,
    weight_hh: Tensor, dweight: Tensor, dweight_hh: Tensor, dbias: Tensor, dstate: Tensor,
) -> Tensor:  # fmt: skip
    """Fill in the gradients of one layer's weights, one product over all steps each; returns that of its input.

    dstate (D, B, H) lacks what comes through the recurrent weights in the last step of the backward pass; that is added
    here. A row whose reverse direction begins earlier was inactive then, and has no gradients there.
    """
    tokens = run.T * run.B
    columns = run.cell.cell.gates * run.H
    values = source.reshape(tokens, -1)
    dsource: Tensor | None = None
    dbias.copy_(dslots.sum((0, 1)).flatten(1))
    for d in range(run.D):
        slots = dslots[:, :, d].flatten(2)  # (T, B, slots H)
        of_input = slots.reshape(tokens, -1)[:, :columns]
        torch.mm(of_input.t(), values, out=dweight[d])
        through = of_input @ weight[d]
        dsource = through if dsource is None else dsource + through
        # The state before a step is the output of the one before; before a row's first step it is the initial one.
        later, earlier = (slots[1:], y[:-1, :, d]) if d == 0 else (slots[:-1], y[1:, :, d])
        begins = slots[0] if d == 0 else slots[(ends - 1).clamp(min=0), torch.arange(run.B, device=ends.device)]
        final = slots[0] if d == 0 else slots[-1]
        for part, rows in _state_slots(run):
            torch.mm(begins[:, part].t(), start[d], out=dweight_hh[d, rows])
            if run.T > 1:
                dweight_hh[d, rows] += later[..., part].flatten(0, 1).t() @ earlier.flatten(0, 1)
            dstate[d] += (final[:, part] @ weight_hh[d, rows]).to(dstate.dtype)
    assert dsource is not None  # there is at least one direction
    return dsource.view(run.T, run.B, -1)
