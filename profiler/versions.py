"""Versions of the software that a measurement depends on, and hashes that tell devices apart without naming them."""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .packages import version_of


class CodeChanged(Exception):
    """Kernel files that are no longer those that a run began with. The text is for people."""


def software() -> dict[str, Any]:
    """Versions of what runs, in the fields of `Environment`."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": version_of("triton"),
        "os": f"{platform.system()} {platform.machine()}",
    }


def compiler_name() -> str:
    """The C++ compiler that torch.compile would find, empty where there is none."""
    return next((name for name in ("g++", "c++", "clang++") if shutil.which(name)), "")


def code_of(modules: Sequence[Any]) -> dict[str, str]:
    """Hashes by file name of what kernels consist of: their files, and the files beside these that they have loaded.

    The names of files that two folders have begin with those of their folders.
    """
    loaded = [*modules, *list(sys.modules.values())]
    files = {Path(file).resolve() for module in loaded if (file := getattr(module, "__file__", None))}
    folders = {Path(module.__file__).resolve().parent for module in modules}
    contents: dict[str, str] = {}
    # Modules without a file, such as torch.classes, may name one all the same.
    beside = [file for file in files if file.parent in folders and file.suffix == ".py" and file.is_file()]
    counts = Counter(file.name for file in beside)
    for file in sorted(beside):
        name = file.name if counts[file.name] == 1 else f"{file.parent.name}/{file.name}"
        contents[name] = contents.get(name, "") + file.read_text(encoding="utf-8", errors="replace")
    return {name: hashed(content) for name, content in contents.items()}


def refuse_other_code(module: Any, code: Mapping[str, str]) -> None:
    """Raise `CodeChanged` where a kernel was loaded from other files than those of a run.

    code : hashes as of `code_of`, of all kernels of the run; files that are not among them are not compared.
    """
    now = code_of([module]) if code else {}
    changed = [name for name, found in now.items() if code.get(name, found) != found]
    if changed:
        raise CodeChanged(
            f"{', '.join(changed)} changed since this run began; restore what was measured, or start a new run"
        )


def hashed(identity: str) -> str:
    """A short hash that tells two texts apart, such as the identities of devices, without naming them."""
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def salted_hash(identity: str) -> str:
    """A hash of an installation's identity that no other program makes, so nobody can look it up; empty for none."""
    return hashed(f"seqroof computer {identity}") if identity else ""
