"""Options that several verbs of the command line share."""

from __future__ import annotations

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
Language = Annotated[str, typer.Option("--lang", help="Language of the page: en, zh.")]
Deadline = Annotated[
    str | None,
    typer.Option("--deadline", help="A case hangs after so long without news. [default: 90s]", show_default=False),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the random inputs.")]
