"""The encoder-decoder is what torch.nn.LSTM modules and attention by its definition make, in every row and by part."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from seqroof.kernels import _triton, encoder_decoder
from seqroof.kernels._catalog import ContractError, load
from seqroof.kernels.encoder_decoder import IMPLEMENTATIONS, ODD, Shape, inputs, reference, spot, work

SHAPES = [
    Shape(3, 5, 4, 6, 7),
    Shape(2, 3, 5, 4, 5, L=4),
    Shape(3, 5, 4, 6, 7, score=1),
    Shape(2, 4, 3, 5, 6, L=1, score=1),
    Shape(2, 1, 2, 3, 4, L=3, score=1),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
rows = pytest.mark.parametrize("row", ["reference", "torch"])


def doubles(shape: Shape, seed: int = 0) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in inputs(shape, "fp32", "cpu", seed).items()}


def close(got: Any, want: Any) -> None:
    for mine, other in zip(got, want, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-12)


class Translator:
    """The same system from torch.nn modules and attention by einsum, with the same weights."""

    def __init__(self, shape: Shape, tensors: dict[str, Tensor]) -> None:
        self.shape, self.tensors = shape, tensors
        decoder = shape.I + shape.score * shape.H * (2 if shape.L == 1 else 1)
        self.modules = {
            "first": nn.LSTM(shape.I, shape.H, bidirectional=True),
            "stack": nn.LSTM(2 * shape.H, shape.H, num_layers=max(shape.L - 1, 1)),
            "decoder": nn.LSTM(decoder, shape.H, num_layers=shape.L),
        }
        if shape.L == 1:
            del self.modules["stack"]
        for prefix, module in self.modules.items():
            module.double()
            for name, value in self.weights(prefix, tensors):
                getattr(module, name).data = value.detach().clone()
            for name, parameter in module.named_parameters():
                if name.startswith("bias_hh"):
                    parameter.data.zero_()

    def weights(self, prefix: str, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Names of parameters and what they are in tensors of our form."""
        module = self.modules[prefix]
        for layer in range(module.num_layers):
            for direction, suffix in enumerate(("", "_reverse")[: 1 + module.bidirectional]):
                upper = tensors.get(f"{prefix}_weight_ih_upper")
                weight_ih = tensors[f"{prefix}_weight_ih"] if layer == 0 or upper is None else upper[layer - 1]
                yield f"weight_ih_l{layer}{suffix}", weight_ih[direction]
                yield f"weight_hh_l{layer}{suffix}", tensors[f"{prefix}_weight_hh"][layer, direction]
                yield f"bias_ih_l{layer}{suffix}", tensors[f"{prefix}_bias"][layer, direction]

    def __call__(self) -> Tensor:
        e, (h, c) = self.modules["first"](self.tensors["source"])
        states = [(h[0], c[0])]
        if "stack" in self.modules:
            e, (h, c) = self.modules["stack"](e)
            states += list(zip(h, c))
        h, c = (torch.stack(parts) for parts in zip(*states))
        return self.bahdanau(e, h, c) if self.shape.score else self.luong(e, h, c)

    def luong(self, e: Tensor, h: Tensor, c: Tensor) -> Tensor:
        y, _ = self.modules["decoder"](self.tensors["target"], (h, c))
        weights = torch.einsum("sbh,tbh->sbt", y, e).softmax(-1)
        context = torch.einsum("sbt,tbh->sbh", weights, e)
        of_context, of_state = self.tensors["output_weight"].chunk(2, dim=1)
        return torch.tanh(context @ of_context.t() + y @ of_state.t())

    def bahdanau(self, e: Tensor, h: Tensor, c: Tensor) -> Tensor:
        query, key, v = (self.tensors[f"{name}_weight"] for name in ("query", "key", "score"))
        outputs = []
        for x in self.tensors["target"]:
            scores = torch.einsum("h,tbh->bt", v, torch.tanh(h[-1] @ query.t() + e @ key.t()))
            context = torch.einsum("bt,tbe->be", scores.softmax(-1), e)
            y, (h, c) = self.modules["decoder"](torch.cat([x, context], dim=1)[None], (h, c))
            outputs.append(y[0])
        return torch.stack(outputs)


