"""From the journals of a fleet's ranks to one record. Needs no torch and no device: the journals hold everything."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from seqroof.profiler import journal
from seqroof.profiler.request import Request
from seqroof.profiler.session import Session
from seqroof.profiler.supervisor import Supervisor
from seqroof.roofline import fleet
from seqroof.roofline.record import DeviceRun, Run
from seqroof.roofline.store import remove_leftovers, remove_products, write_atomically

from .exits import Exit, Stop
from .progress import Reporter
from .version import VERSION

FLEET = "fleet.json"
# A rank whose journal nobody holds, and which has not grown for so long, has ended without a word: a group of cases
# takes less, and locks are not seen on every shared file system.
SILENT_S = 600.0
_END_BYTES = 4096  # the line that ends a session has about a hundred


def rank_folder(out: Path, rank: int) -> Path:
    """Where a rank keeps its journal."""
    return out / f"rank-{rank}"


def write_fleet(out: Path, ranks: int, token: int) -> None:
    """Say in a fleet's folder how many ranks it has, so that one that left nothing is missed."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / FLEET, json.dumps({"ranks": ranks, "token": token}).encode())


def read_fleet(out: Path) -> dict[str, int]:
    """The number of ranks and the token of the last start; empty where there is none that can be read."""
    try:
        found = json.loads((out / FLEET).read_bytes())
        return {name: int(found[name]) for name in ("ranks", "token")}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _seen(out: Path) -> list[int]:
    """The ranks that have a folder."""
    return [int(match[1]) for path in out.glob("rank-*") if (match := re.fullmatch(r"rank-(\d+)", path.name))]


def forget(out: Path, ranks: int) -> None:
    """Remove the record of an earlier fleet, and what its ranks from this number on have left: nobody replaces it.

    Raises `Stop` where one of them is still measuring, or where its folder holds more than a run leaves.
    """
    beyond = [rank_folder(out, rank) for rank in sorted(_seen(out)) if rank >= ranks]
    for folder in filter(journal.is_busy, beyond):
        raise Stop(f"Another process is measuring into {folder}; wait for it, or name another --out.", Exit.NO_DEVICE)
    for folder in (*beyond, out):
        try:
            remove_leftovers(folder)
            remove_products(folder)
            if folder != out:
                (folder / journal.NAME).unlink(missing_ok=True)
                with contextlib.suppress(FileNotFoundError):  # another host sees it too
                    folder.rmdir()
        except OSError as error:
            text = f"{folder} holds an earlier fleet that cannot be removed ({error.strerror})"
            raise Stop(f"{text}; remove it, or name another --out.", Exit.USAGE) from error


def merge(out: Path) -> Run:
    """One record of all ranks whose journals are in a folder; raises `Stop` with a sentence."""
    ranks = max([read_fleet(out).get("ranks", 0), *(rank + 1 for rank in _seen(out))])
    if not ranks:
        raise Stop(f"{out} holds no fleet: neither {FLEET} nor folders rank-0, rank-1 and so on.", Exit.USAGE)
    headers: dict[int, dict[str, Any]] = {}
    parts = [_part(out, rank, headers) for rank in range(ranks)]
    first = next(iter(headers), 0)
    for rank, header in headers.items():
        if _asked(header) != _asked(headers[first]):
            text = f"rank-{rank} was asked for other cases than rank-{first}; merge what belongs together."
            raise Stop(text, Exit.USAGE)
    try:
        return fleet.merge(parts, f"seqroof {VERSION}")
    except ValueError as error:
        text = f"{error}: the journals in {out} are empty or damaged; start the fleet again."
        raise Stop(text, Exit.USAGE) from error


def _asked(header: dict[str, Any]) -> dict[str, Any]:
    """What all ranks of a fleet were asked for; each has a device of its own."""
    return header["request"] | {"device": ""}


