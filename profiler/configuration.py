"""What was chosen for a timed implementation beyond its source: versions, and how its Triton kernels were compiled.

Stored in `Point.compiler`, so that two runs can be told apart that differ in nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

from .packages import version_of
from .versions import compiler_name

Facts = dict[str, int | float | str | None]

# Hex digits of a compiled program's hash: enough to tell a few hundred programs apart.
HASH_DIGITS = 16


def declared(implementation: str) -> Facts:
    """What is known before anything runs: the versions that choose for this implementation."""
    if implementation.startswith("triton"):
        return {"triton": version_of("triton")}
    if implementation == "compile":
        return {"torch.compile": version_of("torch"), "triton": version_of("triton"), "c++": compiler_name()}
    return {}


@contextlib.contextmanager
def launched(function: Any = None) -> Iterator[dict[int, Any]]:
    """Collect the compiled Triton kernels that are launched inside: id -> kernel.

    function : Triton's class of compiled functions, whose `run` gives back the kernel that it launched.
    """
    kernels: dict[int, Any] = {}
    function = function or _triton_function()
    if function is None:
        yield kernels
        return
    original = function.run

    def run(self: Any, *arguments: Any, **options: Any) -> Any:
        kernel = original(self, *arguments, **options)
        if kernel is not None:
            kernels[id(kernel)] = kernel
        return kernel

    function.run = run
    try:
        yield kernels
    finally:
        function.run = original


def _triton_function() -> Any:
    try:
        from triton.runtime.jit import JITFunction
    except ImportError:
        return None
    return JITFunction


def facts_of(kernels: dict[int, Any]) -> Facts:
    """Options, resources and a hash of every launched kernel, each under `name: fact`; what is not told is None.

    A second specialisation of a name gets a number, in order of launch.
    """
    found: Facts = {}
    seen: dict[str, int] = {}
    for kernel in kernels.values():
        metadata = getattr(kernel, "metadata", None)
        name = str(getattr(metadata, "name", None) or getattr(kernel, "name", "kernel"))
        seen[name] = seen.get(name, 0) + 1
        label = name if seen[name] == 1 else f"{name} {seen[name]}"
        found |= {f"{label}: {fact}": value for fact, value in _facts_of_one(kernel, metadata).items()}
    return found


def _facts_of_one(kernel: Any, metadata: Any) -> Facts:
    program = getattr(kernel, "asm", {}).get("cubin")
    return {
        "warps": getattr(metadata, "num_warps", None),
        "stages": getattr(metadata, "num_stages", None),
        "ctas": getattr(metadata, "num_ctas", None),
        "fused multiply-add": _yes_no(getattr(metadata, "enable_fp_fusion", None)),
        "registers": getattr(kernel, "n_regs", None),
        "spilled registers": getattr(kernel, "n_spills", None),
        "shared_bytes": getattr(metadata, "shared", None),
        "cubin": hashlib.sha256(program).hexdigest()[:HASH_DIGITS] if program else None,
        "tile": _constants(getattr(kernel, "src", None)),
    }


def _yes_no(value: bool | None) -> str | None:
    return None if value is None else "on" if value else "off"


def _constants(source: Any) -> str | None:
    """The compile-time constants of a kernel by name: tile sizes and switches."""
    constants, names = getattr(source, "constants", None), getattr(getattr(source, "fn", None), "arg_names", None)
    if not constants or not names:
        return None
    chosen = {names[path[0]]: value for path, value in constants.items() if len(path) == 1}
    kept = sorted((name, value) for name, value in chosen.items() if isinstance(value, (int, float, str)))
    return ",".join(f"{name}={value}" for name, value in kept) or None
