"""Separable convolution is what its docstring says and what nn.Conv1d and nn.Linear give, in every row that runs here.

The Triton rows run in Triton's interpreter; run as a script, this file is the child process that does so. That they
agree with the reference at odd sizes and in all dtypes is checked by test_interpreter.
"""

import dataclasses
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreting import Checks, run_interpreted

from seqroof.kernels import _conv_spot, _depthwise, _separable_peers, _triton, separable_conv
from seqroof.kernels.separable_conv import IMPLEMENTATIONS, Shape, inputs, work

CPU_ROWS = ["reference", "torch"]
PLAIN = Shape(2, 19, 6, 4)
SILU = Shape(2, 19, 6, 4, silu=1)
GATED = Shape(2, 11, 5, 3, dilation=2, gate=1)
SEPARABLE = Shape(2, 19, 6, 4, O=5, silu=1)
DILATED = Shape(1, 17, 3, 6, O=4, dilation=3, gate=1)
SHORT = Shape(1, 3, 4, 5, O=2, dilation=4)
EVERY = [PLAIN, SILU, GATED, SEPARABLE, DILATED, SHORT, Shape(1, 1, 1, 1)]
checks = Checks()
few = settings(derandomize=True, deadline=None, max_examples=25, database=None)

Tensors = dict[str, torch.Tensor]


def doubles(shape: Shape, seed: int = 3) -> Tensors:
    return {name: tensor.double() for name, tensor in inputs(shape, "fp32", "cpu", seed).items()}


def run(row: str, shape: Shape, tensors: Tensors) -> torch.Tensor:
    return IMPLEMENTATIONS[row].run(shape, **tensors)[0]


