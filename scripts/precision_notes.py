"""Writes how far lstm, gru and rnn are from float64 into their files, by sequence length, dtype and implementation.

    python -m seqroof.scripts.precision_notes                # measure and write, about two minutes
    python -m seqroof.scripts.precision_notes --check 100    # compare the first 100 steps with what is written

Errors are those of a CPU; triton_resident runs in Triton's interpreter, which cuts values to bf16 where a GPU rounds.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

KERNELS = ("lstm", "gru", "rnn")
DTYPES = ("fp32", "fp16", "bf16")
STEPS = (1, 100, 1000, 10_000)
# Rows and how many steps they run: the interpreter takes some 50 ms per step, so more than these take minutes.
ROWS = {"reference": STEPS, "torch": STEPS, "triton_resident": STEPS[:2]}
# Libraries and processors add up in other orders: an error may be some times another, a wrong one is far off.
FACTOR = 3.0
SIZES = {"B": 4, "I": 64, "H": 64}
SEED = 0
BEGIN, END = "# precision notes: ", "# end of precision notes\n"
COMMAND = "python -m seqroof.scripts.precision_notes"
ROOT = Path(__file__).resolve().parent.parent

# Largest error by row, dtype and number of steps.
Errors = dict[tuple[str, str, int], float]


def measured(name: str, rows: Mapping[str, Sequence[int]]) -> Errors:
    """Run the rows of a kernel; an error is the largest of y within the first T steps, absolute."""
    import torch

    from seqroof.kernels import _catalog

    module = _catalog.load(name).module
    found: Errors = {}
    for dtype in DTYPES:
        # Weights must not depend on how many steps are run, so the longest sequence is drawn and cut.
        tensors = module.inputs(module.Shape(T=STEPS[-1], **SIZES), dtype, "cpu", SEED)
        with torch.no_grad():
            exact = _y(module, "reference", {key: value.double() for key, value in tensors.items()}, rows)
            for row, steps in rows.items():
                got = _y(module, row, tensors, {row: steps}).double()
                worst = (got - exact[: len(got)]).abs().amax((1, 2)).cummax(0).values
                found |= {(row, dtype, T): float(worst[T - 1]) for T in steps}
    return found


def _y(module: Any, row: str, tensors: dict[str, Any], rows: Mapping[str, Sequence[int]]) -> Any:
    """The outputs (T, B, H) of a row for as many steps as any of `rows` needs."""
    longest = max(max(steps) for steps in rows.values())
    shape = module.Shape(T=longest, **SIZES)
    return module.IMPLEMENTATIONS[row].run(shape, **tensors | {"x": tensors["x"][:longest]})[0]


def written(errors: Errors, made: str) -> str:
    """The notes as comment lines, from mark to mark; `made` says with what and when."""
    rows = list(dict.fromkeys(row for row, _, _ in errors))
    width = 9 * len(DTYPES)
    lines = [
        f"{BEGIN}the largest error of y, whose values reach about 1, against float64 within the first T steps;",
        f"# {', '.join(f'{size}={value}' for size, value in SIZES.items())}, inputs rounded to the dtype beforehand.",
        "# triton_resident runs in Triton's interpreter, which cuts values to bf16 where a GPU rounds.",
        "#       " + " ".join(f"{row:<{width}}" for row in rows).rstrip(),
        "#     T " + " ".join("".join(f"{dtype:<9}" for dtype in DTYPES) for _ in rows).rstrip(),
    ]
    for T in STEPS:
        cells = [[errors.get((row, dtype, T)) for dtype in DTYPES] for row in rows]
        texts = ("".join(f"{'-' if error is None else f'{error:.1e}':<9}" for error in row) for row in cells)
        lines.append(f"# {T:>5} " + " ".join(texts).rstrip())
    return "\n".join([*lines, f"# Written by {COMMAND}, {made}.", END])


def read(text: str) -> Errors:
    """The errors in the notes of a kernel file. Raises ValueError with a sentence when there are none."""
    lines = _notes(text).splitlines()
    header = next((index for index, line in enumerate(lines) if line.split()[:2] == ["#", "T"]), None)
    if header is None:
        raise ValueError(f"the precision notes have no line of dtypes; `{COMMAND}` writes them anew")
    columns = [(row, dtype) for row in lines[header - 1].split()[1:] for dtype in DTYPES]
    found: Errors = {}
    for line in lines[header + 1 : header + 1 + len(STEPS)]:
        _, T, *cells = line.split()
        found |= {(*column, int(T)): float(cell) for column, cell in zip(columns, cells, strict=True) if cell != "-"}
    return found


def _notes(text: str) -> str:
    match = re.search(f"^{re.escape(BEGIN)}.*?^{re.escape(END)}", text, re.DOTALL | re.MULTILINE)
    if match is None:
        raise ValueError(f"no precision notes found; a line that begins with {BEGIN!r} and the line {END!r} are needed")
    return match.group()


def differences(name: str, stated: Errors, found: Errors) -> list[str]:
    """A sentence for every error that is more than FACTOR times another than the one that the file states."""
    sentences = []
    for (row, dtype, T), error in found.items():
        was = stated.get((row, dtype, T))
        if was is None or not was / FACTOR <= error <= was * FACTOR:
            said = "no error" if was is None else f"{was:.1e}"
            sentences.append(
                f"{name} {row} {dtype}: the error within {T} steps is {error:.1e}, and the file states {said}; "
                f"`{COMMAND}` writes it anew"
            )
    return sentences


def main(words: list[str] | None = None) -> int:
    """Write the notes, or with --check compare them; returns 1 when an error is another."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Write the precision notes of the recurrent kernels.")
    parser.add_argument("--check", type=int, choices=STEPS, help="compare the first T steps, write nothing")
    check = parser.parse_args(words).check
    longest = check or STEPS[-1]
    rows = {row: [T for T in steps if longest >= T] for row, steps in ROWS.items()}
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton
    wrong = []
    for name in KERNELS:
        file = ROOT / "kernels" / f"{name}.py"
        text = file.read_text()
        if check is not None:
            wrong += differences(name, read(text), measured(name, rows))
            continue
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        made = f"{today}, torch {metadata.version('torch')}, triton {metadata.version('triton')}"
        file.write_text(text.replace(_notes(text), written(measured(name, rows), made)))
        print(f"written: {file}")
    print("\n".join(wrong), end="\n" * bool(wrong))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
