"""Prints inspected programs side by side, and the model of what they compute beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import _terminal, _view
from .inspection import Case, Inspected, facts_of, remark, tensor_kind
from .record import WALLS
from .units import binary_bytes, seconds, si, significant
from .walls import WALL_NAMES

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_NAMES = 13  # width of the names of rows
_COLUMN = 30  # a narrower column would break its facts
_GAP = 2


def render(
    kernel: str, triton: str, found: Sequence[Inspected], models: Sequence[dict[str, Any]], console: Console
) -> None:
    """Print facts and models in columns, as many beside one another as fit, and the closing sentence.

    triton : the version that compiled.
    """
    heads = _Heads([entry.case for entry in found if entry.case])
    _terminal.say(console, f"{kernel} {heads.shared}", "bold")
    _terminal.say(
        console, f"Compiled by Triton {triton}; occupancy and waves derived from what the compiler used.", "dim"
    )
    columns = [([_beside(heads, entry.case, entry.target.name), entry.label], facts_of(entry)) for entry in found]
    _columns(columns, console)
    console.print()
    _terminal.say(console, "Work and intensity (modelled), floors (derived from the catalogue), caches cold.", "dim")
    _columns([([_beside(heads, case, model["target"])], _model(model)) for case, model in _cases(models)], console)
    console.print()
    _terminal.say(console, remark(list(found)), "bold")


class _Heads:
    """What all cases have in common, and the names of what they differ in."""

    def __init__(self, cases: Sequence[Case]) -> None:
        told = [_told(case) for case in cases]
        self.differ = [name for name in told[0] if len({each.get(name) for each in told}) > 1]
        self.shared = _joined({name: text for name, text in told[0].items() if name not in self.differ})


def _told(case: Case) -> dict[str, str]:
    sizes = {name: f"{name}={value}" for name, value in case.sizes.items()}
    return {"implementation": case.implementation, **sizes, "dtype": case.dtype, "direction": case.direction}


def _joined(told: dict[str, str]) -> str:
    sizes = ",".join(text for text in told.values() if "=" in text)
    others = [text for text in told.values() if "=" not in text]
    return " ".join([*others[:1], *([sizes] if sizes else []), *others[1:]])


def _beside(heads: _Heads, case: Case | None, target: str) -> str:
    told = _told(case) if case else {}
    return " ".join(filter(None, [target, _joined({name: told[name] for name in heads.differ if name in told})]))


def _cases(models: Sequence[dict[str, Any]]) -> list[tuple[Case, dict[str, Any]]]:
    fields = ("implementation", "sizes", "dtype", "direction")
    return [(Case(**{name: model[name] for name in fields}), model) for model in models]


def _columns(columns: Sequence[tuple[list[str], dict[str, list[str]]]], console: Console) -> None:
    """Print columns of named rows, in as many blocks as the width asks for."""
    from rich.table import Table

    room = max(1, (console.width - _NAMES - _GAP) // (_COLUMN + _GAP))
    for first in range(0, len(columns), room):
        block = columns[first : first + room]
        shown = Table(box=None, pad_edge=False, show_header=False, padding=(0, _GAP, 0, 0))
        shown.add_column(width=_NAMES)
        for _ in block:
            shown.add_column(width=_COLUMN, overflow="fold")
        for number in range(max(len(head) for head, _ in block)):
            shown.add_row("", *(_cell([head[number]], console) for head, _ in block), style="bold")
        for name in block[0][1]:
            if any(facts[name] for _, facts in block):
                shown.add_row(name, *(_cell(facts[name] or ["-"], console) for _, facts in block))
        if first:
            console.print()
        console.print(shown)


def _cell(lines: Sequence[str], console: Console) -> Text:
    """Lines of a cell as they are: nothing in them is markup, or moves the cursor."""
    from rich.text import Text

    return Text("\n".join(_terminal.encodable([_view.clean(line) for line in lines], console)))


def _model(model: dict[str, Any]) -> dict[str, list[str]]:
    work, best = model["work"], model["best_floors_s"]
    products = [f"{si(work['matmul_flops'], 'FLOP')} in products"]
    if work["pointwise_flops"] + work["special_ops"]:
        products.append(f"{si(work['pointwise_flops'] + work['special_ops'], 'op')} besides")
    size = [f"{si(work['compulsory_bytes'], 'B')} compulsory"]
    if work["streamed_bytes"] != work["compulsory_bytes"]:
        size.append(f"{si(work['streamed_bytes'], 'B')} streamed")
    least = max((value for value in best.values() if value is not None), default=None)
    floors = {WALL_NAMES[wall]: [_floor(model, wall)] for wall in WALLS}
    return {
        "machine": [model["machine"]["id"]],
        "design": [f"weights {model['weights']}", f"steps wait by {model['chain']}"],
        "work": products,
        "bytes": size,
        "intensity": [f"{_number(model['intensity'])} FLOP/B", f"ridge {_number(model['ridge'])} FLOP/B"],
        **floors,
        "best possible": [f"{seconds(least)} {WALL_NAMES.get(model['best_bound'], '')}"],
    }


def _number(value: float | None) -> str:
    return significant(value) if value is not None else "not known"


def _floor(model: dict[str, Any], wall: str) -> str:
    value = model["floors_s"][wall]
    return ("not known" if value is None else seconds(value)) + ("  <- bound" if wall == model["bound"] else "")


def render_list(kernel: str, triton: str, found: Sequence[Inspected], console: Console) -> None:
    """Print one row for every configuration, and the closing sentence."""
    from rich.table import Table

    _terminal.say(console, f"{kernel}: configurations that are launched", "bold")
    _terminal.say(console, f"Compiled by Triton {triton}; occupancy derived from what the compiler used.", "dim")
    shown = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("configuration", overflow="fold", ratio=1)
    for title in ("target", "regs", "stack", "shared", "thr."):
        shown.add_column(title, justify="left" if title == "target" else "right", no_wrap=True)
    shown.add_column("per SM, by", overflow="fold", ratio=1)
    shown.add_column("products", no_wrap=True)
    for entry in found:
        held = entry.occupancy
        kinds = sorted({tensor_kind(product.name) for product in entry.of_group("tensor")})
        shown.add_row(
            _cell([entry.label], console),
            entry.target.name,
            str(entry.resources.registers),
            f"SPILLS {entry.stack_bytes}" if entry.stack_bytes else "0",
            binary_bytes(entry.resources.shared_bytes),
            str(entry.resources.threads),
            f"{held.programs} {', '.join(held.limited_by)}",
            ", ".join(kinds) or "-",
        )
    console.print(shown)
    console.print()
    _terminal.say(console, remark(list(found)), "bold")