def gradients(row: str, shape: Shape, tensors: Tensors) -> tuple[torch.Tensor, ...]:
    """The output and the gradients of all inputs, for a fixed random gradient of the output."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    y = run(row, shape, leaves)
    above = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(5))
    return y.detach(), *torch.autograd.grad(y, list(leaves.values()), above)


def close(got: Any, want: Any) -> None:
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


def by_hand(shape: Shape, tensors: Tensors, count: Any = None) -> torch.Tensor:
    """One number at a time, straight from the definition; `count` gets every multiply-add, addition and so on."""
    count = count if count is not None else SimpleNamespace(products=0, additions=0, multiplications=0, sigmoids=0)
    sigmoid = lambda value: 1 / (1 + (-value).exp())  # noqa: E731
    h = torch.zeros(shape.B, shape.T, shape.C, dtype=torch.float64)
    for b in range(shape.B):
        for t in range(shape.T):
            for c in range(shape.C):
                value = torch.zeros((), dtype=torch.float64)
                for k in range(shape.W):
                    source = t - (shape.W - 1 - k) * shape.dilation
                    count.products += 1
                    if source >= 0:
                        value = value + tensors["x"][b, source, c] * tensors["weight"][k, c]
                value = value + tensors["bias"][c]
                count.additions += 1
                if shape.silu:
                    value = value * sigmoid(value)
                    count.multiplications, count.sigmoids = count.multiplications + 1, count.sigmoids + 1
                if shape.gate:
                    other = tensors["z"][b, t, c]
                    value = value * (other * sigmoid(other))
                    count.multiplications, count.sigmoids = count.multiplications + 2, count.sigmoids + 1
                h[b, t, c] = value
    if not shape.O:
        return h
    y = torch.zeros(shape.B, shape.T, shape.O, dtype=torch.float64)
    for o in range(shape.O):
        for c in range(shape.C):
            y[:, :, o] += h[:, :, c] * tensors["pointwise"][c, o]
            count.products += shape.B * shape.T
        y[:, :, o] += tensors["pointwise_bias"][o]
        count.additions += shape.B * shape.T
    return y


@pytest.mark.parametrize("row", CPU_ROWS)
@pytest.mark.parametrize("shape", EVERY, ids=str)
def test_every_row_follows_the_definition(row: str, shape: Shape) -> None:
    tensors = doubles(shape)
    close(run(row, shape, tensors), by_hand(shape, tensors))


@pytest.mark.parametrize("row", CPU_ROWS)
def test_values_and_gradients_are_those_of_torchs_modules(row: str) -> None:
    """nn.Conv1d with a group per channel, nn.SiLU and nn.Linear, on an input padded in front."""
    shape = dataclasses.replace(SEPARABLE, dilation=2)
    tensors = doubles(shape)
    convolution = torch.nn.Conv1d(6, 6, 4, dilation=2, groups=6, dtype=torch.float64)
    product = torch.nn.Linear(6, 5, dtype=torch.float64)
    assert convolution.bias is not None
    with torch.no_grad():
        convolution.weight.copy_(tensors["weight"].t()[:, None])
        convolution.bias.copy_(tensors["bias"])
        product.weight.copy_(tensors["pointwise"].t())
        product.bias.copy_(tensors["pointwise_bias"])
    x = tensors["x"].clone().requires_grad_()
    padded = torch.cat((x.new_zeros(2, 6, 6), x), dim=1).transpose(1, 2)
    y = product(torch.nn.SiLU()(convolution(padded)).transpose(1, 2))
    above = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(5))
    leaves = (x, convolution.weight, convolution.bias, product.weight, product.bias)
    dx, dweight, dbias, dpointwise, dpointwise_bias = torch.autograd.grad(y, leaves, above)
    want = (y.detach(), dx, dweight[:, 0].t(), dbias, dpointwise.t(), dpointwise_bias)
    for mine, theirs in zip(gradients(row, shape, tensors), want, strict=True):
        close(mine, theirs)


@pytest.mark.parametrize("row", CPU_ROWS)
def test_the_gated_gradient_is_that_of_finite_differences(row: str) -> None:
    shape = Shape(1, 4, 2, 3, O=2, dilation=2, gate=1)
    tensors = {name: tensor.requires_grad_() for name, tensor in doubles(shape).items()}
    assert torch.autograd.gradcheck(lambda *t: run(row, shape, dict(zip(tensors, t))), list(tensors.values()))


shapes = st.builds(
    lambda B, T, C, W, O, dilation, form: Shape(B, T, C, W, O, dilation, silu=form == 1, gate=form == 2),
    st.integers(1, 2), st.integers(1, 12), st.integers(1, 4), st.integers(1, 5), st.integers(0, 3), st.integers(1, 4),
    st.integers(0, 2),
)  # fmt: skip


@pytest.mark.parametrize("row", CPU_ROWS)
@few
@given(shape=shapes, step=st.integers(0, 11))
def test_only_steps_that_the_taps_reach_change(row: str, shape: Shape, step: int) -> None:
    """Causality and reach at once: an input changes its own step and those `dilation` apart, W of them."""
    step %= shape.T
    tensors = doubles(shape)
    before = run(row, shape, tensors)
    tensors["x"][0, step] += 1.5
    changed = (run(row, shape, tensors) != before).any(-1)
    reached = {step + k * shape.dilation for k in range(shape.W)}
    assert not changed[1:].any()
    assert set(changed[0].nonzero().flatten().tolist()) <= reached
    assert changed[0, step] or shape.O or shape.form


@pytest.mark.parametrize("row", CPU_ROWS)
@few
@given(shape=shapes, late=st.integers(1, 4))
def test_a_later_input_gives_the_same_output_later(row: str, shape: Shape, late: int) -> None:
    tensors = doubles(shape)
    longer = dataclasses.replace(shape, T=shape.T + late)
    moved = {
        name: torch.nn.functional.pad(tensor, (0, 0, late, 0)) if name in ("x", "z") else tensor
        for name, tensor in tensors.items()
    }
    close(run(row, longer, moved)[:, late:], run(row, shape, tensors))


@pytest.mark.parametrize("row", CPU_ROWS)
@pytest.mark.parametrize("W", [1, 4])
def test_a_last_tap_of_one_is_the_identity(row: str, W: int) -> None:
    shape = Shape(2, 9, 5, W, dilation=2)
    tensors = doubles(shape)
    tensors["weight"].zero_()[-1] = 1
    tensors["bias"].zero_()
    close(run(row, shape, tensors), tensors["x"])


@pytest.mark.parametrize("row", CPU_ROWS)
@pytest.mark.parametrize("shape", [SILU, GATED], ids=str)
def test_channels_do_not_meet_before_the_product(row: str, shape: Shape) -> None:
    tensors = doubles(shape)
    order = torch.randperm(shape.C, generator=torch.Generator().manual_seed(1))
    turned = {name: tensor[..., order] for name, tensor in tensors.items()}
    close(run(row, shape, turned), run(row, shape, tensors)[..., order])


@pytest.mark.parametrize("row", CPU_ROWS)
def test_the_product_follows_the_part_alone(row: str) -> None:
    tensors = doubles(SEPARABLE)
    alone = {name: tensor for name, tensor in tensors.items() if not name.startswith("pointwise")}
    h = run(row, dataclasses.replace(SEPARABLE, O=0), alone)
    close(run(row, SEPARABLE, tensors), h @ tensors["pointwise"] + tensors["pointwise_bias"])


@pytest.mark.parametrize("row", CPU_ROWS)
@pytest.mark.parametrize("O", [0, 3])
def test_no_sequences_give_empty_outputs_and_gradients_of_zero(row: str, O: int) -> None:
    shape = Shape(0, 5, 4, 3, O=O, gate=1)
    y, *rest = gradients(row, shape, doubles(shape))
    assert y.shape == (0, 5, O or 4)
    assert not any(gradient.any() for gradient in rest)


def test_inputs_are_deterministic_and_near_one() -> None:
    shape = Shape(2, 256, 64, 4, O=64)
    tensors = inputs(shape, "fp32", "cpu", seed=7)
    assert all(torch.equal(tensors[name], again) for name, again in inputs(shape, "fp32", "cpu", seed=7).items())
    assert not torch.equal(tensors["x"], inputs(shape, "fp32", "cpu", seed=8)["x"])
    assert 0.5 < run("reference", shape, tensors).std() < 2


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"T": 0}, "T must be at least 1, not 0"),
        ({"B": -1}, "B must be at least 0, not -1"),
        ({"O": -1}, "O must be at least 0, not -1"),
        ({"dilation": 0}, "dilation must be at least 1, not 0"),
        ({"silu": 2}, "silu must be 0 or 1, not 2"),
        ({"silu": 1, "gate": 1}, "set one of them"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Shape(**({"B": 1, "T": 8, "C": 8, "W": 3} | sizes))


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("x", torch.zeros(2, 19, 5), r"x has the size \(2, 19, 5\); \(2, 19, 6\) was expected"),
        ("weight", None, r"weight is missing; .* needs it with the size \(4, 6\)"),
        ("z", torch.zeros(2, 19, 6), "z was given, but"),
    ],
)
@pytest.mark.parametrize("row", ["triton", "triton_unfused"])
def test_tensors_that_do_not_fit_are_refused(row: str, name: str, value: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        run(row, SEPARABLE, inputs(SEPARABLE, "fp32", "cpu", 0) | {name: value})


def _refusal(row: str, dtype: str, device: str, **sizes: Any) -> str | None:
    return IMPLEMENTATIONS[row].supports(Shape(**({"B": 1, "T": 64, "C": 8, "W": 3} | sizes)), dtype, device)


def test_rows_that_cannot_run_say_why() -> None:
    for row in ("reference", "torch", "compile"):
        assert "TF32" in (_refusal(row, "tf32", "cpu") or ""), row
        assert "1 GFLOP/s" in (_refusal(row, "fp16", "cpu", T=65536, C=512, O=64) or ""), row
    assert _refusal("torch", "fp16", "cuda", T=65536, C=512, O=64) is None
    assert "nothing to take apart" in (_refusal("triton_unfused", "bf16", "cuda") or "")
    if not _triton.interpreted():
        assert "float64" in (_refusal("triton", "fp64", "cuda") or "")


def test_cost_counted_by_hand() -> None:
    """2 sequences of 3 steps, 5 channels, 4 taps, 7 outputs: 30 numbers from 4 taps, 42 from 5 channels."""
    shape = Shape(2, 3, 5, 4, O=7, silu=1)
    forward, backward = work(shape, "bf16", "forward"), work(shape, "bf16", "backward")
    assert forward.matmul_flops == 2 * (30 * 4 + 42 * 5)
    assert backward.matmul_flops == 2 * forward.matmul_flops
    assert (forward.special_ops, backward.special_ops) == (30, 0)
    assert forward.pointwise_flops == 30 + 30 + 42
    assert backward.pointwise_flops == 5 * 30 + 5 * 5 + 5 * 7
    assert forward.read_bytes == 2 * (30 + 20 + 5 + 35 + 7)
    assert forward.write_bytes == 2 * 42
    # All but the last bias and the output's gradient in; a gradient per input out.
    assert backward.read_bytes == 2 * (30 + 20 + 5 + 35 + 42)
    assert backward.write_bytes == forward.read_bytes
    assert (forward.parameters, forward.weight_bytes, forward.saved_bytes) == (67, 134, 0)
    assert (forward.tokens, forward.depth) == (6, 1)


def test_the_cost_of_the_part_alone() -> None:
    """One sequence of 10 steps of 4 channels: 40 numbers in and out, a second input for the gate."""
    plain, gated = (work(Shape(1, 10, 4, 3, gate=g), "fp32", "forward") for g in (0, 1))
    assert plain.matmul_flops == gated.matmul_flops == 2 * 40 * 3
    assert plain.compulsory_bytes == 4 * (40 + 12 + 4 + 40)
    assert gated.compulsory_bytes - plain.compulsory_bytes == 4 * 40
    assert gated.pointwise_flops - plain.pointwise_flops == 2 * 40
    backward = [work(Shape(1, 10, 4, 3, gate=g), "fp32", "backward") for g in (0, 1)]
    assert backward[1].pointwise_flops - backward[0].pointwise_flops == 8 * 40
    # Without a gate the bias does not bear on any gradient.
    assert backward[0].read_bytes == 4 * (40 + 12 + 40)
    assert backward[1].read_bytes == 4 * (40 + 12 + 4 + 40 + 40)


@pytest.mark.parametrize("shape", [SILU, GATED, SEPARABLE], ids=str)
def test_the_cost_is_what_a_loop_over_numbers_counts(shape: Shape) -> None:
    count = SimpleNamespace(products=0, additions=0, multiplications=0, sigmoids=0)
    by_hand(shape, doubles(shape), count)
    cost = work(shape, "fp32", "forward")
    assert cost.matmul_flops == 2 * count.products
    assert cost.pointwise_flops == count.additions + count.multiplications
    assert cost.special_ops == count.sigmoids


def test_segments_cover_every_step_once() -> None:
    """Four steps, `dilation` apart, per segment, as the kernel numbers them."""
    for T in (1, 3, 4, 7, 33, 64):
        for dilation in (1, 2, 5, 40, 100):
            phases, segments = _depthwise.walk(T, dilation)
            steps = [s % phases + (s // phases * 4 + j) * phases for s in range(segments) for j in range(4)]
            assert sorted(step for step in steps if step < T) == list(range(T))
            assert phases == dilation or dilation > T


class _Package:
    """Stands in for a package: depthwise convolution in the layout that the package documents."""

    @staticmethod
    def causal_conv1d_fn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, activation: Any) -> torch.Tensor:
        assert x.stride(1) == 1 and weight.is_contiguous()
        padded = torch.nn.functional.pad(x, (weight.shape[1] - 1, 0))
        h = torch.nn.functional.conv1d(padded, weight[:, None], bias, groups=len(weight))
        return torch.nn.functional.silu(h) if activation == "silu" else h

    @classmethod
    def causal_conv1d(cls, x: torch.Tensor, weight: Any, bias: Any, activation: Any, backend: str) -> Any:
        assert backend == "triton"
        return cls.causal_conv1d_fn(x.transpose(1, 2), weight, bias, activation).transpose(1, 2), None


@pytest.mark.parametrize("made", [_separable_peers.causal_conv1d_row, _separable_peers.fla_row])
@pytest.mark.parametrize("shape", [PLAIN, SILU], ids=str)
def test_other_packages_get_their_layout(made: Any, shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_separable_peers.importlib, "import_module", lambda name: _Package)
    tensors = doubles(shape)
    close(made().run(shape, **tensors)[0], run("reference", shape, tensors))


def test_other_packages_refuse_what_they_do_not_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_separable_peers.importlib, "import_module", lambda name: _Package)
    conv, fla = _separable_peers.causal_conv1d_row(), _separable_peers.fla_row()
    base = Shape(1, 8, 16, 4)
    for row in (conv, fla):
        assert row.supports(base, "bf16", "cuda") is None
        assert "NVIDIA GPU" in (row.supports(base, "bf16", "cpu") or "")
        assert "not for tf32" in (row.supports(base, "tf32", "cuda") or "")
        for other in ({"O": 4}, {"gate": 1}, {"dilation": 2}):
            refused = row.supports(dataclasses.replace(base, **other), "bf16", "cuda")
            assert "depthwise part alone" in (refused or ""), other
        assert "empty" in (row.supports(dataclasses.replace(base, B=0), "bf16", "cuda") or "")
    assert "W=5" in (conv.supports(dataclasses.replace(base, W=5), "bf16", "cuda") or "")
    assert "multiple of 8" in (conv.supports(dataclasses.replace(base, C=12), "bf16", "cuda") or "")


ROWS = ("triton", "triton_unfused")
TINY = [Shape(2, 6, 2, 3, silu=1), Shape(1, 5, 2, 6, O=2, dilation=2, gate=1), Shape(1, 3, 2, 2, O=3)]


@checks.each(*((row, shape) for row in ROWS for shape in TINY if shape.O or row == "triton"))
def gradients_are_those_of_differences(row: str, shape: Shape) -> None:
    tensors = doubles(shape)

    # One vector in and one out: every pair of an input and an output would take runs of its own.
    def function(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([tensor.numel() for tensor in tensors.values()])
        views = {name: part.view(tensors[name].shape) for name, part in zip(tensors, parts)}
        return run(row, shape, views).flatten()

    flat = torch.cat([tensor.flatten() for tensor in tensors.values()]).requires_grad_()
    assert torch.autograd.gradcheck(function, flat, fast_mode=True)


# Two tiles along time in every phase; filters of one to eight taps lack three to none of a group.
FILTERS = [Shape(1, 150, 18, W, dilation=d, silu=1) for W, d in ((1, 2), (2, 1), (3, 2), (4, 1), (5, 2), (8, 1))]
FILTERS.append(Shape(1, 75, 18, 4, O=6, gate=1))


@checks.each(*((shape,) for shape in FILTERS))
def values_and_gradients_are_those_of_the_reference(shape: Shape) -> None:
    tensors = doubles(shape)
    for got, want in zip(gradients("triton", shape, tensors), gradients("reference", shape, tensors), strict=True):
        close(got, want)


@checks.each((1,), (2,), (4,), (6,))
def a_nan_reaches_no_step_before_it_and_none_beyond_the_taps(W: int) -> None:
    """Also where a group of taps is not full, and in the gradients of inputs and weights."""
    for step in (0, 7, 14, 17, 18, 20):
        shape = Shape(1, 21, 3, W, dilation=2)
        tensors = doubles(shape)
        tensors["x"][0, step, 1] = float("nan")
        for got, want in zip(gradients("triton", shape, tensors), gradients("reference", shape, tensors), strict=True):
            assert torch.equal(got.isnan(), want.isnan())


@checks.each((0,), (3,))
def no_sequences_give_empty_outputs_and_gradients_of_zero(O: int) -> None:
    shape = Shape(0, 5, 4, 3, O=O, gate=1)
    y, *rest = gradients("triton", shape, doubles(shape))
    assert y.shape == (0, 5, O or 4)
    assert not any(gradient.any() for gradient in rest)


@checks.each(())
def a_sequence_does_not_depend_on_the_others_and_runs_repeat() -> None:
    shape = Shape(2, 70, 20, 4, O=6, silu=1)
    tensors = inputs(shape, "bf16", "cpu", 3)
    together = gradients("triton", shape, tensors)
    assert all(torch.equal(*pair) for pair in zip(together, gradients("triton", shape, tensors)))
    one = tensors | {"x": tensors["x"][1:]}
    assert torch.equal(run("triton", dataclasses.replace(shape, B=1), one), together[0][1:])


@pytest.fixture(scope="module")
def faults() -> dict[str, str]:
    return run_interpreted(__file__)


@pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")
@pytest.mark.parametrize("check", list(checks))
def test_interpreted(check: str, faults: dict[str, str]) -> None:
    assert not faults[check], faults[check]


def test_spot_parts_are_parts_of_the_whole() -> None:
    shape = Shape(2, 600, 3, 4, O=2, dilation=5, gate=1)
    tensors = doubles(shape)
    whole = (run("reference", shape, tensors),)
    for smaller, part, of_whole, of_part in separable_conv.spot(shape, tensors, seed=1):
        close(of_part((run("reference", smaller, part),)), of_whole(whole))
        assert of_part((run("reference", smaller, part),))[0].shape[1] == _conv_spot.SPOT_STEPS


if __name__ == "__main__":
    checks.run(int(sys.argv[1]))