@rows
@shapes
def test_outputs_and_gradients_are_those_of_torch(row: str, shape: Shape) -> None:
    tensors = {name: tensor.requires_grad_() for name, tensor in doubles(shape).items()}
    (ours,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    translator = Translator(shape, tensors)
    theirs = translator()
    close([ours], [theirs])
    gradient = torch.randn_like(ours)
    got = dict(zip(tensors, torch.autograd.grad(ours, list(tensors.values()), gradient)))
    plain = [name for name in tensors if not name.startswith(("first_", "stack_", "decoder_"))]
    close([got[name] for name in plain], torch.autograd.grad(theirs, [tensors[n] for n in plain], gradient, True))
    for prefix, module in translator.modules.items():
        names, mine = zip(*translator.weights(prefix, got))
        close(mine, torch.autograd.grad(theirs, [getattr(module, name) for name in names], gradient, True))


@pytest.mark.parametrize("shape", [Shape(2, 2, 2, 1, 2), Shape(2, 2, 2, 1, 2, L=1, score=1)], ids=str)
def test_the_gradient_is_that_of_finite_differences(shape: Shape) -> None:
    tensors = {name: tensor.requires_grad_() for name, tensor in doubles(shape).items()}
    assert torch.autograd.gradcheck(
        lambda *values: reference(shape, **dict(zip(tensors, values))), tuple(tensors.values())
    )


@rows
@pytest.mark.parametrize("shape", [*encoder_decoder.SHAPES["quick"], *ODD], ids=str)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_rows_agree_with_float64(row: str, shape: Shape, dtype: str) -> None:
    tensors = inputs(shape, dtype, "cpu", seed=1)
    with torch.no_grad():
        (got,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    (want,) = reference(shape, **{name: tensor.double() for name, tensor in tensors.items()})
    assert got.dtype == tensors["source"].dtype and got.shape == (shape.S, shape.B, shape.H)
    # An error of a state comes back at every step of encoder and decoder: some tens of roundings.
    tolerance = 32 * torch.finfo(got.dtype).eps
    torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)


# What the interpreter runs; TRITON_INTERPRET must be set before triton is imported, hence a child.
CHILD = """
import json, torch
from seqroof.kernels.encoder_decoder import IMPLEMENTATIONS, Shape, inputs, reference
for shape in (Shape(2, 2, 1, 5, 16), Shape(1, 1, 2, 4, 9, L=1, score=1)):
    leaves = {k: v.double().requires_grad_() for k, v in inputs(shape, "fp32", "cpu", 2).items()}
    (want,) = reference(shape, **leaves)
    weight = torch.randn_like(want)
    for row in [row for row in IMPLEMENTATIONS if row.startswith("triton")]:
        (got,) = IMPLEMENTATIONS[row].run(shape, **leaves)
        pairs = zip(*(torch.autograd.grad(y, list(leaves.values()), weight, True) for y in (got, want)))
        error = max(float((mine - other).abs().max()) for mine, other in pairs)
        print(json.dumps([str(shape), row, IMPLEMENTATIONS[row].grad, error]))
"""


@pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")
def test_gradients_of_the_triton_rows_agree_with_the_reference() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, env=environment)
    assert child.returncode == 0, child.stderr[-2000:]
    lines = [json.loads(line) for line in child.stdout.splitlines()]
    assert {row for _, row, _, _ in lines} == {"triton_step", "triton_resident"}
    assert [line for line in lines if not line[2] or not line[3] < 1e-11] == []


def test_attention_is_pytorchs_where_the_triton_row_refuses() -> None:
    q, e = torch.randn(3, 2, 300), torch.randn(4, 2, 300)
    torch.testing.assert_close(encoder_decoder._attend_triton(q, e), encoder_decoder._attend_plain(q, e))


@shapes
def test_a_later_target_does_not_change_an_earlier_output(shape: Shape) -> None:
    tensors = doubles(shape)
    (before,) = reference(shape, **tensors)
    tensors["target"][-1] += 1
    (after,) = reference(shape, **tensors)
    assert torch.equal(before[:-1], after[:-1]) and (before[-1] != after[-1]).any()


