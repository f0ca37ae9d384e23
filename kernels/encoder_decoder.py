"""y_s = tanh(W_c [sum_t softmax_t(h_s . e_t) e_t; h_s]), h = LSTM decoder of the target, e = LSTM encoder of the source

Translation by recurrent networks: an encoder reads the source, first in both directions, then by a stack of layers in
one; a decoder reads the target, which is given at every step (teacher forcing), and attends to the encoder's outputs.

B batch, T source steps, S target steps, I embedding size of both, H hidden size, L layers of the encoder and of the
decoder, E = H (2H for L = 1) size of an encoder output e.
score 0 (Luong), the equation above: the decoder runs over all steps, and attention is one call for all of them.
score 1 (Bahdanau): y_s = h_s, and the decoder's first layer reads [x_s; sum_t softmax_t(v . tanh(W_q h_(s-1) +
W_k e_t)) e_t], so that attention is inside the chain of steps; h is the output of the decoder's highest layer.
The encoder begins with zeros. Layer l of the decoder begins with the last states of layer l of the encoder; of its
first layer those are the states of the forward direction. There are no residual connections.

source (T, B, I), target (S, B, I), and the weights of three stacks in the form of the kernel lstm:
first_weight_ih (2, 4H, I), first_weight_hh (1, 2, 4H, H), first_bias (1, 2, 4H);
if L > 1: stack_weight_ih (1, 4H, 2H), stack_weight_ih_upper (L-2, 1, 4H, H) if L > 2, stack_weight_hh (L-1, 1, 4H, H),
stack_bias (L-1, 1, 4H); decoder_weight_ih (1, 4H, I), with score 1 (1, 4H, I + E), decoder_weight_ih_upper
(L-1, 1, 4H, H) if L > 1, decoder_weight_hh (L, 1, 4H, H), decoder_bias (L, 1, 4H);
score 0: output_weight W_c (H, 2H); score 1: query_weight W_q (H, H), key_weight W_k (H, E), score_weight v (H).
-> y (S, B, H).

Source: Wu et al., Google's Neural Machine Translation System, arXiv 1609.08144, 2016; Luong, Pham and Manning,
Effective Approaches to Attention-based Neural Machine Translation, EMNLP 2015, with the score "dot" and without input
feeding; Bahdanau, Cho and Bengio, Neural Machine Translation by Jointly Learning to Align and Translate, ICLR 2015.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..roofline.contract import CompileCase, Implementation, PartCall
from ..roofline.work import Work
from . import _encoder_decoder_cost, _recurrent, _recurrent_cost, attention, lstm
from ._encoder_decoder_cost import PARTS, costs_of, passes_of
from ._torch import DTYPES, check_tensors, generator, normal, run_compiled, why_no_compiler

Stack = _recurrent.Shape


@dataclass(frozen=True)
class Shape:
    """Sizes of one translation: B pairs of T source and S target steps of I values, L layers of H units.

    score : 0 for Luong's dot product after the decoder, 1 for Bahdanau's additive score before every step of it.
    """

    B: int
    T: int
    S: int
    I: int
    H: int
    L: int = 2
    score: int = 0

    def __post_init__(self) -> None:
        for name, sequence in (("T", "source"), ("S", "target")):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}: the {sequence} needs a step")
        if self.B < 0:
            raise ValueError(f"B must be at least 0, not {self.B}")
        for name in ("I", "H", "L"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.score not in (0, 1):
            raise ValueError(f"score must be 0 (Luong, dot product) or 1 (Bahdanau, additive), not {self.score}")
        if self.score == 0 and self.L == 1:
            raise ValueError(
                "L must be at least 2 with score=0: the one layer's outputs hold both directions, 2H values, and have "
                "no dot product with the decoder's H; take score=1 or L=2"
            )

    @property
    def E(self) -> int:
        """Size of an encoder output: both directions of the only layer, or the highest layer's units."""
        return self.H if self.L > 1 else 2 * self.H

    @property
    def stacks(self) -> dict[str, Stack]:
        """The recurrent stacks as shapes of the kernel lstm, by the prefix of their weights."""
        found = {"first": Stack(self.B, self.T, self.I, self.H, D=2)}
        if self.L > 1:
            found["stack"] = Stack(self.B, self.T, 2 * self.H, self.H, L=self.L - 1)
        return found | {"decoder": Stack(self.B, self.S, self.I + self.E * self.score, self.H, L=self.L)}


