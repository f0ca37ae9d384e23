"""The one place that imports Triton, with stand-ins where it does not install (macOS, Windows).

Kernel files write `from ._triton import tl, triton, why_no_triton`. With the stand-ins a decorated function still
exists, so the file imports everywhere, and its `triton*` rows are skipped with `why_no_triton`'s sentence.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from functools import cache
from importlib import import_module
from typing import Any

# Not typed: what stands in a device function is Triton's language, which a checker of Python takes for errors.
triton: Any
tl: Any
try:
    triton, tl = import_module("triton"), import_module("triton.language")
    AVAILABLE = True
except ImportError:
    AVAILABLE = False

    class _StandIn:
        """Answers every attribute with itself and every decorator with the bare function."""

        def __getattr__(self, name: str) -> Any:
            return self

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else self

        def __getitem__(self, key: Any) -> Any:
            return self

    triton, tl = _StandIn(), _StandIn()


# Shared memory of a program on sm_80, the smallest of the targets.
SHARED_BYTES_SM_80 = 163 * 1024


def interpreted() -> bool:
    """Whether Triton runs its kernels in the Python interpreter (the variable must be set before importing triton)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def older_than(major: int, minor: int) -> bool:
    """Whether the Triton at hand is older than this version; nothing is where there is none."""
    return AVAILABLE and tuple(int(part) for part in triton.__version__.split(".")[:2]) < (major, minor)


def why_no_triton(device: str) -> str | None:
    """Say why a Triton kernel cannot run on `device` ("cpu" or "cuda"), or None when it can."""
    if not AVAILABLE:
        return "triton is not installed here (it installs on Linux with pip install triton)"
    if device == "cpu" and not interpreted():
        return "Triton kernels need an NVIDIA GPU; `seqroof verify` runs them interpreted on a CPU, never timed"
    return _why_not_this_gpu() if device == "cuda" else None


def _why_not_this_gpu() -> str | None:
    """Refuse the GPU at hand, if there is one, where the tiles that are compiled do not fit."""
    import torch

    if not torch.cuda.is_available():
        return None
    gpu = torch.cuda.get_device_properties(torch.cuda.current_device())
    if (gpu.major, gpu.minor) >= (8, 0) and gpu.shared_memory_per_block_optin >= SHARED_BYTES_SM_80:
        return None
    return (
        f"the Triton kernels are made for GPUs of compute capability 8.0 or newer whose programs may have "
        f"{SHARED_BYTES_SM_80 // 1024} KiB of shared memory (A100, H100, H200, B200); {gpu.name} has "
        f"{gpu.major}.{gpu.minor} and {gpu.shared_memory_per_block_optin // 1024} KiB"
    )


def on_device_of(tensor: Any) -> AbstractContextManager[Any]:
    """Make the GPU of a tensor the current one, on which Triton launches; nothing for a tensor that is on none."""
    import torch

    return torch.cuda.device_of(tensor)


@cache
def _option_names() -> frozenset[str]:
    """Names that the NVIDIA backend of the installed Triton accepts as launch options."""
    if not AVAILABLE:
        return frozenset()
    from triton.backends.nvidia.compiler import CUDAOptions

    return frozenset(CUDAOptions.__dataclass_fields__)


def checked_options(**options: Any) -> dict[str, Any]:
    """Give launch options back after checking their names, with fused multiply-add switched on unless told otherwise.

    Triton accepts a misspelt option in silence and runs without it. The default of `enable_fp_fusion` differs between
    Triton versions, and with it results and speed, so every kernel states it. Raises `ValueError` on an unknown name.
    """
    unknown = sorted(set(options) - _option_names()) if AVAILABLE else []
    if unknown:
        known = ", ".join(sorted(_option_names()))
        raise ValueError(f"Triton has no launch option {', '.join(unknown)}; its options are {known}.")
    return {"enable_fp_fusion": True, **options}


def tensor_descriptor(tensor: Any, block: list[int]) -> Any:
    """Describe a tensor for the copy engine of sm_90 and later, which moves blocks of this size; zeros lie outside.

    The last axis must be dense, the others have strides above zero that are multiples of 16 bytes.
    """
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), block)
