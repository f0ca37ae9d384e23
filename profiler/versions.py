"""Versions of the software that a measurement depends on, and hashes that tell devices apart without naming them."""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .packages import version_of


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
    """Hashes by file name of what kernels consist of: their files, and the files beside these that they have loaded."""
    loaded = [*modules, *list(sys.modules.values())]
    files = {Path(file).resolve() for module in loaded if (file := getattr(module, "__file__", None))}
    folders = {Path(module.__file__).resolve().parent for module in modules}
    contents: dict[str, str] = {}
    # Modules without a file, such as torch.classes, may name one all the same.
    beside = (file for file in files if file.parent in folders and file.suffix == ".py" and file.is_file())
    for file in sorted(beside):
        contents[file.name] = contents.get(file.name, "") + file.read_text(encoding="utf-8", errors="replace")
    return {name: hashed(content) for name, content in contents.items()}


def hashed(identity: str) -> str:
    """A short hash that tells two texts apart, such as the identities of devices, without naming them."""
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def salted_hash(identity: str) -> str:
    """A hash of an installation's identity that no other program makes, so nobody can look it up; empty for none."""
    return hashed(f"seqroof computer {identity}") if identity else ""
