"""Runs the Triton kernels of hierarchical attention: tiles, launches, gradients, and what is compiled without a GPU.

`triton` starts one kernel per level, `triton_tree` one for all levels. The gradients of both take one kernel per level,
from the top down, and one product per level for those of V.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ..roofline.contract import CompileCase
from ._hierarchical_triton import _gradients, _level, _tree
from ._torch import dtype_of, once_differentiable
from ._triton import checked_options, interpreted, tl, triton


@dataclass(frozen=True)
class Kernel:
    """One of the kernels, as two: one for tensors and P that allow 128-bit loads, one for anything else.

    tensors : names of its tensors of the dtype of x. others : those of sums and counters, whose address may be any.
    numbers : its integers besides P.
    """

    name: str
    aligned: Any
    unaligned: Any
    tensors: tuple[str, ...]
    others: dict[str, str]
    numbers: tuple[str, ...]

    @property
    def signature(self) -> dict[str, str]:
        """The Triton types of what does not depend on the dtype of x."""
        return {**self.others, **dict.fromkeys((*self.numbers, "P"), "i32")}


def _kernel(
    name: str, function: Any, tensors: tuple[str, ...], others: dict[str, str], numbers: tuple[str, ...]
) -> Kernel:
    free = (*others, *numbers)
    aligned = triton.jit(do_not_specialize=[*free])(function)
    unaligned = triton.jit(do_not_specialize=[*free, *tensors, "P"])(function)
    return Kernel(name, aligned, unaligned, tensors, others, numbers)


_INPUTS = ("x", "contexts", "V", "b", "q")
_SUMS = {"scores": "*fp32", "logarithms": "*fp32"}
_SIZES = ("windows", "share", "n", "above", "F")
LEVEL = _kernel("level", _level, _INPUTS, _SUMS, (*_SIZES, "keep"))
TREE = _kernel("tree", _tree, _INPUTS, {**_SUMS, "counters": "*i32"}, (*_SIZES, "B", "keep"))
BACKWARD = _kernel("backward", _gradients, (*_INPUTS, "dcontexts", "dx", "dhidden"), {**_SUMS, "sums": "*fp32"}, _SIZES)


@dataclass(frozen=True)
class Tile:
    """What one program does at a time: `rows` vectors against `columns` rows of V."""

    rows: int
    columns: int
    warps: int
    stages: int

    def options(self) -> dict[str, Any]:
        return checked_options(num_warps=self.warps, num_stages=self.stages)


# Windows up to this length share tiles, 16 rows for each; longer ones have tiles of their own, one or several.
SHORT = 16

# By the width of a tile, P rounded up to a power of two. Forward in 16-bit types two tiles are under way at a time.
_FORWARD_16_BIT = {32: Tile(128, 32, 4, 4), 64: Tile(128, 64, 8, 3), 128: Tile(128, 64, 8, 3), 256: Tile(64, 64, 8, 2)}
# sm_80 multiplies from registers, which do not hold V at this width.
_SM_80_FORWARD_128 = Tile(64, 32, 4, 1)
_FORWARD_TF32 = {32: Tile(128, 32, 4, 3), 64: Tile(64, 32, 4, 3), 128: Tile(64, 32, 8, 2), 256: Tile(32, 32, 8, 1)}
# Without tensor cores operands live in registers too.
_FORWARD_FP32 = {32: Tile(32, 32, 4, 1), 64: Tile(32, 32, 8, 1), 128: Tile(32, 32, 8, 1), 256: Tile(16, 16, 8, 1)}
_BACKWARD_16_BIT = {32: Tile(128, 32, 4, 3), 64: Tile(128, 64, 8, 3), 128: Tile(64, 32, 8, 1), 256: Tile(64, 16, 8, 1)}
_BACKWARD_TF32 = {32: Tile(64, 32, 4, 2), 64: Tile(64, 32, 8, 2), 128: Tile(64, 32, 8, 1), 256: Tile(32, 32, 8, 1)}
_BACKWARD_FP32 = {32: Tile(32, 32, 4, 1), 64: Tile(32, 32, 8, 1), 128: Tile(16, 32, 8, 1), 256: Tile(16, 16, 8, 1)}
_FORWARD = {"bf16": _FORWARD_16_BIT, "fp16": _FORWARD_16_BIT, "tf32": _FORWARD_TF32, "fp32": _FORWARD_FP32}
_BACKWARD = {"bf16": _BACKWARD_16_BIT, "fp16": _BACKWARD_16_BIT, "tf32": _BACKWARD_TF32, "fp32": _BACKWARD_FP32}
# Sizes that are no multiples of 16 are loaded element by element, which small tiles that keep nothing serve as well.
_UNALIGNED_FORWARD = {32: Tile(32, 32, 4, 1), 64: Tile(32, 32, 4, 1), 128: Tile(32, 32, 8, 1), 256: Tile(16, 16, 8, 1)}
_UNALIGNED_BACKWARD = {32: Tile(32, 32, 4, 1), 64: Tile(32, 32, 8, 1), 128: Tile(16, 32, 8, 1), 256: Tile(16, 16, 8, 1)}
# V stays in the program up to these widths; wider ones come from the cache, in blocks of `columns` rows.
_WIDEST_KEPT_FORWARD = {"bf16": 128, "fp16": 128, "tf32": 64, "fp32": 0, "fp64": 0}
_WIDEST_KEPT_BACKWARD = {"bf16": 64, "fp16": 64, "tf32": 32, "fp32": 0, "fp64": 0}
WIDTHS = tuple(_FORWARD_FP32)
WIDEST = WIDTHS[-1]

_PRECISION = {"bf16": "ieee", "fp16": "ieee", "fp32": "ieee", "fp64": "ieee", "tf32": "tf32"}
_ELEMENT = {"bf16": "*bf16", "fp16": "*fp16", "fp32": "*fp32", "tf32": "*fp32"}

# Programs per multiprocessor, as many as registers and shared memory hold of the most common tile.
_PROGRAMS_PER_PROCESSOR = 2
# Without a GPU the interpreter runs programs one after the other: three of them, which go through several tiles each.
_PROGRAMS_INTERPRETED = 3


@dataclass(frozen=True)
class Plan:
    """How one kernel is launched for tensors of a dtype: its tile, and what it is compiled for.

    width : P rounded up to a power of two. short : windows share tiles. padded : P is below the width, or may be.
    aligned : 128-bit loads. sm_80 : the GPU is older than sm_90.
    """

    kernel: Kernel
    dtype: str
    width: int
    short: bool
    padded: bool
    aligned: bool
    sm_80: bool = False

    @property
    def differs(self) -> bool:
        """Whether sm_80 has a tile of its own for this."""
        return self.aligned and self.kernel is not BACKWARD and self.dtype in ("bf16", "fp16") and self.width == 128

    @property
    def kept(self) -> bool:
        """Whether V stays in the program."""
        widest = _WIDEST_KEPT_BACKWARD if self.kernel is BACKWARD else _WIDEST_KEPT_FORWARD
        return self.aligned and self.width <= widest[self.dtype] and not (self.sm_80 and self.differs)

    @property
    def tile(self) -> Tile:
        backward = self.kernel is BACKWARD
        if not self.aligned:
            return (_UNALIGNED_BACKWARD if backward else _UNALIGNED_FORWARD)[self.width]
        if self.sm_80 and self.differs:
            return _SM_80_FORWARD_128
        return (_BACKWARD if backward else _FORWARD)["fp32" if self.dtype == "fp64" else self.dtype][self.width]

    @property
    def windows(self) -> int:
        """Windows of a tile."""
        return max(1, self.tile.rows // SHORT) if self.short else 1

    def constexprs(self, interpret: bool) -> dict[str, Any]:
        return {
            "WINDOWS": self.windows,
            "PLACES": self.tile.rows // self.windows,
            "WIDTH": self.width,
            "COLUMNS": self.tile.columns,
            "KEEP": self.kept,
            "PADDED": self.padded,
            "ACC": tl.float64 if self.dtype == "fp64" else tl.float32,
            "FAST": self.dtype in ("bf16", "fp16"),
            "PRECISION": _PRECISION[self.dtype],
            "INTERPRET": interpret,
        }

    def shares(self, windows: int, device: torch.device) -> tuple[int, int]:
        """Programs, and the windows of each: whole tiles, and one after the other, so that their parents are few."""
        if device.type == "cuda":
            most = _PROGRAMS_PER_PROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count
        else:
            most = _PROGRAMS_INTERPRETED
        tiles = -(-windows // self.windows)
        share = -(-tiles // most) * self.windows
        return -(-windows // share), share

    def launch(self, programs: int, tensors: Sequence[Tensor], **numbers: int) -> None:
        names = (*self.kernel.tensors, *self.kernel.others)
        kernel = self.kernel.aligned if self.aligned else self.kernel.unaligned
        kernel[(programs,)](
            **dict(zip(names, tensors, strict=True)),
            **numbers,
            **self.constexprs(interpreted()),
            **self.tile.options(),
        )

    def case(self) -> CompileCase:
        """Describe the launch to a compiler without a GPU."""
        constexprs = self.constexprs(interpret=False)
        kernel = self.kernel.aligned if self.aligned else self.kernel.unaligned
        tensor_cores = ("tensor",) if self.dtype != "fp32" else ()
        flags = [name for name in ("short", "sm_80") if getattr(self, name)]
        layout = ("padded" if self.padded else "exact") if self.aligned else "unaligned"
        return CompileCase(
            label=" ".join((self.kernel.name, self.dtype, f"P={self.width}", layout, *flags)),
            kernel=kernel,
            signature={
                **dict.fromkeys(self.kernel.tensors, _ELEMENT[self.dtype]),
                **self.kernel.signature,
                **dict.fromkeys(constexprs, "constexpr"),
            },
            constexprs=constexprs,
            divisible=(*self.kernel.tensors, "P") if self.aligned else (),
            options=self.tile.options(),
            targets=((80,) if self.sm_80 else (90, 100)) if self.differs else (80, 90, 100),
            expects=(*tensor_cores, "wide") if self.aligned else tensor_cores,
            representative=layout == "exact"
            and not self.short
            and (self.kernel.name, self.dtype, self.width) in _MIDDLE,
            rare=not self._is_usual(layout),
        )

    def _is_plain(self, layout: str) -> bool:
        return layout == "exact" and not self.short

    def _is_usual(self, layout: str) -> bool:
        """Whether the ordinary test run compiles it: bf16 in all forms at one width, other dtypes and widths in one."""
        plain = self._is_plain(layout)
        if self.kernel is TREE:
            return plain and self.dtype == "bf16" and self.width == 128
        if self.dtype == "bf16":
            return self.width == 128 or (plain and self.width > 32)
        return plain and self.width == 64 and self.dtype != "fp16"


# Compiled for every target in the ordinary test run.
_MIDDLE = {
    *(("level", dtype, 64) for dtype in ("bf16", "fp16", "tf32", "fp32")),
    *((name, "bf16", 128) for name in ("level", "tree", "backward")),
}


def compile_cases() -> list[CompileCase]:
    """Every configuration that can be launched."""
    layouts = [(False, False, True), (True, False, True), (False, True, True), (True, True, True), (True, True, False)]
    plans = [
        Plan(kernel, dtype, width, *layout)
        for kernel in (LEVEL, TREE, BACKWARD)
        for dtype in _ELEMENT
        for width in WIDTHS
        for layout in layouts
    ]
    return [plan.case() for plan in (*plans, *(replace(plan, sm_80=True) for plan in plans if plan.differs))]


def plan_for(kernel: Kernel, P: int, F: int, tensors: Sequence[Tensor]) -> Plan:
    """Choose the launch of a kernel for its tensors, the first of which has the dtype of all."""
    dtype = dtype_of(tensors[0])
    aligned = P % 16 == 0 and all(tensor.data_ptr() % 16 == 0 for tensor in tensors)
    width = max(WIDTHS[0], triton.next_power_of_2(P))
    device = tensors[0].device
    sm_80 = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] < 9
    # Without wide loads one form serves all windows.
    return Plan(kernel, dtype, width, F <= SHORT or not aligned, width != P or not aligned, aligned, sm_80)


@dataclass(frozen=True)
class _Run:
    """One call: sizes, the lengths of the levels, and how the levels are launched."""

    B: int
    P: int
    F: int
    lengths: tuple[int, ...]
    tree: bool
    keep: bool

    @property
    def levels(self) -> int:
        return len(self.lengths) - 1

    def sizes(self, level: int) -> dict[str, int]:
        """The numbers that kernels of a level take."""
        below, above = self.lengths[level : level + 2]
        return {"n": below, "above": above, "F": self.F, "P": self.P}


@dataclass
class _Saved:
    """What one call leaves for its gradients: contexts, scores and logarithms, level after level."""

    contexts: list[Tensor]
    scores: list[Tensor]
    logarithms: list[Tensor]


def hierarchy(lengths: tuple[int, ...], window: int, tree: bool, x: Tensor, V: Tensor, b: Tensor, q: Tensor) -> Any:
    """Compute the contexts of every level, differentiably; x (B, T, P), `lengths` n_0 to n_L, `window` F.

    tree : all levels in one launch. B = 0 gives empty contexts that depend on all inputs.
    """
    given = (x, V, b, q)
    if not len(x):
        nothing = torch.stack([tensor.sum() for tensor in given]).sum()
        return tuple(x.new_zeros(0, length, x.shape[2]) + nothing for length in lengths[1:])
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    run = _Run(x.shape[0], x.shape[2], window, lengths, tree, keep)
    return _Hierarchy.apply(run, *given)


def _plain(tensor: Tensor) -> Tensor:
    """Dense rows at an address that wide loads can take."""
    dense = tensor.contiguous()
    return dense if dense.data_ptr() % 16 == 0 else dense.clone()


def _split(flat: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """The parts of a tensor that lie one after the other along its first axis, `counts` long."""
    ends = [*accumulate(counts)]
    return [flat[end - count : end] for end, count in zip(ends, counts)]


class _Hierarchy(torch.autograd.Function):
    """x (B, T, P) and the weights of all levels -> the contexts of every level."""

    @staticmethod
    def forward(ctx: Any, run: _Run, *given: Tensor) -> tuple[Tensor, ...]:
        x, V, b, q = (_plain(tensor) for tensor in given)
        above = [run.B * length for length in run.lengths[1:]]
        below = [run.B * length for length in run.lengths[:-1]]
        kind = torch.float64 if x.dtype == torch.float64 else torch.float32
        contexts = x.new_empty(sum(above), run.P)
        # Not kept, they are not written either; a pointer is needed all the same.
        scores = x.new_empty(sum(below) if run.keep else 1, dtype=kind)
        logarithms = x.new_empty(sum(above) if run.keep else 1, dtype=kind)
        launch = _launch_tree if run.tree else _launch_levels
        launch(run, x, contexts, scores, logarithms, V, b, q)
        outputs = [part.view(run.B, -1, run.P) for part in _split(contexts, above)]
        if run.keep:
            ctx.run = run
            ctx.save_for_backward(x, V, b, q, scores, logarithms, *outputs)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, V, b, q, scores, logarithms, *contexts = ctx.saved_tensors
        run = ctx.run
        return None, *_backward(run, x, V, b, q, scores, logarithms, contexts, gradients)


def _launch_levels(
    run: _Run, x: Tensor, contexts: Tensor, scores: Tensor, logarithms: Tensor, V: Tensor, b: Tensor, q: Tensor
) -> None:
    """One launch per level, each of which reads what the one before has written."""
    source = x
    above = [run.B * length for length in run.lengths[1:]]
    below = [run.B * length for length in run.lengths[:-1]]
    tops = _split(contexts, above)
    kept = zip(_split(scores, below), _split(logarithms, above)) if run.keep else [(scores, logarithms)] * run.levels
    for level, (context, (score, logarithm)) in enumerate(zip(tops, kept)):
        tensors = (source, context, V[level], b[level], q[level], score, logarithm)
        plan = plan_for(LEVEL, run.P, run.F, tensors[:5])
        programs, share = plan.shares(above[level], x.device)
        plan.launch(programs, tensors, windows=above[level], share=share, keep=int(run.keep), **run.sizes(level))
        source = context


def _launch_tree(
    run: _Run, x: Tensor, contexts: Tensor, scores: Tensor, logarithms: Tensor, V: Tensor, b: Tensor, q: Tensor
) -> None:
    """All levels in one launch; the counters of the windows above the lowest level begin at zero."""
    windows = run.B * run.lengths[1]
    counters = torch.zeros(max(1, run.B * sum(run.lengths[2:])), dtype=torch.int32, device=x.device)
    tensors = (x, contexts, V, b, q, scores, logarithms, counters)
    plan = plan_for(TREE, run.P, run.F, tensors[:5])
    programs, share = plan.shares(windows, x.device)
    plan.launch(programs, tensors, windows=windows, share=share, B=run.B, keep=int(run.keep), **run.sizes(0))


def _backward(
    run: _Run, x: Tensor, V: Tensor, b: Tensor, q: Tensor, scores: Tensor, logarithms: Tensor,
    contexts: list[Tensor], gradients: Sequence[Tensor],
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of x, V, b and q, level by level from the top: one launch and one product each."""
    score = _split(scores, [run.B * length for length in run.lengths[:-1]])
    logarithm = _split(logarithms, [run.B * length for length in run.lengths[1:]])
    dV, db, dq = torch.empty_like(V), torch.empty_like(b), torch.empty_like(q)
    dsource: Tensor | None = None
    for level in reversed(range(run.levels)):
        source = contexts[level - 1] if level else x
        dcontext = _plain(gradients[level] if dsource is None else gradients[level] + dsource)
        dsource, dhidden = torch.empty_like(source), torch.empty_like(source)
        windows = run.B * run.lengths[level + 1]
        wide = (source, contexts[level], V[level], b[level], q[level], dcontext, dsource, dhidden)
        plan = plan_for(BACKWARD, run.P, run.F, wide)
        programs, share = plan.shares(windows, x.device)
        chunks = -(-min(run.F, run.lengths[level]) // (plan.tile.rows // plan.windows))
        tiles = programs * share // plan.windows * chunks
        # A program may have fewer tiles than its share: the others stay zero.
        sums = torch.zeros(tiles, 2, plan.width, dtype=scores.dtype, device=x.device)
        plan.launch(
            programs, (*wide, score[level], logarithm[level], sums), windows=windows, share=share, **run.sizes(level)
        )
        db[level], dq[level] = sums.sum(0)[:, : run.P]
        torch.matmul(dhidden.flatten(0, 1).t(), source.flatten(0, 1), out=dV[level])
    assert dsource is not None
    return dsource, dV, db, dq
