"""What the tests of the convolution kernels share: inputs in float64, comparisons, gradients, and spot checks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def doubles(kernel: Any, shape: Any, seed: int = 3) -> dict[str, Tensor]:
    """Inputs of a kernel, drawn in float32 and raised to float64."""
    return {name: tensor.double() for name, tensor in kernel.inputs(shape, "fp32", "cpu", seed).items()}


def close(got: Any, want: Any) -> None:
    """Equal but for the rounding of float64."""
    for mine, other in zip(got, want, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-12)


def with_gradients(run: Callable[..., Any], tensors: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """Outputs of run(**tensors), and the gradients of all of them for fixed random gradients of the outputs."""
    given = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    outputs = run(**given)
    source = torch.Generator().manual_seed(5)
    above = [torch.randn(output.shape, generator=source, dtype=output.dtype) for output in outputs]
    return *(output.detach() for output in outputs), *torch.autograd.grad(outputs, list(given.values()), above)


def derivatives_are_those_of_differences(run: Callable[..., Any], tensors: dict[str, Tensor]) -> None:
    """torch.autograd.gradcheck along one random direction of all tensors together."""
    sizes = [tensor.numel() for tensor in tensors.values()]

    def function(flat: Tensor) -> Tensor:
        parts = flat.split(sizes)
        given = {name: part.view(tensor.shape) for (name, tensor), part in zip(tensors.items(), parts)}
        return torch.cat([output.flatten() for output in run(**given)])

    flat = torch.cat([tensor.flatten() for tensor in tensors.values()]).requires_grad_()
    assert torch.autograd.gradcheck(function, flat, fast_mode=True)


def parts_are_those_of_the_whole(kernel: Any, shape: Any) -> None:
    """Every part that `spot` takes has the outputs that it claims, the very last one among them."""
    tensors = doubles(kernel, shape)
    (whole,) = kernel.reference(shape, **tensors)
    marked = whole.contiguous().clone()
    marked.view(-1)[-1] = float("nan")
    for seed in range(3):
        parts = kernel.spot(shape, tensors, seed)
        for smaller, part, of_whole, of_part in parts:
            close(of_part(kernel.reference(smaller, **part)), of_whole((whole,)))
        assert any(of_whole((marked,))[0].isnan().any() for _, _, of_whole, _ in parts)
