"""How many programs of a kernel one multiprocessor holds at once, and which resource is used up first.

The arithmetic is that of NVIDIA's occupancy calculator (cuda_occupancy.h): each resource admits a number of programs,
the smallest of which counts. A program is a thread block; figures are derived, nothing is measured.
"""

from __future__ import annotations

from dataclasses import dataclass

WARP_THREADS = 32
_KIB = 1024
# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"; the same for all capabilities below.
REGISTER_LIMIT = 255  # 32-bit registers of one thread
BLOCK_REGISTER_LIMIT = 65536  # of one thread block, and of one multiprocessor
# cuda_occupancy.h: a warp gets its registers in units of 256, from one of four parts of the register file.
_REGISTER_UNIT = 256
_REGISTER_PARTS = 4
# The same: shared memory is given in units of 128 bytes, and the system takes 1 KiB for every program.
_SHARED_UNIT = 128
SHARED_OF_SYSTEM_BYTES = 1 * _KIB
# PTX ISA, "Tensor Memory": columns of one multiprocessor of sm_100 and its kin.
TENSOR_MEMORY_COLUMNS = 512


@dataclass(frozen=True)
class Target:
    """What one multiprocessor of a compute capability has.

    threads, blocks : resident at once. shared_bytes : shared memory of a multiprocessor. block_shared_bytes : of one
    program. machine : the row of the catalogue that stands for this target.
    """

    capability: int
    threads: int
    blocks: int
    shared_bytes: int
    block_shared_bytes: int
    machine: str | None = None

    @property
    def name(self) -> str:
        """As the compiler calls it: sm_90."""
        return f"sm_{self.capability}"


# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
TARGETS = {
    target.capability: target
    for target in (
        Target(80, 2048, 32, 164 * _KIB, 163 * _KIB, "a100-sxm-80gb"),
        Target(86, 1536, 16, 100 * _KIB, 99 * _KIB, "rtx-3090"),
        Target(87, 1536, 16, 164 * _KIB, 163 * _KIB),
        Target(89, 1536, 24, 100 * _KIB, 99 * _KIB, "l40s"),
        Target(90, 2048, 32, 228 * _KIB, 227 * _KIB, "h200-sxm"),
        Target(100, 2048, 32, 228 * _KIB, 227 * _KIB, "b200-sxm"),
        Target(103, 2048, 32, 228 * _KIB, 227 * _KIB, "b300-sxm"),
        Target(120, 1536, 24, 100 * _KIB, 99 * _KIB, "rtx-5090"),
        Target(121, 1536, 24, 100 * _KIB, 99 * _KIB),
    )
}


def target_named(text: str) -> Target:
    """Read sm_90, or 90: a target with a machine in the catalogue; raises `ValueError` with a sentence."""
    digits = text.strip().lower().removeprefix("sm_").rstrip("a")  # sm_90a is sm_90 with all of its instructions
    known = {str(target.capability): target for target in TARGETS.values() if target.machine}
    if digits in known:
        return known[digits]
    names = ", ".join(target.name for target in known.values())
    raise ValueError(f"There is no target {text!r} here; targets are {names}.")


@dataclass(frozen=True)
class Resources:
    """What the compiler gave one program: registers per thread, shared memory, threads, columns of tensor memory."""

    registers: int
    shared_bytes: int
    threads: int
    tensor_columns: int = 0


@dataclass(frozen=True)
class Occupancy:
    """Programs that a multiprocessor holds at once.

    limits : resource -> programs that it admits. limited_by : the resources that admit fewest.
    share : resident threads as a share of those that the multiprocessor could hold.
    """

    programs: int
    limits: dict[str, int]
    limited_by: tuple[str, ...]
    share: float


def occupancy(needs: Resources, target: Target) -> Occupancy:
    """Count the programs that fit beside one another; 0 where not even one can be launched."""
    limits = {
        "registers": _by_registers(needs),
        "shared memory": _by_shared(needs, target),
        "threads": target.threads // needs.threads,
        "blocks": target.blocks,
    }
    if needs.tensor_columns:
        limits["tensor memory"] = TENSOR_MEMORY_COLUMNS // needs.tensor_columns
    programs = min(limits.values())
    limited_by = tuple(name for name, count in limits.items() if count == programs)
    return Occupancy(programs, limits, limited_by, programs * needs.threads / target.threads)


def _by_registers(needs: Resources) -> int:
    warps = -(-needs.threads // WARP_THREADS)
    per_warp = max(1, -(-needs.registers * WARP_THREADS // _REGISTER_UNIT)) * _REGISTER_UNIT
    # The warps of a program lie in all four parts, so their number is rounded up before one program is refused.
    if needs.registers > REGISTER_LIMIT or per_warp * _rounded(warps, _REGISTER_PARTS) > BLOCK_REGISTER_LIMIT:
        return 0
    return BLOCK_REGISTER_LIMIT // _REGISTER_PARTS // per_warp * _REGISTER_PARTS // warps


def _by_shared(needs: Resources, target: Target) -> int:
    if needs.shared_bytes > target.block_shared_bytes:
        return 0
    return target.shared_bytes // _rounded(needs.shared_bytes + SHARED_OF_SYSTEM_BYTES, _SHARED_UNIT)


def _rounded(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def room_for(needs: Resources, target: Target, programs: int, resource: str) -> int | None:
    """The most of a resource that a program may use for so many to fit.

    In registers per thread, or bytes of shared memory. None for resources that a kernel does not choose by degrees, or
    where nothing would be left.
    """
    if resource == "registers":
        fitting = (r for r in range(REGISTER_LIMIT, 0, -1) if _by_registers(_with_registers(needs, r)) >= programs)
        return next(fitting, None)
    if resource == "shared memory":
        room = target.shared_bytes // programs // _SHARED_UNIT * _SHARED_UNIT - SHARED_OF_SYSTEM_BYTES
        return min(room, target.block_shared_bytes) if room > 0 else None
    return None


def _with_registers(needs: Resources, registers: int) -> Resources:
    return Resources(registers, needs.shared_bytes, needs.threads, needs.tensor_columns)
