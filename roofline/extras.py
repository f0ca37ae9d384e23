"""How what is optional is installed: seqroof comes as a checkout, and is on no package index."""

from __future__ import annotations


def installing(extra: str) -> str:
    """The command that brings an extra of `pyproject.toml`, `run` or `report`, as the end of a sentence."""
    return f"pip install '.[{extra}]' from a checkout of seqroof, or by running scripts/profile again"
