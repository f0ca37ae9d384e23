"""Reads the instructions that decide about speed off a disassembled GPU program, and which of them stand in loops.

An instruction stands in a loop when the program can come back to it: its block lies on a cycle of branches. What lies
between a label and a later branch back to it is not enough, for the assembler moves rare blocks behind the end.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from ..roofline.inspection import GROUPS, Group, Instruction

# Matrix products by one warp (HMMA and kin), by a warp group (..GMMA) and by the fifth-generation unit (UTC..MMA).
_TENSOR = re.compile(r"(?:[HIDQO]MMA|[HIQ]GMMA|UTC[A-Z]*MMA)")
# Global memory to registers (LDG), to shared memory (LDGSTS), and bulk copies by the copy engine; LDL and STL move
# what does not fit into registers to and from local memory.
_GROUPS: dict[str, Group] = {
    **dict.fromkeys(("LDG", "LDGSTS", "UBLKCP", "UTMALDG"), "load"),
    **dict.fromkeys(("STG", "UTMASTG", "UTMAREDG"), "store"),
    **dict.fromkeys(("LDL", "STL"), "local"),
}
_BULK = ("UBLKCP", "UTMALDG", "UTMASTG", "UTMAREDG")
# Suffixes that are widths, in bits; without one an access is of 32 bits.
_WIDTHS = {"U8": 8, "S8": 8, "U16": 16, "S16": 16, "64": 64, "128": 128, "256": 256}

# `/*08b0*/  @P0 LDG.E.128 R4, desc[UR16][R40.64] ;`
_LINE = re.compile(r"/\*[0-9a-f]+\*/\s+(?:\{\s*)?(@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;]*);?")
_LABEL = re.compile(r"^(\.L_\w+|[\w.$]+):\s*$")
_AIM = re.compile(r"`\((\.?[\w.$]+)\)")
_ENDS = ("EXIT", "RET", "BRX", "KILL")


@dataclass
class _Block:
    """Instructions that run one after the other. leads_to : labels of branches; falls : into the block behind it."""

    opcodes: list[str]
    labels: list[str]
    leads_to: list[str]
    falls: bool = True


def instructions(program: str) -> tuple[Instruction, ...]:
    """Count products, accesses to global memory and to local memory in the output of `nvdisasm -c`."""
    blocks = _blocks(program)
    looping = _looping(blocks)
    counts: Counter[tuple[str, Group, int]] = Counter()
    in_loops: Counter[tuple[str, Group, int]] = Counter()
    for number, block in enumerate(blocks):
        for opcode in block.opcodes:
            if found := _known(opcode):
                counts[found] += 1
                in_loops[found] += number in looping
    ranked = sorted(counts, key=lambda key: (GROUPS.index(key[1]), -key[2], key[0]))
    return tuple(Instruction(key[0], key[1], counts[key], in_loops[key], key[2]) for key in ranked)


def _known(opcode: str) -> tuple[str, Group, int] | None:
    root, *suffixes = opcode.split(".")
    if _TENSOR.fullmatch(root):
        return root, "tensor", 0
    if root not in _GROUPS:
        return None
    if root in _BULK:
        return root, _GROUPS[root], 0
    bits = next((_WIDTHS[suffix] for suffix in reversed(suffixes) if suffix in _WIDTHS), 32)
    return f"{root}.{bits}", _GROUPS[root], bits


def _blocks(program: str) -> list[_Block]:
    blocks = [_Block([], [], [])]
    for line in program.splitlines():
        if label := _LABEL.match(line):
            if blocks[-1].opcodes:
                blocks.append(_Block([], [], []))
            blocks[-1].labels.append(label[1])
        elif found := _LINE.search(line):
            predicate, opcode, operands = found[1], found[2], found[3]
            blocks[-1].opcodes.append(opcode)
            root = opcode.split(".")[0]
            if root in ("BRA", "JMP", "CALL", *_ENDS):
                _leave(blocks[-1], root, predicate, operands)
                blocks.append(_Block([], [], []))
    return blocks


def _leave(block: _Block, root: str, predicate: str | None, operands: str) -> None:
    """Note where a block goes on: an unconditional branch goes to its aim alone, a call comes back.

    A return names the function that it leaves, which is no aim.
    """
    aim = _AIM.search(operands) if root not in _ENDS else None
    if aim:
        block.leads_to.append(aim[1])
    # A condition stands in front, or as an operand before the aim: `BRA.U !UP0, `(.L_x_3)`.
    conditional = predicate is not None or bool(aim and operands[: aim.start()].strip())
    block.falls = conditional or root == "CALL"


def _looping(blocks: list[_Block]) -> set[int]:
    """Numbers of the blocks that can come back to themselves."""
    at = {label: number for number, block in enumerate(blocks) for label in block.labels}
    following = [
        [at[label] for label in block.leads_to if label in at]
        + ([number + 1] if block.falls and number + 1 < len(blocks) else [])
        for number, block in enumerate(blocks)
    ]
    cycles = [group for group in _components(following) if len(group) > 1 or group[0] in following[group[0]]]
    return {member for group in cycles for member in group}


def _components(following: list[list[int]]) -> list[list[int]]:
    """Strongly connected components of a graph, by the algorithm of Kosaraju and Sharir without recursion."""
    order: list[int] = []
    seen: set[int] = set()
    for start in range(len(following)):
        _walk(start, following, seen, order)
    backward: list[list[int]] = [[] for _ in following]
    for number, nexts in enumerate(following):
        for to in nexts:
            backward[to].append(number)
    found: list[list[int]] = []
    seen = set()
    for start in reversed(order):
        group: list[int] = []
        _walk(start, backward, seen, group)
        if group:
            found.append(group)
    return found


def _walk(start: int, following: list[list[int]], seen: set[int], done: list[int]) -> None:
    """Append to `done` what can be reached from `start` and was not seen, each after what it leads to."""
    if start in seen:
        return
    seen.add(start)
    stack = [(start, iter(following[start]))]
    while stack:
        onward = next((to for to in stack[-1][1] if to not in seen), None)
        if onward is None:
            done.append(stack.pop()[0])
        else:
            seen.add(onward)
            stack.append((onward, iter(following[onward])))
