"""Compiles a Triton kernel for a GPU that need not be there, and reads off what the compiler made of it.

Triton brings its own assembler and disassembler, so registers, spills, shared memory and the instructions that matter
are known on any x86-64 Linux machine. `gates` says which of them would make the kernel slow or unlaunchable.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..roofline.contract import CompileCase
from ..roofline.inspection import Instruction, tensor_kind
from ..roofline.occupancy import BLOCK_REGISTER_LIMIT, REGISTER_LIMIT, TARGETS, WARP_THREADS, Resources
from .machine_program import instructions

# A warp group, four warps, multiplies 64 rows at a time on sm_90: from there on its own instruction is worth having.
WARP_GROUP_ROWS = 64
WARP_GROUP_WARPS = 4
WARP_GROUP_CAPABILITY = 90  # the only one with warp groups

_RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+)")
_DOT_ROWS = re.compile(r"tt\.dot\b.*-> tensor<(\d+)x")


# Bits of an access that is worth asking for; a bulk copy, which has no width of its own, is wider still.
WIDE_BITS = 128
# An operand as large as the others that is loaded narrowly brings half of the bits; flags, biases and scales a third.
MOST_NARROW = 0.4


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of one configuration for one compute capability.

    function : name of the Triton function.
    stack_bytes : local memory per thread; spilled registers appear here.
    shared_bytes : shared memory of one thread block. tensor_columns : columns of tensor memory, on sm_100 and its kin.
    dot_rows : rows of the largest matrix product in the source program, 0 without one.
    program : the instructions that matter, as often as they stand in the machine program.
    time_s : wall-clock time of the compilation; near zero when Triton's cache had the result.
    """

    label: str
    function: str
    capability: int
    triton: str
    registers: int
    stack_bytes: int
    shared_bytes: int
    tensor_columns: int
    cubin_bytes: int
    warps: int
    dot_rows: int
    program: tuple[Instruction, ...]
    time_s: float

    @property
    def resources(self) -> Resources:
        """What one program takes of a multiprocessor."""
        return Resources(self.registers, self.shared_bytes, self.warps * WARP_THREADS, self.tensor_columns)

    @property
    def tensor(self) -> dict[str, int]:
        """Tensor-core instruction -> how often it stands in the program."""
        return {entry.name: entry.count for entry in self.program if entry.group == "tensor"}

    @property
    def wide(self) -> dict[str, int]:
        """128-bit loads and bulk copies -> how often they stand in the program."""
        loads = [entry for entry in self.program if entry.group == "load"]
        return {entry.name: entry.count for entry in loads if not entry.bits or entry.bits >= WIDE_BITS}

    @property
    def narrow_share(self) -> float:
        """Share of the bits that loads of less than 128 bring: of loads in loops, or of all where none stands in one.

        Bulk copies, whose width nobody states, are left out; 0.0 without other loads.
        """
        loads = [entry for entry in self.program if entry.group == "load" and entry.bits]
        looping = any(entry.in_loops for entry in loads)
        brought = {entry: entry.bits * (entry.in_loops if looping else entry.count) for entry in loads}
        narrow = sum(bits for entry, bits in brought.items() if entry.bits < WIDE_BITS)
        return narrow / (sum(brought.values()) or 1)


def compile_case(case: CompileCase, capability: int) -> Compiled:
    """Compile `case` for a compute capability written as two digits in one, such as 90 for sm_90.

    Raises `ValueError` when the case cannot be compiled as described (its text says why), `RuntimeError` when Triton is
    missing, interprets its kernels in this process, or fails to compile.
    """
    started = time.perf_counter()
    built = build(case, capability)
    time_s = time.perf_counter() - started
    cubin = built.asm["cubin"]
    registers, stack_bytes, text = _disassemble(cubin)
    return Compiled(
        label=case.label,
        function=case.kernel.fn.__name__,
        capability=capability,
        triton=built.metadata.triton_version,
        registers=registers,
        stack_bytes=stack_bytes,
        shared_bytes=built.metadata.shared,
        tensor_columns=built.metadata.tmem_size,
        cubin_bytes=len(cubin),
        warps=built.metadata.num_warps,
        dot_rows=max(map(int, _DOT_ROWS.findall(built.asm["ttir"])), default=0),
        program=instructions(text),
        time_s=time_s,
    )


def build(case: CompileCase, capability: int) -> Any:
    """Triton's own record of a compiled case, with every stage in `asm`; raises what `compile_case` raises."""
    triton = _import_triton(case)
    source = _source(case)
    try:
        return triton.compile(
            source,
            target=triton.backends.compiler.GPUTarget("cuda", capability, WARP_THREADS),
            options=dict(case.options),
        )
    except Exception as error:  # compiler passes raise anything, and the sentence must name the case
        raise RuntimeError(f"{case.label} does not compile for sm_{capability}: {error}") from error


