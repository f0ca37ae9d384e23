"""The journal: one JSON line per event, on the disk before the next case starts.

The first line is the header (what was asked, on which machine); then come ceilings and points. A last line that was
cut off by a crash is ignored; a damaged line elsewhere is an error, because it means that something else wrote here.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class JournalError(Exception):
    """A journal that cannot be read or does not belong here. The text is for people."""


class Journal:
    """Appends lines to `journal.jsonl` in a folder, each flushed to the disk."""

    def __init__(self, folder: Path, append: bool) -> None:
        self.path = folder / "journal.jsonl"
        if append:
            _cut_torn_end(self.path)
        self._file = open(self.path, "ab" if append else "wb")  # noqa: SIM115  (closed by close())

    def write(self, kind: str, data: Any) -> None:
        """Append one event and wait until it is on the disk."""
        line = json.dumps({"kind": kind, "data": data}, allow_nan=False, separators=(",", ":"))
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _cut_torn_end(path: Path) -> None:
    """Remove a half-written last line, so that the next one starts on its own line."""
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with open(path, "r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def read(folder: Path) -> list[tuple[str, Any]]:
    """All events of a folder's journal as (kind, data); raises `JournalError` with a sentence."""
    path = folder / "journal.jsonl"
    if not path.exists():
        raise JournalError(f"There is no journal in {folder}; leave out --resume to start a new run there.")
    events = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is a torn line, or nothing
        try:
            event = json.loads(line)
            events.append((event["kind"], event["data"]))
        except (ValueError, KeyError, TypeError) as error:
            raise JournalError(f"{path} is damaged at line {number}; start a new run with --force.") from error
    return events
