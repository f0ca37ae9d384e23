"""pip as the set-up calls it, and the builds of torch that it is asked for. Standard library only."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from .environment import has_cpu_torch, site_folders

CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # PyTorch's own index of builds without CUDA


def say(text: str) -> None:
    """One line of progress, on stderr: stdout belongs to the command."""
    print(f"seqroof: {text}", file=sys.stderr, flush=True)


def pip(python: str, *words: str, ahead: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run pip. Packages in the folder `ahead` count as installed."""
    inherited = [str(ahead)] if ahead else []
    inherited += filter(None, [os.environ.get("PYTHONPATH")])
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(inherited), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return subprocess.run([python, "-P", "-m", "pip", *words], env=variables, capture_output=True, text=True)


def sources(root: Path) -> list[list[str]]:
    """pip's options for where to look, in order: `wheels/` alone, which needs no network, then the index."""
    wheels = root / "wheels"
    if not any(wheels.glob("*.whl")):
        return [[]]
    return [["--no-index", "--find-links", str(wheels)], ["--find-links", str(wheels)]]


def add_cpu_torch(python: str, constraints: str, root: Path) -> None:
    """Install the build of torch without CUDA, if any place has it. Without its own needs: those come with the rest."""
    pin = _pin_of_torch(constraints)
    say(f"no NVIDIA GPU: installing the CPU build of torch {pin} (about 200 MB)")
    for source in [*sources(root), ["--extra-index-url", CPU_INDEX]]:
        # One retry: an index out of reach must not hold up the ordinary build for minutes.
        outcome = pip(python, "install", "--quiet", "--no-deps", "--retries", "1", *source, f"torch=={pin}+cpu")
        if outcome.returncode == 0:
            return
    say(f"no CPU build of torch {pin} can be had here; the ordinary build brings CUDA (about 3 GB)")


def replace_cpu_torch(python: str, constraints: str, root: Path) -> None:
    """Replace the build of torch without CUDA by the ordinary one. Where it cannot be had, the old one stays."""
    pin = _pin_of_torch(constraints)
    say(f"an NVIDIA GPU is here: replacing the CPU build of torch by torch {pin} (about 3 GB with CUDA)")
    for source in sources(root):
        # pip takes the builds of one version for the same, so it has to be told to install it again.
        outcome = pip(python, "install", "--quiet", "--no-deps", "--force-reinstall", *source, f"torch=={pin}")
        if outcome.returncode == 0 and not has_cpu_torch(site_folders(python)):
            return
    say(f"no torch {pin} with CUDA can be had here: kernels run on the CPU")


def _pin_of_torch(constraints: str) -> str:
    return re.findall(r"^torch==([\d.]+)", constraints, re.MULTILINE)[0]
