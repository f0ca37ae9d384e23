"""The LSTM step is torch.nn.LSTMCell, in every implementation that runs here, and its tiles are chosen as meant."""

import contextlib
import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from seqroof.kernels import _catalog, _triton, lstm_step
from seqroof.kernels._triton import checked_options
from seqroof.kernels.lstm_step import Shape, inputs, reference

ROWS = [name for name in lstm_step.IMPLEMENTATIONS if not name.startswith("triton") and name != "compile"]
SHAPE = Shape(3, 37, 130)


def _doubles(shape: Shape) -> dict[str, torch.Tensor]:
    return {name: tensor.double() for name, tensor in inputs(shape, "fp32", "cpu", seed=3).items()}


def _cell(tensors: dict[str, torch.Tensor]) -> torch.nn.LSTMCell:
    """An LSTMCell with the same weights; our one bias is split over its two."""
    weight = tensors["weight_ih"]
    cell = torch.nn.LSTMCell(weight.shape[1], weight.shape[0] // 4, dtype=weight.dtype)
    with torch.no_grad():
        cell.weight_ih.copy_(tensors["weight_ih"])
        cell.weight_hh.copy_(tensors["weight_hh"])
        cell.bias_ih.copy_(0.25 * tensors["bias"])
        cell.bias_hh.copy_(0.75 * tensors["bias"])
    return cell


def test_reference_is_the_lstm_cell() -> None:
    tensors = _doubles(SHAPE)
    want = _cell(tensors)(tensors["x"], (tensors["h"], tensors["c"]))
    for got, expected in zip(reference(SHAPE, **tensors), want, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)


def test_reference_gradients_are_those_of_the_lstm_cell() -> None:
    tensors = {name: tensor.requires_grad_() for name, tensor in _doubles(SHAPE).items()}
    cell = _cell(tensors)
    ours = reference(SHAPE, **tensors)
    theirs = cell(tensors["x"], (tensors["h"], tensors["c"]))
    gradients = [torch.randn_like(output) for output in ours]
    state = [tensors[name] for name in ("x", "h", "c")]
    got = torch.autograd.grad(ours, [*state, *(tensors[n] for n in ("weight_ih", "weight_hh", "bias"))], gradients)
    want = torch.autograd.grad(theirs, [*state, cell.weight_ih, cell.weight_hh, cell.bias_ih], gradients)
    for mine, other in zip(got, want, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_inputs_are_deterministic_and_leave_the_gates_unsaturated() -> None:
    shape = Shape(64, 512, 512)
    tensors = inputs(shape, "fp32", "cpu", seed=7)
    assert all(torch.equal(tensors[name], again) for name, again in inputs(shape, "fp32", "cpu", seed=7).items())
    assert not torch.equal(tensors["x"], inputs(shape, "fp32", "cpu", seed=8)["x"])
    gates = tensors["x"] @ tensors["weight_ih"].t() + tensors["h"] @ tensors["weight_hh"].t()
    assert 0.5 < gates.std() < 1.5


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("shape", [SHAPE, Shape(1, 1, 1), Shape(33, 130, 7)], ids=str)
def test_implementations_agree_with_float64(row: str, shape: Shape, dtype: str) -> None:
    implementation = lstm_step.IMPLEMENTATIONS[row]
    refused = implementation.supports(shape, dtype, "cpu")
    if refused:
        pytest.skip(refused)
    tensors = inputs(shape, dtype, "cpu", seed=1)
    exact = reference(shape, **{name: tensor.double() for name, tensor in tensors.items()})
    for got, want in zip(implementation.run(shape, **tensors), exact, strict=True):
        assert got.dtype == tensors["x"].dtype and got.shape == want.shape
        # A gate rounded in the working precision moves a cell state of about 1 by a few units in the last place.
        torch.testing.assert_close(got.double(), want, rtol=0, atol=8 * torch.finfo(got.dtype).eps)


@pytest.mark.parametrize("row", [row for row in ROWS if lstm_step.IMPLEMENTATIONS[row].grad])
def test_rows_with_gradients_agree_with_the_reference(row: str) -> None:
    tensors = {name: tensor.requires_grad_() for name, tensor in _doubles(SHAPE).items()}
    outputs = lstm_step.IMPLEMENTATIONS[row].run(SHAPE, **tensors)
    gradients = [torch.randn_like(output) for output in outputs]
    got = torch.autograd.grad(outputs, list(tensors.values()), gradients)
    want = torch.autograd.grad(reference(SHAPE, **tensors), list(tensors.values()), gradients)
    for mine, other in zip(got, want, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["x", "h", "c", "weight_ih", "weight_hh", "bias"])
def test_gradients_of_the_triton_row_are_refused(name: str) -> None:
    """Whatever wants them: outputs that do not require gradients would drop them in silence."""
    tensors = inputs(SHAPE, "fp32", "cpu", seed=1)
    tensors[name].requires_grad_()
    with pytest.raises(ValueError, match=r"'triton' of lstm_step computes no gradients; take 'torch'"):
        lstm_step.IMPLEMENTATIONS["triton"].run(SHAPE, **tensors)


@pytest.mark.parametrize("name", ["x", "h", "c", "weight_ih", "weight_hh", "bias"])
def test_the_triton_row_refuses_tensors_that_do_not_fit(name: str) -> None:
    """A pointer knows neither its size nor its dtype: the kernel would read past the end, or another format."""
    run = lstm_step.IMPLEMENTATIONS["triton"].run
    tensors = inputs(SHAPE, "bf16", "cpu", seed=1)
    with pytest.raises(ValueError, match=f"{name} has the size .* was expected"):
        run(SHAPE, **{**tensors, name: tensors[name][:-1]})
    with pytest.raises(ValueError, match="convert one, so that all tensors agree"):
        run(SHAPE, **{**tensors, name: tensors[name].float()})


@pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")
def test_the_triton_row_is_launched_on_the_device_of_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    launched, current = [], []

    @contextlib.contextmanager
    def on_device_of(tensor: torch.Tensor) -> Iterator[None]:
        current.append(tensor.device)
        yield
        current.pop()

    class Noting:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return lambda *arguments, **values: launched.append(([one.device for one in arguments[:8]], *current))

    monkeypatch.setattr(lstm_step, "on_device_of", on_device_of)
    for name in ("_step_aligned", "_step_unaligned"):
        monkeypatch.setattr(lstm_step, name, Noting())
    devices = [torch.device("cpu"), torch.device("meta")]
    for device in devices:
        tensors = {name: tensor.to(device) for name, tensor in inputs(SHAPE, "bf16", "cpu", 0).items()}
        lstm_step.IMPLEMENTATIONS["triton"].run(SHAPE, **tensors)
    assert launched == [([device] * 8, device) for device in devices]


@pytest.mark.parametrize("row", ROWS)
def test_strided_input_gives_the_same_result(row: str) -> None:
    tensors = inputs(SHAPE, "fp32", "cpu", seed=1)
    turned = {name: t.t().contiguous().t() if t.dim() == 2 else t for name, t in tensors.items()}
    run = lstm_step.IMPLEMENTATIONS[row].run
    for got, want in zip(run(SHAPE, **turned), run(SHAPE, **tensors), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("row", ROWS)
def test_nan_stays_in_its_sequence(row: str) -> None:
    tensors = inputs(SHAPE, "fp32", "cpu", seed=1)
    tensors["x"][1, 5] = math.nan
    for output in lstm_step.IMPLEMENTATIONS[row].run(SHAPE, **tensors):
        assert output[1].isnan().all() and not output[0].isnan().any() and not output[2].isnan().any()


@pytest.mark.parametrize(("sizes", "name"), [((0, 1, 1), "B"), ((1, -3, 1), "I"), ((1, 1, 0), "H")])
def test_impossible_sizes_are_refused(sizes: tuple[int, int, int], name: str) -> None:
    with pytest.raises(_catalog.ContractError, match=f"{name} must be at least 1"):
        _catalog.load("lstm_step").shape(**dict(zip("BIH", sizes)))


@pytest.mark.parametrize(
    ("row", "dtype", "device", "word"),
    [
        ("torch", "tf32", "cpu", "TF32"),
        ("torch", "fp16", "cpu", "1 GFLOP/s"),
        ("torch.onednn", "bf16", "cuda", "CPUs"),
        ("torch.onednn", "fp16", "cpu", "fp32 and bf16"),
        ("torch.onednn", "tf32", "cpu", "TF32"),
        ("triton", "fp64", "cuda", "float32"),
    ],
)
def test_refusals_give_their_reason(row: str, dtype: str, device: str, word: str) -> None:
    assert word in (lstm_step.IMPLEMENTATIONS[row].supports(Shape(256, 2048, 2048), dtype, device) or "")


@pytest.mark.parametrize(
    ("shape", "dtype", "units", "batch"),
    [
        # 128 programs on 132 processors, whatever the hidden size.
        (Shape(1, 1024, 1024), "bf16", 8, 16),
        (Shape(1, 2048, 2048), "bf16", 16, 16),
        (Shape(32, 4096, 4096), "bf16", 32, 32),
        # Too small to fill the machine: the smallest programs.
        (Shape(1, 256, 256), "bf16", 8, 16),
        # One tile of 64 sequences would be 32 programs; narrower ones are 128, and 64 where there are no narrower ones.
        (Shape(64, 512, 512), "bf16", 8, 32),
        (Shape(64, 512, 512), "fp32", 8, 32),
        (Shape(32, 256, 256), "bf16", 8, 16),
        # A batch beyond the widest tile is cut into tiles of that width.
        (Shape(512, 2048, 2048), "bf16", 32, 128),
        (Shape(3, 2048, 2048), "fp32", 8, 4),
        (Shape(256, 2048, 2048), "fp32", 16, 64),
    ],
)
def test_tiles_fill_an_h200(shape: Shape, dtype: str, units: int, batch: int) -> None:
    tile = lstm_step._tile_for(shape, dtype, processors=132)
    assert (tile.units, tile.batch) == (units, batch)


def test_what_is_launched_is_what_is_compiled() -> None:
    """Whatever the sizes, the chosen tile's options and constants stand in COMPILE."""
    compiled = [(case.constexprs, case.options) for case in lstm_step.COMPILE]
    for dtype in ("fp32", "tf32", "fp16", "bf16"):
        for shape in lstm_step.SHAPES["full"]:
            tile = lstm_step._tile_for(shape, dtype, processors=132)
            assert (tile.constexprs(lstm_step._PRECISION[dtype], interpret=False), tile.options()) in compiled


def test_a_misspelt_launch_option_is_refused() -> None:
    assert checked_options(num_warps=8) == {"enable_fp_fusion": True, "num_warps": 8}
    assert checked_options(enable_fp_fusion=False) == {"enable_fp_fusion": False}
    with pytest.raises(ValueError, match="no launch option num_wraps"):
        checked_options(num_wraps=8)


def test_the_file_imports_without_triton() -> None:
    """Its Triton row is then refused with a reason, and all others stay."""
    program = (
        "import sys; sys.modules['triton'] = None\n"
        "from seqroof.kernels.lstm_step import IMPLEMENTATIONS, Shape\n"
        "print(IMPLEMENTATIONS['triton'].supports(Shape(1, 1, 1), 'bf16', 'cuda'))"
    )
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert child.stdout.startswith("triton is not installed here"), child.stderr
