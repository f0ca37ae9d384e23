"""Versions of the software that a measurement depends on, and hashes that tell devices apart without naming them."""

from __future__ import annotations

import hashlib
import platform
import shutil
from importlib import metadata
from typing import Any

import torch


def software() -> dict[str, Any]:
    """Versions of what runs, in the fields of `Environment`."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": version_of("triton"),
        "os": f"{platform.system()} {platform.machine()}",
    }


def version_of(package: str) -> str:
    """Installed version of a package, empty where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def compiler_name() -> str:
    """The C++ compiler that torch.compile would find, empty where there is none."""
    return next((name for name in ("g++", "c++", "clang++") if shutil.which(name)), "")


def hashed(identity: str) -> str:
    """A short hash that tells devices apart without naming them."""
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def salted_hash(identity: str) -> str:
    """A hash of an installation's identity that no other program makes, so nobody can look it up; empty for none."""
    return hashed(f"seqroof computer {identity}") if identity else ""
