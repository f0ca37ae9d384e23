"""What a compiled program uses of a GPU, what that means for its launch, and what to try.

Facts of the compiler come in as plain numbers; occupancy and waves are derived from them. Nothing is measured.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from .occupancy import (
    REGISTER_LIMIT,
    TENSOR_MEMORY_COLUMNS,
    WARP_THREADS,
    Occupancy,
    Resources,
    Target,
    occupancy,
    room_for,
)
from .units import binary_bytes, percent

Group = Literal["tensor", "load", "store", "local"]
GROUPS: tuple[Group, ...] = ("tensor", "load", "store", "local")


@dataclass(frozen=True)
class Instruction:
    """How often an instruction stands in a program, which is not how often it runs.

    name : short, with the width of an access in bits: "HGMMA", "LDG.128", "UTMALDG". group : a matrix product, an
    access to global memory, or one to local memory. in_loops : how many of them stand in a loop.
    bits : width of one access of a thread; 0 for products and for bulk copies, which move whole tiles.
    """

    name: str
    group: Group
    count: int
    in_loops: int
    bits: int = 0


def tensor_kind(name: str) -> str:
    """A tensor-core instruction as PTX calls it: mma by one warp, wgmma by four, tcgen05 by the unit of sm_100."""
    return "tcgen05" if name.startswith("UTC") else "wgmma" if "GMMA" in name else "mma"


@dataclass(frozen=True)
class Case:
    """What a program is launched for: an implementation, its sizes, dtype and direction."""

    implementation: str
    sizes: dict[str, int]
    dtype: str
    direction: str


@dataclass(frozen=True)
class Inspected:
    """A compiled program on a target.

    label : its configuration. function : name of the Triton function. stack_bytes : local memory per thread, where
    spilled registers lie. multiprocessors : of the machine that stands for the target.
    case, grid, count : what it is launched for, with how many programs, how often; None outside of a launch.
    """

    label: str
    function: str
    target: Target
    multiprocessors: int
    resources: Resources
    stack_bytes: int
    instructions: tuple[Instruction, ...]
    case: Case | None = None
    grid: tuple[int, int, int] | None = None
    count: int | None = None

    @cached_property
    def occupancy(self) -> Occupancy:
        """Programs that a multiprocessor holds."""
        return occupancy(self.resources, self.target)

    @property
    def programs(self) -> int | None:
        """Programs of one launch."""
        return self.grid[0] * self.grid[1] * self.grid[2] if self.grid else None

    @property
    def waves(self) -> float | None:
        """Programs of a launch over those that the machine holds at once; None outside of a launch."""
        held = self.multiprocessors * self.occupancy.programs
        return self.programs / held if self.programs is not None and held else None

    def of_group(self, group: Group) -> list[Instruction]:
        """The instructions of one group, the widest first."""
        return [entry for entry in self.instructions if entry.group == group]

    def as_json(self) -> dict[str, Any]:
        """Plain values, in base units."""
        return {
            **(asdict(self.case) if self.case else {}),
            "target": self.target.name,
            "label": self.label,
            "function": self.function,
            "registers": self.resources.registers,
            "stack_bytes": self.stack_bytes,
            "spills": self.stack_bytes > 0,
            "shared_bytes": self.resources.shared_bytes,
            "threads": self.resources.threads,
            "tensor_memory_columns": self.resources.tensor_columns,
            "occupancy": asdict(self.occupancy),
            "instructions": [
                asdict(entry) | ({"kind": tensor_kind(entry.name)} if entry.group == "tensor" else {})
                for entry in self.instructions
            ],
            "launch": self.grid and {"grid": list(self.grid), "count": self.count, "waves": self.waves},
        }


def remark(found: list[Inspected]) -> str:
    """One sentence on the program that most needs a look: what limits it, or that it spills, and what to try."""
    one = max(found, key=_severity)
    others = sum(_severity(entry)[0] == _severity(one)[0] for entry in found) - 1
    more = f" ({others} more like it)" if others and _severity(one)[0] >= _SPILLS else ""
    return f"{one.label} on {one.target.name} {_said(one)}{more}."


# With fewer of the multiprocessors at work more programs come first; nine tenths of them draw all of the bandwidth.
BUSY_SHARE = 0.9
_NO_LAUNCH, _SPILLS, _IDLE, _LIMITED, _FITS = 4, 3, 2, 1, 0


def _severity(one: Inspected) -> tuple[int, float]:
    """How much a program needs a look, and how much among its like."""
    if not one.occupancy.programs:
        return _NO_LAUNCH, 0.0
    if one.stack_bytes:
        return _SPILLS, one.stack_bytes
    if one.programs is not None and one.programs < BUSY_SHARE * one.multiprocessors:
        return _IDLE, one.multiprocessors / one.programs
    if one.waves is not None and one.waves <= 1:
        return _FITS, one.waves
    return (_LIMITED, -one.occupancy.share) if one.occupancy.share < 1 else (_FITS, 0.0)


def _said(one: Inspected) -> str:
    kind = _severity(one)[0]
    if kind == _NO_LAUNCH:
        return _no_launch(one)
    if kind == _SPILLS:
        return (
            f"spills: {one.stack_bytes} B of stack per thread, which go through the caches; "
            "try a smaller tile, more warps, or fewer values kept from step to step"
        )
    if kind == _IDLE:
        assert one.programs is not None
        return (
            f"has {one.programs} programs for {one.multiprocessors} multiprocessors: "
            f"{one.multiprocessors - one.programs} stand idle whatever the occupancy; "
            "try a smaller tile, or give each program a part of the sum"
        )
    if kind == _FITS and one.waves is not None and one.waves <= 1:
        return "is on the machine with all its programs at once, so occupancy does not limit it"
    if kind == _FITS:
        return f"fills its multiprocessors with {one.occupancy.programs} programs each; nothing limits its occupancy"
    return _limited(one)


def _no_launch(one: Inspected) -> str:
    name = one.occupancy.limited_by[0]
    has = {
        "shared memory": f"{binary_bytes(one.resources.shared_bytes)} of {binary_bytes(one.target.block_shared_bytes)}",
        "registers": f"{one.resources.registers} for each of {one.resources.threads} threads",
        "tensor memory": f"{one.resources.tensor_columns} of {TENSOR_MEMORY_COLUMNS} columns",
    }.get(name, f"{one.resources.threads} of {one.target.threads}")
    return f"cannot be launched: it needs too much of {name} ({has}); try a smaller tile or fewer stages"


# What gives a program less of a resource.
_REMEDY = {
    "shared memory": "fewer stages or a smaller tile",
    "registers": "a smaller tile, or the same tile with more warps",
    "tensor memory": "a smaller tile of the product",
    "threads": "fewer warps per program",
    "blocks": "more warps per program",
}


def _limited(one: Inspected) -> str:
    held, name = one.occupancy.programs, one.occupancy.limited_by[0]
    share = percent(one.occupancy.share)
    text = f"is limited to {counted(held, 'program')} per multiprocessor ({share} of the warps) by {name}"
    room = room_for(one.resources, one.target, held + 1, name)
    if room is None:
        return f"{text}; try {_REMEDY[name]}"
    if name == "registers":
        need = f"at most {room} registers per thread, not {one.resources.registers}"
    else:
        need = f"at most {binary_bytes(room)} each, not {binary_bytes(one.resources.shared_bytes)}"
    return f"{text}: {held + 1} would fit with {need}; try {_REMEDY[name]}"


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 program", "2 programs"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def facts_of(one: Inspected) -> dict[str, list[str]]:
    """The lines of a table by the name of their row; a row without lines has nothing to say here."""
    needs, held = one.resources, one.occupancy
    warps = needs.threads // WARP_THREADS
    all_warps = one.target.threads // WARP_THREADS
    return {
        "function": [one.function],
        "registers": [f"{needs.registers} per thread, of {REGISTER_LIMIT}"],
        "stack": [f"SPILLS {one.stack_bytes} B per thread" if one.stack_bytes else "none: no spills"],
        "shared": [f"{binary_bytes(needs.shared_bytes)} of {binary_bytes(one.target.block_shared_bytes)}"],
        "tensor mem.": [f"{needs.tensor_columns} of {TENSOR_MEMORY_COLUMNS} columns"] if needs.tensor_columns else [],
        "threads": [f"{needs.threads} ({counted(warps, 'warp')})"],
        "programs/SM": [f"{held.programs} by {' and '.join(held.limited_by)}"],
        "warps/SM": [f"{held.programs * warps} of {all_warps} ({percent(held.share)})"],
        "products": [_written(entry, tensor_kind(entry.name)) for entry in one.of_group("tensor")]
        or ["no tensor cores"],
        "loads": [_written(entry) for entry in one.of_group("load")],
        "stores": [_written(entry) for entry in one.of_group("store")],
        "local memory": [_written(entry) for entry in one.of_group("local")],
        "launch": _launch(one),
    }


def _written(entry: Instruction, kind: str = "") -> str:
    name = f"{kind} ({entry.name})" if kind else entry.name
    loops = (
        "" if not entry.in_loops else ", in loops" if entry.in_loops == entry.count else f", {entry.in_loops} in loops"
    )
    return f"{entry.count} {name}{loops}"


def _launch(one: Inspected) -> list[str]:
    if one.grid is None or one.programs is None:
        return []
    axes = " x ".join(str(size) for number, size in enumerate(one.grid) if size > 1 or not number)
    size = counted(one.programs, "program") if "x" not in axes else f"{axes} = {one.programs} programs"
    lines = [size + (f", {one.count} times" if one.count and one.count > 1 else "")]
    if one.waves is not None:
        busy = f"{min(one.programs, one.multiprocessors)} of {one.multiprocessors} SMs busy"
        lines.append(busy if one.waves <= 1 else f"{one.waves:.1f} waves over {one.multiprocessors} SMs")
    return lines
