"""An NVIDIA GPU that is here and that torch cannot use: the cause, and the cure. A child process imports torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass

# A driver that hangs must not hang the doctor: nvidia-smi and `import torch` answer within seconds otherwise.
DEADLINE_S = 30.0
ASK = (
    "import dataclasses, json; from seqroof.profiler.unused_gpu import torch_here; "
    "print(json.dumps(dataclasses.asdict(torch_here())))"
)


class DriverSilent(Exception):
    """nvidia-smi is here and lists nothing. The text says why, in a few words."""


@dataclass(frozen=True)
class Torch:
    """What torch says of itself.

    cuda : the version of CUDA that it was built for, empty for a build without. usable : whether it finds a GPU.
    complaint : its own words about that.
    """

    version: str
    cuda: str
    usable: bool
    complaint: str = ""


def torch_here() -> Torch:
    """Import torch in this process and ask it; it complains only when it is asked for the first time."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    complaint = str(said[-1].message).splitlines()[0] if said else ""
    return Torch(torch.__version__, torch.version.cuda or "", usable, complaint)


def torch_of_child() -> Torch | str:
    """The torch of a fresh process with this Python; in a few words why it does not answer."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", ASK], capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"a process that imports torch does not answer ({type(error).__name__})"
    try:
        return Torch(**json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError, TypeError):
        return f"torch cannot be imported: {(done.stderr.strip().splitlines() or ['no word about it'])[-1][:200]}"


def listed(query: str = "name") -> list[str]:
    """One line for every GPU that nvidia-smi lists; none without a driver.

    Raises `DriverSilent`, in a few words, where nvidia-smi fails or does not answer.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DriverSilent(f"nvidia-smi does not answer ({type(error).__name__})") from error
    if done.returncode != 0 or not done.stdout.strip():
        raise DriverSilent(f"nvidia-smi fails: {(done.stderr or done.stdout).strip()[:120]}")
    return [line.strip() for line in done.stdout.strip().splitlines()]


def obstacle(found: Torch | str) -> tuple[str, str] | None:
    """Why this torch cannot use the GPU that is here, and what to do; None where it can."""
    reinstall = "remove .venv and run scripts/profile again; in a Python of your own, install torch with CUDA"
    if isinstance(found, str):
        return found, reinstall
    if found.usable:
        return None
    if not found.cuda:
        return f"torch {found.version} is a build without CUDA", reinstall
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES={hidden!r} hides it from torch", "unset CUDA_VISIBLE_DEVICES"
    words = f": {found.complaint}" if found.complaint else ""
    cure = f"update the driver to one for CUDA {found.cuda}, or install a torch for an older CUDA"
    return f"torch {found.version}, made for CUDA {found.cuda}, finds no GPU{words}", cure


def passed_over() -> str:
    """A sentence about a GPU that is here and that torch cannot use; empty where there is none, or torch can."""
    try:
        names = listed()
    except DriverSilent:
        return ""
    found = obstacle(torch_of_child()) if names else None
    return f"{'; '.join(names)} is here, but {found[0]}: {found[1]}." if found else ""