SHAPES = {
    "quick": [Shape(3, 3, 2, 19, 21, score=1), Shape(8, 20, 20, 128, 128)],
    "standard": [
        # A small system of Wu et al.: batch, then length, each with both scores.
        *(Shape(B, 30, 30, 256, 256, L=4, score=score) for B in (1, 16, 64) for score in (0, 1)),
        *(Shape(16, T, T, 256, 256, score=score) for T in (15, 60) for score in (0, 1)),
    ],
    "full": [
        *(Shape(B, 50, 50, 1024, 1024, L=4, score=score) for B in (16, 128) for score in (0, 1)),
        Shape(16, 50, 50, 1024, 1024, L=8),
    ],
}
# One layer, three, sequences of one step, and sizes beside those of tiles; few steps, for Triton's interpreter.
ODD = [
    Shape(2, 2, 1, 7, 17, L=3),
    Shape(3, 1, 2, 16, 32),
    Shape(1, 2, 1, 5, 18, L=1, score=1),
    Shape(2, 1, 2, 16, 16, score=1),
]


def sizes_of(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Size of every input tensor by name, in the order of the docstring."""
    sizes: dict[str, tuple[int, ...]] = {
        "source": (shape.T, shape.B, shape.I),
        "target": (shape.S, shape.B, shape.I),
    }
    for prefix, stack in shape.stacks.items():
        for name, size in _recurrent.sizes_of(lstm.CELL, stack).items():
            if name.startswith(("weight", "bias")):
                sizes[f"{prefix}_{name}"] = size
    if shape.score == 0:
        return sizes | {"output_weight": (shape.H, 2 * shape.H)}
    additive = {"query_weight": (shape.H, shape.H), "key_weight": (shape.H, shape.E), "score_weight": (shape.H,)}
    return sizes | additive


def inputs(shape: Shape, dtype: str, device: str, seed: int) -> dict[str, Tensor]:
    """Draw random tensors. Weights are scaled by 1/sqrt(fan-in), which keeps gates and tanh away from saturation."""
    source = generator(device, seed)
    drawn = {}
    for name, size in sizes_of(shape).items():
        scale = 1.0
        if name.endswith("_bias"):
            scale = 0.5
        elif "_weight" in name:
            # What is added to the product of a recurrent stack comes from H further values.
            recurrent = "_ih" in name or "_hh" in name
            scale = (size[-1] + shape.H * recurrent) ** -0.5
        drawn[name] = normal(size, dtype, device, source, scale)
    return drawn


def spot(shape: Shape, tensors: dict[str, Tensor], seed: int) -> list[Any]:
    """Pick random sequences and the last one: sequences are independent, so theirs is a smaller problem.

    Returns shape and inputs of the part, what to take out of the outputs of the whole problem, and out of the part's.
    """
    rows = torch.randperm(shape.B, generator=generator("cpu", seed))[: min(shape.B, 16)]
    rows[-1:] = shape.B - 1
    part = {name: tensor[:, rows] if name in ("source", "target") else tensor for name, tensor in tensors.items()}
    smaller = replace(shape, B=len(rows))
    return [(smaller, part, lambda outputs: (outputs[0][:, rows],), lambda outputs: outputs)]


# Runs a stack by the contract of the kernel lstm; attends by the dot product, q (S, B, H), e (T, B, H) -> (S, B, H).
RunStack = Callable[..., tuple[Tensor, ...]]
Attend = Callable[[Tensor, Tensor], Tensor]


def _weights(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Weights of one stack under the names of the kernel lstm."""
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{prefix}_")}


def _encode(shape: Shape, run: RunStack, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what the stack reads (T, B, 2H), the encoder's outputs (T, B, E), and its last h and c (L, B, H)."""
    first, h, c = run(shape.stacks["first"], x=tensors["source"], **_weights(tensors, "first"))
    h, c = h[:1], c[:1]
    if shape.L == 1:
        return first, first, h, c
    outputs, upper_h, upper_c = run(shape.stacks["stack"], x=first, **_weights(tensors, "stack"))
    return first, outputs, torch.cat((h, upper_h)), torch.cat((c, upper_c))


def _combine(attend: Attend, states: Tensor, outputs: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    """Luong's attention of all decoder states (S, B, H) over the encoder's outputs (T, B, H); returns y (S, B, H)."""
    context = attend(states, outputs)
    return torch.tanh(F.linear(torch.cat((context, states), dim=-1), tensors["output_weight"]))


def _align(state: Tensor, keys: Tensor, outputs: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    """Bahdanau's attention of one state (B, H): keys (T, B, H) and outputs (T, B, E) give the context (B, E)."""
    hidden = torch.tanh(F.linear(state, tensors["query_weight"]) + keys)
    weights = F.linear(hidden, tensors["score_weight"][None]).softmax(0)  # (T, B, 1)
    return (weights.permute(1, 2, 0) @ outputs.transpose(0, 1))[:, 0]


def _advance(
    shape: Shape, run: RunStack, s: int, context: Tensor, h: Tensor, c: Tensor, tensors: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Take all layers of Bahdanau's decoder one step on; returns h and c (L, B, H)."""
    x = torch.cat((tensors["target"][s], context), dim=-1)[None]
    _, h, c = run(_step_of(shape), x=x, h_0=h, c_0=c, **_weights(tensors, "decoder"))
    return h, c


def _step_of(shape: Shape) -> Stack:
    """One step of all layers of the decoder."""
    return replace(shape.stacks["decoder"], T=1)


def _decode(
    shape: Shape, run: RunStack, outputs: Tensor, h: Tensor, c: Tensor, tensors: dict[str, Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Run Bahdanau's decoder; gives the context (B, E) and the new state of the highest layer (B, H) of every step."""
    keys = F.linear(outputs, tensors["key_weight"])
    for s in range(shape.S):
        context = _align(h[-1], keys, outputs, tensors)
        h, c = _advance(shape, run, s, context, h, c, tensors)
        yield context, h[-1]


def _translate(shape: Shape, run: RunStack, attend: Attend, tensors: dict[str, Tensor]) -> tuple[Tensor]:
    check_tensors(shape, tensors, sizes_of(shape))
    _, outputs, h, c = _encode(shape, run, tensors)
    if shape.score:
        return (torch.stack([state for _, state in _decode(shape, run, outputs, h, c, tensors)]),)
    decoder = shape.stacks["decoder"]
    states, _, _ = run(decoder, x=tensors["target"], h_0=h, c_0=c, **_weights(tensors, "decoder"))
    return (_combine(attend, states, outputs, tensors),)


def _attend_plain(q: Tensor, e: Tensor) -> Tensor:
    q, e = q.transpose(0, 1), e.transpose(0, 1)
    return ((q @ e.transpose(1, 2)).softmax(-1) @ e).transpose(0, 1)


def reference(shape: Shape, **tensors: Tensor) -> tuple[Tensor]:
    """Compute all stacks step by step and attention with all scores in memory, in plain PyTorch; returns y."""
    return _translate(shape, lstm.reference, _attend_plain, tensors)


def work(shape: Shape, dtype: str, direction: str) -> Work:
    """Cost of one call, of its gradients, or of both: the sum of its parts, with every tensor held in `dtype`."""
    return _encoder_decoder_cost.work(shape, dtype, direction)


def _attend_sdpa(q: Tensor, e: Tensor) -> Tensor:
    if not q.numel():
        return _attend_plain(q, e)
    q, e = (tensor.transpose(0, 1)[:, None] for tensor in (q, e))
    return F.scaled_dot_product_attention(q, e, e, scale=1.0)[:, 0].transpose(0, 1)


def _attend_triton(q: Tensor, e: Tensor) -> Tensor:
    """Attend by the kernel attention's Triton row, or by PyTorch where that refuses or has no gradients."""
    row = attention.IMPLEMENTATIONS["triton"]
    needs_gradients = torch.is_grad_enabled() and (q.requires_grad or e.requires_grad)
    if not q.numel() or (needs_gradients and not row.grad):
        return _attend_sdpa(q, e)
    shape = attention.Shape(q.shape[1], 1, len(q), q.shape[2], K=len(e), causal=0)
    if row.supports(shape, _dtype_of(q), q.device.type):
        return _attend_sdpa(q, e)
    # The kernel divides scores by the root of their length, and Luong's score does not.
    scaled, keys = ((tensor.transpose(0, 1)[:, None]) for tensor in (q * math.sqrt(q.shape[2]), e))
    return row.run(shape, q=scaled, k=keys, v=keys)[0][:, 0].transpose(0, 1)


def _dtype_of(tensor: Tensor) -> str:
    """Name of a tensor's dtype; float32 counts as fp32 whether or not its products may use TF32."""
    return next(name for name, dtype in DTYPES.items() if dtype == tensor.dtype)


def _calls(shape: Shape) -> list[tuple[Stack, int]]:
    """Calls of the kernel lstm: what is run, and how often."""
    *encoder, decoder = shape.stacks.values()
    last = (_step_of(shape), shape.S) if shape.score else (decoder, 1)
    return [*((stack, 1) for stack in encoder), last]


def _parts(row: str, attend: Attend, shape: Shape, tensors: dict[str, Tensor]) -> list[PartCall]:
    """Every stack and the attention alone, each on what the others have computed beforehand."""
    check_tensors(shape, tensors, sizes_of(shape))
    if not shape.B:
        return []
    run, stacks = lstm.IMPLEMENTATIONS[row].run, shape.stacks
    read, outputs, h, c = _encode(shape, run, tensors)
    calls: dict[str, Callable[[], object]] = {
        PARTS["first"]: partial(run, stacks["first"], x=tensors["source"], **_weights(tensors, "first"))
    }
    if shape.L > 1:
        calls[PARTS["stack"]] = partial(run, stacks["stack"], x=read, **_weights(tensors, "stack"))
    if shape.score:
        contexts, states = zip(*_decode(shape, run, outputs, h, c, tensors))

        def decode() -> None:
            state, cell = h, c
            for s, context in enumerate(contexts):
                state, cell = _advance(shape, run, s, context, state, cell, tensors)

        def align() -> None:
            keys = F.linear(outputs, tensors["key_weight"])
            for state in (h[-1], *states[:-1]):
                _align(state, keys, outputs, tensors)

        calls |= {PARTS["decoder"]: decode, "attention": align}
    else:
        given = {"x": tensors["target"], "h_0": h, "c_0": c, **_weights(tensors, "decoder")}
        states, _, _ = run(stacks["decoder"], **given)
        calls[PARTS["decoder"]] = partial(run, stacks["decoder"], **given)
        calls["attention"] = partial(_combine, attend, states, outputs, tensors)
    costs = costs_of(shape, _dtype_of(tensors["source"]), "forward")
    return [PartCall(name, call, costs[name]) for name, call in calls.items()]


def _why_not(row: str, shape: Shape, dtype: str, device: str) -> str | None:
    """The first refusal of the kernel lstm for a stack, with the stack's name."""
    for prefix, (stack, _) in zip(shape.stacks, _calls(shape)):
        refused = lstm.IMPLEMENTATIONS[row].supports(stack, dtype, device)
        if refused:
            return f"{PARTS[prefix]}: {refused}"
    return None


# An unrolled loop of 64 steps compiles for about a minute on two cores, and in proportion to its length.
_UNROLLED_STEPS = 64


def _why_no_unrolling(shape: Shape, dtype: str, device: str) -> str | None:
    steps = sum(times * stack.L * stack.D * stack.T for stack, times in _calls(shape))
    if steps > _UNROLLED_STEPS:
        return (
            f"torch.compile unrolls the loops: {steps} steps would compile for minutes; "
            f"T (L + 1) + S L of at most {_UNROLLED_STEPS} is compiled"
        )
    return why_no_compiler(shape, dtype, device)


def _depth(row: str, shape: Shape, dtype: str, device: str, direction: str) -> int | None:
    """Steps of all stacks one after the other, as the kernel lstm does them, and of attention."""
    if not shape.B:
        return None
    depth_of = lstm.IMPLEMENTATIONS[row].depth
    passes, attended = passes_of(direction), shape.S if shape.score else 1
    return passes * attended + sum(
        times * (depth_of(stack, dtype, device, direction) or _recurrent_cost.depth(stack, direction))
        for stack, times in _calls(shape)
    )


def _launches(row: str, attending: int, shape: Shape, dtype: str, device: str) -> int:
    # Bahdanau: the keys, and at every step two products, their sum, tanh, softmax, average and two joined inputs.
    attended = 1 + 7 * shape.S if shape.score else attending
    stacks = lstm.IMPLEMENTATIONS[row]
    return attended + sum(times * stacks.launches_for(stack, dtype, device) for stack, times in _calls(shape))


def _row(row: str, attend: Attend, attending: int, dense: bool = False) -> Implementation:
    """Make the row that runs its stacks by a row of the kernel lstm.

    attending : kernels of Luong's attention and output, beside those of the stacks. dense : copy inputs with gaps.
    """
    stacks = lstm.IMPLEMENTATIONS[row]

    def run(shape: Shape, **tensors: Tensor) -> tuple[Tensor]:
        given = {name: tensor.contiguous() for name, tensor in tensors.items()} if dense else tensors
        return _translate(shape, stacks.run, attend, given)

    def as_first(declared: Callable[[Any, str, str], Any]) -> Callable[[Any, str, str], Any]:
        return lambda shape, dtype, device: declared(shape.stacks["first"], dtype, device)

    # Where the parts differ in their class, the whole declares that of the first layer: no other is faster, so that
    # its floors stay lower bounds.
    return Implementation(
        run,
        weights=as_first(stacks.weights_for),
        chain=as_first(stacks.chain_for),
        hoists=as_first(stacks.hoists_for),
        launches=partial(_launches, row, attending),
        supports=partial(_why_not, row),
        depth=partial(_depth, row),
        grad=stacks.grad,
        parts=partial(_parts, row, attend),
    )


# Luong's attention and output beside the scores' kernels: two joined inputs, a product and tanh.
IMPLEMENTATIONS = {
    "reference": replace(_row("reference", _attend_plain, attending=6), run=reference),
    "compile": replace(
        _row("reference", _attend_plain, attending=3),
        run=run_compiled(reference),
        supports=_why_no_unrolling,
        launches=lambda shape, dtype, device: _launches("compile", 3, shape, dtype, device),
        parts=lambda shape, inputs: [],
    ),
    "torch": _row("torch", _attend_sdpa, attending=4),
    **{
        name: _row(name, _attend_triton, attending=5, dense=True)
        for name in ("triton_step", "triton_resident")
        if name in lstm.IMPLEMENTATIONS
    },
}

# The rows launch what the files of lstm and attention list and compile in all dtypes; these stand for them.
COMPILE: list[CompileCase] = [
    case for case in (*lstm.COMPILE, *attention.COMPILE) if case.representative and "bf16" in case.label
]
