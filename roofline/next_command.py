"""Which command is worth typing after a run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from .claims import SUITE
from .observe import batch_sweeps, step_sweeps
from .record import Point, Run

# Endings that a check without timing tells more about.
FAILED = ("wrong", "crashed", "hung", "oom")


def next_command(run: Run, folder: str = "RUN") -> str:
    """The command that is worth typing after this run, beginning with `seqroof`.

    folder : where the run lies, as it is typed.
    """
    words = _words(run.command)
    if run.state == "interrupted" and not run.devices:  # a fleet is finished by its torchrun, which no record holds
        return f"{repeatable(words[1:] or ['profile'])} --out {folder} --resume"
    failed = dict.fromkeys(point.kernel for point in run.points if point.status in FAILED)
    measured = any(point.status == "ok" for point in run.points)
    files = {Path(word).stem: word for word in words if word.endswith(".py")}
    if failed and not measured:
        return shlex.join(["seqroof", "verify", *(files.get(kernel, kernel) for kernel in failed)])
    if files and any(point.estimate_s for point in run.points if point.status == "ok"):
        return f"seqroof what-if {folder}"
    if run.suite == SUITE:
        return f"seqroof claims {folder}"
    return f"seqroof profile --suite {SUITE}" if run.suite in ("standard", "full") else _sweep(run)


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # a quote that does not end: no shell has run this, but a record can be edited
        return command.split()


def repeatable(words: Sequence[str]) -> str:
    """A command by its words after `seqroof`, without what says where its results go."""
    kept, rest = [], iter(words)
    for word in rest:
        if word == "--out":
            next(rest, None)
        elif word not in ("--resume", "--force") and not word.startswith("--out="):
            kept.append(word)
    return shlex.join(["seqroof", *kept])


def _sweep(run: Run) -> str:
    """The sweep that this run lacks, over the steps of its recurrence or over the batch, or else a larger suite."""
    chained = [point for point in run.points if point.step_s is not None and "T" in point.shape]
    if chained and not step_sweeps(run.points):
        point = max(chained, key=lambda point: point.steps)
        return f"seqroof profile {shlex.quote(point.kernel)} --shape T=16:1024:x2,{_sizes_but_steps(point)}"
    if batch_sweeps(run.points) or step_sweeps(run.points):
        return "seqroof profile --suite standard"
    return "seqroof profile lstm_step --shape B=1:256:x2,I=2048,H=2048"


def _sizes_but_steps(point: Point) -> str:
    return ",".join(f"{name}={value}" for name, value in point.shape.items() if name != "T")
