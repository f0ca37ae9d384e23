"""Other people's depthwise convolutions as rows of separable_conv, where their packages can be imported.

causal-conv1d and flash-linear-attention. Neither is a dependency, and neither has been run here: the calls are written
for the versions named below and have not been executed on a GPU. A package that is not installed makes no row.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import torch

from ..roofline.contract import Implementation

# Row -> package to import. Written for causal-conv1d 1.5 and flash-linear-attention 0.4, whose function is in
# `fla.modules.conv`.
MODULES = {"causal_conv1d": "causal_conv1d", "fla": "fla"}
_FLA_MODULE = "fla.modules.conv"
# Taps that causal-conv1d has kernels for.
_WIDTHS = (2, 3, 4)
# Its kernel for channels-last tensors moves this many channels at a time.
_CHANNELS = 8


def peer_rows() -> dict[str, Implementation]:
    """Rows of the packages that are installed; they are looked for, not imported."""
    made = {"causal_conv1d": causal_conv1d_row, "fla": fla_row}
    return {row: made[row]() for row, package in MODULES.items() if importlib.util.find_spec(package)}


def why_not_plain(shape: Any, dtype: str, device: str) -> str | None:
    """Say what of a case neither package computes, or None."""
    if (shape.O, shape.gate, shape.dilation) != (0, 0, 1):
        return "this package computes the depthwise part alone, without dilation or a second input"
    if device != "cuda":
        return "this package's kernels need an NVIDIA GPU"
    if dtype not in ("bf16", "fp16", "fp32"):
        return f"this package has kernels for bf16, fp16 and fp32, not for {dtype}"
    return None if shape.B else "this package was not written for empty batches"


def _activation(shape: Any) -> str | None:
    return "silu" if shape.silu else None


def _run_causal_conv1d(shape: Any, x, weight, bias) -> tuple[torch.Tensor]:
    """Its tensors are (B, C, T) and (C, W); a transposed view keeps the channels last in memory."""
    package = importlib.import_module("causal_conv1d")
    result = package.causal_conv1d_fn(x.transpose(1, 2), weight.t().contiguous(), bias, activation=_activation(shape))
    return (result.transpose(1, 2),)


def causal_conv1d_row() -> Implementation:
    """The CUDA kernels of causal-conv1d."""

    def why_not(shape: Any, dtype: str, device: str) -> str | None:
        refused = why_not_plain(shape, dtype, device)
        if refused:
            return refused
        if shape.W not in _WIDTHS:
            return f"causal-conv1d has kernels for 2 to 4 taps, not for W={shape.W}"
        if shape.C % _CHANNELS:
            return f"causal-conv1d wants C to be a multiple of {_CHANNELS} for channels-last tensors, not {shape.C}"
        return None

    return Implementation(_run_causal_conv1d, launches=2, supports=why_not, grad=True)


def _run_fla(shape: Any, x, weight, bias) -> tuple[torch.Tensor]:
    """Its tensors are (B, T, C) and (C, W); the second result, a final state, is not asked for."""
    module = importlib.import_module(_FLA_MODULE)
    y, _ = module.causal_conv1d(x, weight.t().contiguous(), bias, activation=_activation(shape), backend="triton")
    return (y,)


def fla_row() -> Implementation:
    """The Triton kernels of flash-linear-attention."""

    def why_not(shape: Any, dtype: str, device: str) -> str | None:
        refused = why_not_plain(shape, dtype, device)
        if refused:
            return refused
        try:
            importlib.import_module(_FLA_MODULE)
        except ImportError as error:
            return f"flash-linear-attention's convolution cannot be imported: {error}"
        return None

    return Implementation(_run_fla, launches=2, supports=why_not, grad=True)