def _part(out: Path, rank: int, headers: dict[int, dict[str, Any]]) -> fleet.Part:
    """What one rank left; nothing of it is merged where its journal is missing or damaged."""
    folder = rank_folder(out, rank)
    if not (folder / journal.NAME).exists():
        return _lost(rank, "it left no journal")
    try:
        events = journal.read(folder)
    except journal.Damaged as error:
        again = f"remove {folder.name} and resume the fleet to measure it again"
        return _lost(rank, f"its journal is damaged at line {error.line}; {again}")
    except OSError as error:
        return _lost(rank, f"its journal cannot be read ({error.strerror})")
    last = dict(events)
    if "header" not in last or "opened" not in last:
        return _lost(rank, "it ended before it measured anything")
    headers[rank] = last["header"]
    try:
        run = _run_of(events, last)
    except (journal.JournalError, ValidationError, KeyError, TypeError) as error:
        raise Stop(f"{folder / journal.NAME} cannot be merged. {_why_unreadable(error, last)}", Exit.USAGE) from error
    device = DeviceRun(
        rank=rank,
        **_ending(events, journal.is_busy(folder)),
        machine=run.machine,
        environment=run.environment,
        duration_s=run.duration_s or None,
        **last.get("start", {}),
    )
    return fleet.Part(device, run)


def _lost(rank: int, reason: str) -> fleet.Part:
    return fleet.Part(DeviceRun(rank=rank, state="lost", reason=reason), None)


def _why_unreadable(error: Exception, last: dict[str, Any]) -> str:
    if isinstance(error, journal.JournalError):
        return str(error)
    tool = last["header"].get("tool", "another version")
    return (
        f"It was written by {tool}, and seqroof {VERSION} does not understand it ({journal.first_fault(error)}); merge "
        "with the version that wrote it."
    )


def _ending(events: list[tuple[str, Any]], busy: bool) -> dict[str, str]:
    """The state of a rank and the reason for it, from what it wrote last."""
    groups = sum(kind == "group" for kind, _ in events)
    done = f"after {groups} group{'' if groups == 1 else 's'} of cases"
    kind, data = events[-1]
    if kind != "end":
        how = "was still measuring when this was merged" if busy else "ended without a word"
        return {"state": "lost", "reason": f"it {how}, {done}"}
    if data["state"] != "complete":
        return {"state": "interrupted", "reason": f"it {data.get('reason') or 'was told to end'}, {done}"}
    before = [events[index - 1] for index, (kind, _) in enumerate(events) if kind == "opened"][1:]
    early = sum(kind != "end" or data["state"] != "complete" for kind, data in before)
    times = "once" if early == 1 else f"{early} times"
    return {"state": "complete", "reason": f"it ended early {times} and was resumed" if early else ""}


def _run_of(events: list[tuple[str, Any]], last: dict[str, Any]) -> Run:
    """The record of one rank, as its own session would have made it."""
    header = last["header"]
    recalled = Supervisor(last["opened"]["torch_device"])  # never started: it only says what was opened
    recalled.opened = last["opened"]
    session = Session(Request(**header["request"]), recalled, Reporter(quiet=True))
    session.recall(events)
    run = session.record(
        "complete", header["command"], header["commit"], header["created"], header["tool"], header["advice"]
    )
    return run.model_copy(update={"duration_s": session.earlier_s})


def state_of(folder: Path) -> str:
    """How the rank of a folder ended: "complete" or "interrupted"; empty while it has not."""
    try:
        with open(folder / journal.NAME, "rb") as file:
            file.seek(-min(_END_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_END)
            last = json.loads(file.read().splitlines()[-1])
        return last["data"]["state"] if last["kind"] == "end" else ""
    except (OSError, ValueError, IndexError):
        return ""


class Ending:
    """Whether the rank of a folder has ended: it says so, or its journal is let go of without a word."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._now = now
        self._held = False
        self._size, self._grown = -1, now()

    def has_come(self) -> bool:
        """Look now. Where the lock was seen to be held, its absence tells at once; elsewhere only long silence does."""
        if state_of(self._folder):
            return True
        if journal.is_busy(self._folder):
            self._held = True
            return False
        path = self._folder / journal.NAME
        size = path.stat().st_size if path.exists() else 0
        if size != self._size:
            self._size, self._grown = size, self._now()
        return self._held or self._now() - self._grown > SILENT_S
