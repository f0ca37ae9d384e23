"""Writes the pictures that verbs draw beside their tables; a path is looked at before anything is measured."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from seqroof.roofline._view import MissingExtra
from seqroof.roofline.store import write_atomically

from .exits import Exit, Stop
from .progress import say


def check_writable(path: Path | None, force: bool = True) -> None:
    """Raise `Stop` with a sentence where a file cannot be written; without `force` also where it exists."""
    if path is None:
        return
    if path.is_dir():
        raise Stop(f"{path} is a folder; name a file.", Exit.USAGE)
    if path.exists() and not force:
        raise Stop(f"{path} exists; add --force to replace it.", Exit.USAGE)
    if not os.access(path.parent, os.W_OK):
        raise Stop(f"{path} cannot be written; choose another folder.", Exit.USAGE)


def write(path: Path, draw: Callable[[], str | bytes]) -> None:
    """Draw, and write what was drawn; raises `Stop` with a sentence where either cannot be done."""
    try:
        content = draw()
    except MissingExtra as error:
        raise Stop(str(error), Exit.NO_DEVICE) from error
    try:
        write_atomically(path, content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise Stop(f"{path} cannot be written ({error.strerror}); choose another folder.", Exit.USAGE) from error
    say(f"seqroof: written {path}")
