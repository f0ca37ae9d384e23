"""The version of the installed package."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path


def _version() -> str:
    try:
        return metadata.version("seqroof")
    except metadata.PackageNotFoundError:  # run from the repository by way of links, without an installation
        project = Path(__file__).resolve().parent.parent / "pyproject.toml"
        return tomllib.loads(project.read_text())["project"]["version"] if project.exists() else "unknown"


VERSION = _version()
