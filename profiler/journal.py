"""The journal: one JSON line per event, on the disk before the next case starts.

The first line is the header (what was asked, on which machine, by which command); then come ceilings and points. A last
line that was cut off by a crash is ignored; a damaged line elsewhere is an error, because it means that something else
wrote here. Whoever writes a journal holds its lock, so that two processes never write one run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

NAME = "journal.jsonl"


class JournalError(Exception):
    """A journal that cannot be read or written, or does not belong here. The text is for people."""


class Damaged(JournalError):
    """A journal with a line that nobody can read. `line` : its number, from 1."""

    def __init__(self, path: Path, line: int) -> None:
        super().__init__(f"{path} is damaged at line {line}; start a new run with --force.")
        self.line = line


class Unreadable(JournalError):
    """A journal with events that this version cannot take up."""


class Busy(JournalError):
    """Another process is writing this journal."""


class Journal:
    """Appends lines to `journal.jsonl` in a folder, each flushed to the disk. Holds the lock until it is closed."""

    def __init__(self, folder: Path) -> None:
        """Open the journal of a folder, or an empty one; raises `Busy` while another process writes it."""
        self.path = folder / NAME
        self._file = open(self.path, "ab")  # noqa: SIM115  (closed by close())
        if not _lock(self._file.fileno()):
            self._file.close()
            raise Busy(f"Another process is measuring into {folder}; wait for it, or name another folder with --out.")
        sync_folder(folder)

    def clear(self) -> None:
        """Forget everything, for a run that replaces this one."""
        self._file.truncate(0)

    def take_up(self) -> list[tuple[str, Any]]:
        """All events so far; a half-written last line is cut off, so that the next one starts on its own line."""
        events = read(self.path.parent)
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            self._file.truncate(content.rfind(b"\n") + 1)
        return events

    def write(self, kind: str, data: Any) -> None:
        """Append one event and wait until it is on the disk; raises `JournalError` when the disk does not take it."""
        line = json.dumps({"kind": kind, "data": data}, allow_nan=False, separators=(",", ":"))
        try:
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise JournalError(f"{self.path} cannot be written ({error.strerror}); make room and resume.") from error

    def close(self) -> None:
        """Close the file and let go of its lock."""
        with contextlib.suppress(OSError):  # what could not be written was said before
            self._file.close()


def _lock(descriptor: int) -> bool:
    """Take the lock of a file; False while another process holds it. A file system without locks has none to take."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def is_busy(folder: Path) -> bool:
    """Whether a process is writing the journal of a folder."""
    try:
        with open(folder / NAME, "rb") as file:
            return not _lock(file.fileno())
    except OSError:
        return False


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, as fsync of a file does not; a system that cannot is left alone."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read(folder: Path) -> list[tuple[str, Any]]:
    """All events of a folder's journal as (kind, data); raises `JournalError` with a sentence, such as `Damaged`."""
    path = folder / NAME
    if not path.exists():
        raise JournalError(f"There is no journal in {folder}; leave out --resume to start a new run there.")
    events = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is a torn line, or nothing
        try:
            event = json.loads(line)
            events.append((event["kind"], event["data"]))
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(path, number) from error
    return events


def first_fault(error: Exception) -> str:
    """The first thing that is wrong with an event, in a few words."""
    if isinstance(error, ValidationError):
        fault = error.errors()[0]
        return f"{'.'.join(str(part) for part in fault['loc']) or 'the event'}: {fault['msg']}"
    return f"{type(error).__name__}: {error}"
