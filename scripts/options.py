"""Options that several verbs of the command line share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import typer

Shape = Annotated[
    list[str] | None, typer.Option("--shape", help="Sizes and sweeps: B=1:64:x2,T=128|512,H=768.", show_default=False)
]
Dtype = Annotated[
    list[str] | None, typer.Option("--dtype", help="fp32 (strictly no TF32), tf32, fp16, bf16.", show_default=False)
]
Kernels = Annotated[
    list[str] | None, typer.Argument(metavar="[KERNEL|FILE.py]...", help="Default: every kernel.", show_default=False)
]
Direction = Annotated[
    list[str] | None, typer.Option("--direction", help="forward, backward, both.", show_default=False)
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document.")]
Suite = Annotated[str | None, typer.Option("--suite", help="quick, standard, full, claims.", show_default="quick")]
Band = Annotated[str, typer.Option("--band", help="Changes within this are the same.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the run. [default: seqroof-runs/<time>-<device>]")]
Resume = Annotated[bool, typer.Option("--resume", help="Finish the run in --out.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the run in --out.")]
Counters = Annotated[bool, typer.Option("--counters", help="Count bytes with ncu or perf too; some 20 s per case.")]
Attribution = Annotated[
    bool | None,
    typer.Option(
        "--attribution/--no-attribution",
        help="Tell walls by experiments too.",
        show_default="in standard, full and claims",
    ),
]
Language = Annotated[str, typer.Option("--lang", help="Language of the page: en, zh.")]
Deadline = Annotated[
    str | None,
    typer.Option("--deadline", help="A case hangs after so long without news. [default: 90s]", show_default=False),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the random inputs.")]


@dataclass(frozen=True)
class Destination:
    """Where a run goes: the folder that was named, and whether what is in it is finished or replaced."""

    out: Path | None = None
    resume: bool = False
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Typed:
    """What to measure, as typed: each option under its own name, or its default where it was left out."""

    kernels: list[str] | None = None
    suite: str | None = None
    shape: list[str] | None = None
    dtype: list[str] | None = None
    direction: list[str] | None = None
    device: str = "auto"
    implementation: list[str] | None = None
    budget: str | None = None
    rounds: int | None = None
    seed: int | None = None
    counters: bool = False
    deadline: str | None = None
    attribution: bool | None = None

    def given(self) -> set[str]:
        """Names of the options that differ from their defaults."""
        return {option.name for option in fields(self) if getattr(self, option.name) != option.default}
