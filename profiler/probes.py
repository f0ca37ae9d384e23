"""Probes of the mathematics: how far gradients and windows reach, in float64 on the processor, before any training.

They call the references of kernels, which they are given by name, and return evidence instead of times. Intervals are
those of the median over the seeds. `tell(text)` says that a probe is alive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..roofline.claim_reach import GRADIENT_DEPTH, GRADIENT_REACH, HIERARCHY
from ..roofline.record import Evidence
from ..roofline.stats import median_interval

Load = Callable[[str], Any]
Tell = Callable[[str], None]
Values = dict[str, float | int | str | None]

SEEDS = 10  # as many as the claims ask for
DTYPE = "fp64"  # influences of 1e-300 are still numbers
# From a gate that starts half open to one that forgets a four-hundredth per step, over the usual 1.
FORGET_BIASES = (0, 1, 2, 3, 4, 6)
DISTANCES = (1, 3, 10, 30, 100, 300, 1000)
# Small enough for a thousand steps in a quarter of a second; the rate of decay hardly depends on it.
HIDDEN, ROWS = 32, 4
LAYERS, CHANNELS, TAPS, STEPS = 32, 32, 3, 128
# Two ways to draw weights, each the same for all stacks: variance 1 / fan-in; or scaled layer by layer so that signals
# keep their size.
KEEPING = "keeping size"
WEIGHTS = ("1/fan-in", KEEPING)
WINDOW, WIDTH = 100, 2
# Perturbed copies that are computed at once: 16 MB of inputs.
COPIES = 100
# One of 10000 inputs moves the context by about 1e-4, and another order of the same sums by 1e-16.
CHANGED = 1e-10


def spread(name: str, values: Sequence[float]) -> Values:
    """The median of a value over the seeds, with its interval, under the names that claims read."""
    low, middle, high = median_interval(values)
    return {name: middle, f"{name}_low": low, f"{name}_high": high}


def norm(tensor: Tensor) -> float:
    """Euclidean norm that does not underflow where squares do."""
    largest = float(tensor.abs().max())
    return largest * float((tensor / largest).norm()) if largest else 0.0


def gradient_reach(load: Load, tell: Tell) -> list[Evidence]:
    """Gradient norms of an LSTM's last state to the input k steps back, over that one step back, by forget bias."""
    kernel = load("lstm")
    rows = []
    for forget_bias in FORGET_BIASES:
        decays = []
        for seed in range(SEEDS):
            tell(f"gradient reach, forget bias {forget_bias}, seed {seed}")
            decays.append(_decay(kernel, forget_bias, seed))
        values: Values = {"forget_bias": forget_bias, "seeds": SEEDS, "hidden": HIDDEN, "dtype": DTYPE}
        for steps in DISTANCES:
            values |= spread(f"norm_{steps}", [decay[steps] for decay in decays])
        rows.append(
            Evidence(
                id=f"{GRADIENT_REACH} forget_bias={forget_bias}",
                values=values,
                how="gradient of a random combination of the last hidden state of the kernel lstm's reference, at "
                "initialisation with weights of variance 1 / fan-in, to every input; norms over the batch",
            )
        )
    return rows


def _decay(kernel: Any, forget_bias: float, seed: int) -> dict[int, float]:
    shape = kernel.shape(B=ROWS, T=max(DISTANCES) + 1, I=HIDDEN, H=HIDDEN)
    inputs = kernel.module.inputs(shape, DTYPE, "cpu", seed)
    inputs["bias"] = torch.zeros_like(inputs["bias"])
    inputs["bias"][..., HIDDEN : 2 * HIDDEN] = forget_bias  # the gates are i, f, g, o in this order
    x = inputs["x"].requires_grad_()
    _, last, _ = kernel.reference(shape, **inputs)
    (gradient,) = torch.autograd.grad((last * _direction(last, seed)).sum(), x)
    norms = {steps: norm(gradient[shape.T - 1 - steps]) for steps in DISTANCES}
    return {steps: norms[steps] / norms[1] for steps in DISTANCES}


def _direction(like: Tensor, seed: int) -> Tensor:
    """A random combination of outputs, another than the seed draws for the inputs."""
    return torch.randn(like.shape, dtype=like.dtype, generator=torch.Generator().manual_seed(10_000 + seed))


def gradient_depth(load: Load, tell: Tell) -> list[Evidence]:
    """Gradient norms through a stack of convolutions: gated, residual gated, tanh, and tanh with a gate."""
    kernel = load("gated_conv")
    rows = []
    for weights in WEIGHTS:
        norms: list[dict[str, float]] = []
        for seed in range(SEEDS):
            tell(f"gradient depth, weights {weights}, seed {seed}")
            norms.append(_through(kernel, weights == KEEPING, seed))
        values: Values = {"weights": weights, "layers": LAYERS, "seeds": SEEDS, "channels": CHANNELS, "taps": TAPS}
        for name in ("gated", "tanh", "residual", "gated_tanh"):
            values |= spread(name, [found[name] for found in norms])
        for name, over, under in (
            ("gated_over_tanh", "gated", "tanh"),
            ("residual_over_tanh", "residual", "tanh"),
            ("gated_over_gated_tanh", "gated", "gated_tanh"),
        ):
            values |= spread(name, [found[over] / found[under] for found in norms])
        rows.append(
            Evidence(
                id=f"{GRADIENT_DEPTH} weights={weights}",
                values=values,
                how="gradient of a random combination of the outputs to the input over the norm of that combination, "
                "at initialisation; gated and residual by the reference of the kernel gated_conv, the others with its "
                "weights; residual layers always with variance 1 / fan-in",
            )
        )
    return rows