def _import_triton(case: CompileCase) -> Any:
    try:
        import triton
        import triton.backends.compiler
        import triton.compiler
    except ImportError as error:
        raise RuntimeError("Compiling needs triton, which installs on Linux with `pip install triton`.") from error
    if not isinstance(case.kernel, triton.JITFunction):
        raise RuntimeError(
            f"{case.label} is no compilable kernel. Either TRITON_INTERPRET=1 is set, under which kernels are"
            " interpreted (unset it and start again), or `kernel` is not a function decorated with triton.jit."
        )
    return triton


def _source(case: CompileCase) -> Any:
    """Describe the case to Triton's front end, which answers a wrong name with an assertion or with silence."""
    from triton.backends.nvidia.compiler import CUDAOptions
    from triton.compiler import ASTSource

    names = case.kernel.arg_names
    for what, given, known in (
        ("signature", case.signature, names),
        ("constexprs", case.constexprs, names),
        ("divisible", case.divisible, names),
        ("options", case.options, CUDAOptions.__dataclass_fields__),
    ):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ValueError(f"{case.label}: {what} names {', '.join(unknown)}; known are {', '.join(known)}.")
    missing = [name for name in names if name not in case.signature]
    if missing:
        raise ValueError(f"{case.label}: the signature lacks {', '.join(missing)}.")
    return ASTSource(
        case.kernel,
        case.signature,
        {(names.index(name),): value for name, value in case.constexprs.items()},
        {(names.index(name),): [["tt.divisibility", 16]] for name in case.divisible},
    )


def _disassemble(cubin: bytes) -> tuple[int, int, str]:
    """Give registers and stack bytes per thread, and the machine program as text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage = _tool("cuobjdump", "--dump-resource-usage", str(path))
        # Code alone, without the analysis of branches (-ndf), which is a third of the time and changes no instruction.
        program = _tool("nvdisasm", "-c", "-ndf", str(path))
    found = _RESOURCES.search(usage)
    if not found:
        raise RuntimeError(f"cuobjdump did not say how many registers the kernel uses. It printed: {usage.strip()}")
    return int(found[1]), int(found[2]), program


def _tool(name: str, *arguments: str) -> str:
    """Run one of the binary tools that lie in Triton's wheel."""
    import triton

    path = Path(str(triton.__file__)).parent / "backends" / "nvidia" / "bin" / name
    if not path.is_file():
        raise RuntimeError(f"This triton has no {name} in backends/nvidia/bin; the wheel from PyPI has.")
    done = subprocess.run([str(path), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} failed with exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def gates(case: CompileCase, result: Compiled, capability: int) -> list[str]:
    """Say in sentences what is wrong with a compiled configuration; an empty list when nothing is.

    Raises `ValueError` for a compute capability whose limits are not known.
    """
    if capability not in TARGETS:
        known = ", ".join(map(str, TARGETS))
        raise ValueError(f"The limits of compute capability {capability} are not known; known are {known}.")
    return [*_resource_failures(result, capability), *_instruction_failures(case, result, capability)]


def _resource_failures(result: Compiled, capability: int) -> list[str]:
    failures = []
    if result.stack_bytes:
        failures.append(f"spills: {result.stack_bytes} bytes of stack per thread, expected none")
    if result.registers > REGISTER_LIMIT:
        failures.append(f"{result.registers} registers per thread, at most {REGISTER_LIMIT} exist")
    if result.registers * result.warps * WARP_THREADS > BLOCK_REGISTER_LIMIT:
        failures.append(
            f"{result.registers} registers in {result.warps} warps, together more than {BLOCK_REGISTER_LIMIT}"
        )
    limit = TARGETS[capability].block_shared_bytes
    if result.shared_bytes > limit:
        failures.append(f"{result.shared_bytes} bytes of shared memory, sm_{capability} has {limit}")
    return failures


def _instruction_failures(case: CompileCase, result: Compiled, capability: int) -> list[str]:
    return [*_product_failures(case, result, capability), *_load_failures(case, result)]


def _product_failures(case: CompileCase, result: Compiled, capability: int) -> list[str]:
    if "tensor" in case.expects and not result.tensor:
        return ["no tensor-core instruction, expected some"]
    if capability != WARP_GROUP_CAPABILITY:
        return []
    by_group = [name for name in result.tensor if tensor_kind(name) == "wgmma"]
    by_warp = [name for name in result.tensor if tensor_kind(name) != "wgmma"]
    if "warp group" in case.expects and (by_warp or not by_group):
        found = ", ".join(by_warp) or "no product"
        return [f"{found} instead of warp-group instructions (HGMMA) alone"]
    large = result.dot_rows >= WARP_GROUP_ROWS and result.warps >= WARP_GROUP_WARPS
    if "tensor" in case.expects and large and not by_group:
        return [f"products of {result.dot_rows} rows without a warp-group instruction (HGMMA)"]
    return []


def _load_failures(case: CompileCase, result: Compiled) -> list[str]:
    if {"wide", "wide loops"} & set(case.expects) and not result.wide:
        return ["no 128-bit load or bulk copy, expected some"]
    if "wide loops" in case.expects and result.narrow_share > MOST_NARROW:
        share = f"{result.narrow_share:.0%}"
        return [f"{share} of what loops load comes by less than 128 bits, at most {MOST_NARROW:.0%} expected"]
    return []