@rows
@shapes
def test_every_source_step_reaches_every_output_of_its_row_alone(row: str, shape: Shape) -> None:
    tensors = doubles(shape)
    (before,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    for t in range(shape.T):
        changed = tensors["source"].clone()
        changed[t, 0] += 1
        (after,) = IMPLEMENTATIONS[row].run(shape, **(tensors | {"source": changed}))
        assert (before[:, 0] != after[:, 0]).any(dim=-1).all()
        torch.testing.assert_close(before[:, 1:], after[:, 1:], rtol=1e-13, atol=1e-13)


@rows
def test_nan_stays_in_its_row(row: str) -> None:
    for shape in SHAPES:
        tensors = doubles(shape)
        tensors["source"][0, 1, 0] = math.nan
        (y,) = IMPLEMENTATIONS[row].run(shape, **tensors)
        assert y[:, 1].isnan().all() and not y[:, [b for b in range(shape.B) if b != 1]].isnan().any()


@pytest.mark.parametrize("score", [0, 1])
def test_a_spot_check_is_a_part_of_the_whole(score: int) -> None:
    shape = Shape(40, 4, 3, 5, 6, score=score)
    tensors = doubles(shape)
    whole = reference(shape, **tensors)
    ((smaller, part, of_whole, of_part),) = spot(shape, tensors, seed=1)
    assert smaller.B == 16
    close(of_whole(whole), of_part(reference(smaller, **part)))
    whole[0][:, -1] = math.nan
    assert of_whole(whole)[0].isnan().any()


@rows
@pytest.mark.parametrize("score", [0, 1])
def test_an_empty_batch_gives_an_empty_output(row: str, score: int) -> None:
    shape = Shape(0, 4, 3, 5, 6, score=score)
    tensors = inputs(shape, "fp32", "cpu", 0)
    assert IMPLEMENTATIONS[row].run(shape, **tensors)[0].shape == (3, 0, 6)
    assert IMPLEMENTATIONS[row].parts(shape, tensors) == []
    cost = work(shape, "fp32", "both")
    assert (cost.terms, cost.depth, cost.tokens) == ((), 1, 0)


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"T": 0}, "T must be at least 1, not 0: the source needs a step"),
        ({"S": 0}, "S must be at least 1, not 0: the target needs a step"),
        ({"B": -1}, "B must be at least 0, not -1"),
        ({"H": 0}, "H must be at least 1"),
        ({"score": 2}, "score must be 0 .Luong, dot product. or 1"),
        ({"L": 1}, "L must be at least 2 with score=0: .* take score=1 or L=2"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], sentence: str) -> None:
    with pytest.raises(ContractError, match=sentence):
        load("encoder_decoder").shape(**({"B": 1, "T": 1, "S": 1, "I": 1, "H": 1} | sizes))


BAD = [
    ("source", lambda t: t[1:], r"source has the size \(4, 3, 6\); \(5, 3, 6\) was expected"),
    ("target", lambda t: t[:, 1:], r"target has the size \(4, 2, 6\)"),
    ("stack_weight_hh", lambda t: t[..., 1:], "stack_weight_hh has the size"),
    ("decoder_weight_ih", lambda t: t[..., 1:], "decoder_weight_ih has the size"),
    ("stack_weight_hh", lambda t: t.float(), "stack_weight_hh is torch.float32 on cpu and source is torch.float64"),
    ("query_weight", lambda t: None, r"query_weight is missing; .* needs it with the size \(7, 7\)"),
    ("output_weight", lambda t: torch.zeros(7, 14), "output_weight was given, but .* leave it out"),
]


@rows
@pytest.mark.parametrize(("name", "spoil", "sentence"), BAD)
def test_bad_input_is_refused(row: str, name: str, spoil: Any, sentence: str) -> None:
    shape = Shape(3, 5, 4, 6, 7, score=1)
    tensors: dict[str, Any] = doubles(shape)
    tensors[name] = spoil(tensors.get(name))
    with pytest.raises(ValueError, match=sentence):
        IMPLEMENTATIONS[row].run(shape, **tensors)


def test_rows_that_cannot_run_say_why() -> None:
    short, long = Shape(2, 8, 8, 4, 5), Shape(2, 20, 20, 4, 5)
    assert "100 steps would compile for minutes" in (IMPLEMENTATIONS["compile"].supports(long, "fp32", "cpu") or "")
    assert "100 steps" not in (IMPLEMENTATIONS["compile"].supports(short, "fp32", "cpu") or "")
    assert "TF32" in (IMPLEMENTATIONS["torch"].supports(short, "tf32", "cpu") or "")
    large = Shape(64, 50, 50, 512, 512)
    assert "1 GFLOP/s" in (IMPLEMENTATIONS["reference"].supports(large, "fp16", "cpu") or "")


@rows
@shapes
def test_parts_run_alone_and_cost_what_they_do(row: str, shape: Shape) -> None:
    tensors = inputs(shape, "bf16", "cpu", 0)
    parts = IMPLEMENTATIONS[row].parts(shape, tensors)
    names = ["encoder, both directions", "encoder stack", "decoder", "attention"]
    assert [part.name for part in parts] == [name for name in names if shape.L > 1 or name != "encoder stack"]
    assert sum(part.work.matmul_flops for part in parts) == work(shape, "bf16", "forward").matmul_flops
    for part in parts:
        with FlopCounterMode(display=False) as counter:
            part.run()
        assert row != "reference" or counter.get_total_flops() == part.work.matmul_flops, part.name
        assert part.work.compulsory_bytes <= part.work.streamed_bytes