def _through(kernel: Any, keep_size: bool, seed: int) -> dict[str, float]:
    """Gradient norms of every kind of layer through a stack drawn with one seed.

    keep_size : scale every output to the norm of its input. For the layers above, that is to scale their weights.
    """
    shapes = {
        name: kernel.shape(B=ROWS, T=STEPS, C=CHANNELS, O=CHANNELS, W=TAPS, residual=int(name == "residual"))
        for name in ("gated", "residual")
    }
    drawn = [kernel.module.inputs(shapes["gated"], DTYPE, "cpu", seed * LAYERS + layer) for layer in range(LAYERS)]
    no_bias = torch.zeros_like(drawn[0]["bias"])

    def of_kernel(name: str, x: Tensor, weight: Tensor) -> Tensor:
        return kernel.reference(shapes[name], x=x, weight=weight, bias=no_bias)[0]

    def tanh(x: Tensor, weight: Tensor) -> Tensor:
        return torch.tanh(_causal(x, weight[..., :CHANNELS]))

    def gated_tanh(x: Tensor, weight: Tensor) -> Tensor:
        return tanh(x, weight) * torch.sigmoid(_causal(x, weight[..., CHANNELS:]))

    residual = partial(of_kernel, "residual")
    layers = {"gated": partial(of_kernel, "gated"), "tanh": tanh, "gated_tanh": gated_tanh}
    if keep_size:
        layers = {name: partial(_keeping_size, layer) for name, layer in layers.items()}
    return {name: _gain(layer, drawn, seed) for name, layer in (layers | {"residual": residual}).items()}


def _keeping_size(layer: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor) -> Tensor:
    y = layer(x, weight)
    return y * (x.norm() / y.norm()).detach()


def _causal(x: Tensor, weight: Tensor) -> Tensor:
    """Causal convolution of x (B, T, C) with weight (W, C, O), channels last."""
    padded = F.pad(x, (0, 0, weight.shape[0] - 1, 0)).transpose(1, 2)
    return F.conv1d(padded, weight.permute(2, 1, 0)).transpose(1, 2)


def _gain(layer: Callable[[Tensor, Tensor], Tensor], drawn: list[dict[str, Tensor]], seed: int) -> float:
    x = drawn[0]["x"].clone().requires_grad_()
    y = x
    for inputs in drawn:
        y = layer(y, inputs["weight"])
    direction = _direction(y, seed)
    (gradient,) = torch.autograd.grad((y * direction).sum(), x)
    return norm(gradient) / norm(direction)


def hierarchy_reach(load: Load, tell: Tell) -> list[Evidence]:
    """How many inputs of a hierarchy of full windows change its context, and how many levels one input more needs."""
    kernel = load("hierarchical_attention")
    shape = kernel.shape(B=COPIES, T=WINDOW**2, P=WIDTH, F=WINDOW)
    inputs = kernel.module.inputs(shape, DTYPE, "cpu", 0)
    inputs["x"] = inputs["x"][:1].expand(COPIES, -1, -1).contiguous()
    levels = kernel.reference(shape, **inputs)
    other = torch.randn(shape.T, WIDTH, dtype=levels[-1].dtype, generator=torch.Generator().manual_seed(1))
    moved = []
    for first in range(0, shape.T, COPIES):
        tell(f"hierarchy reach, input {first}")
        places = torch.arange(first, min(first + COPIES, shape.T))
        perturbed = inputs["x"].clone()
        perturbed[torch.arange(len(places)), places] = other[places]
        contexts = kernel.reference(shape, **inputs | {"x": perturbed})[-1]
        moved += (contexts - levels[-1]).abs().amax(dim=(1, 2))[: len(places)].tolist()
    longer = kernel.shape(B=1, T=shape.T + 1, P=WIDTH, F=WINDOW)
    more = kernel.reference(longer, **kernel.module.inputs(longer, DTYPE, "cpu", 0))
    values: Values = {"window": WINDOW, "inputs": shape.T, "changed": sum(change > CHANGED for change in moved)}
    values |= {"smallest_change": min(moved), "levels": len(levels), "levels_one_more": len(more)}
    how = "each input in turn replaced by another random vector, in float64; the last context compared"
    return [Evidence(id=HIERARCHY, values=values, how=f"{how}; reference of the kernel hierarchical_attention")]


PROBES: dict[str, Callable[[Load, Tell], list[Evidence]]] = {
    "gradient_reach": gradient_reach,
    "gradient_depth": gradient_depth,
    "hierarchy_reach": hierarchy_reach,
}
