"""Versions of installed packages, by their metadata; imports none of them."""

from __future__ import annotations

from importlib import metadata

# Nightly builds of torch bring triton under another name.
OTHER_NAMES = {"triton": ("pytorch-triton",)}


def version_of(package: str) -> str:
    """Installed version of a package, empty where it is not installed."""
    for name in (package, *OTHER_NAMES.get(package, ())):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""
