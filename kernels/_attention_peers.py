"""Other people's attention kernels as rows, where their packages can be imported: flash-attn.

It is no dependency and has not been run here: the call is written for flash-attn 2.8. A package that is not installed
makes no row. Letters as in `attention`.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

from torch import Tensor

from ..roofline.contract import Implementation
from ._attention_lengths import check

if TYPE_CHECKING:
    from .attention import Shape


def peer_rows() -> dict[str, Implementation]:
    """Rows of the packages that are installed; they are looked for, not imported."""
    if not importlib.util.find_spec("flash_attn"):
        return {}
    return {"flash_attn": Implementation(_run_flash_attn, supports=why_not_flash_attn, grad=True)}


def _run_flash_attn(shape: Shape, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
    """Call flash_attn_func, which has heads inside of steps and is causal from the end, as we are."""
    check(shape, q, k, v, None, None)
    package = importlib.import_module("flash_attn")
    o = package.flash_attn_func(*(tensor.transpose(1, 2) for tensor in (q, k, v)), causal=bool(shape.causal))
    return (o.transpose(1, 2),)


def why_not_flash_attn(shape: Shape, dtype: str, device: str) -> str | None:
    """Refuse what flash_attn_func does not compute."""
    if device != "cuda":
        return "flash-attn needs an NVIDIA GPU"
    if dtype not in ("fp16", "bf16"):
        return f"flash-attn takes fp16 and bf16, not {dtype}"
    if shape.P > 256 or shape.P % 8:
        return f"flash-attn takes head dimensions that are multiples of 8 up to 256, not P={shape.P}"
    if shape.ragged:
        return "flash-attn wants rows of different lengths packed one after the other, which this kernel's are not"
    return None if shape.B else "flash-attn was not written for empty batches"
