"""Measured roofs kept for the next run: by device, driver, largest clocks and software, below one folder.

A run may use them when its calibration copy, timed anew, agrees with the one that was timed with them; the run then
times a product too, as a copy of memory does not show the clock of what computes. Files are
replaced whole, so runs side by side see the old content or the new. Imports no torch.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..roofline._model import Frozen
from ..roofline.calibration import Look
from ..roofline.catalogue import by_driver_name
from ..roofline.machine import Ceiling, Machine
from ..roofline.store import write_atomically
from ..roofline.units import percent, si

# Two copies further apart than this were not taken on a machine in the same state.
AGREEMENT = 0.05
# Roofs that were measured longer may serve a run that would have measured less, not the other way round.
EFFORTS = ("quick", "full")

Identity = dict[str, str | float | int | None]


class StoredRoofs(Frozen):
    """Roofs with what they depend on and the copy that was timed with them. created : ISO 8601 time."""

    kind: Literal["stored roofs"] = "stored roofs"
    identity: Identity
    effort: str
    created: str
    copy_look: Look | None = None
    machine: Machine


@dataclass(frozen=True)
class Found:
    """What the store had: the ceilings, none where they must be measured anew, and a sentence about it."""

    ceilings: list[Ceiling]
    text: str


class RoofStore:
    """The roofs of one folder. fresh : never use what is there, only replace it."""

    def __init__(self, folder: Path, fresh: bool = False) -> None:
        self.folder = folder
        self.fresh = fresh

    def find(self, identity: Identity, effort: str, look: Look | None) -> Found:
        """Roofs for a device in this state, if its copy, timed just now, agrees with theirs."""
        if not identity.get("device"):
            return Found([], "Roofs are measured anew: this system does not tell one device from another.")
        held = [stored for name in _at_least(effort) if (stored := self._read(self._file(identity, name)))]
        held = [stored for stored in held if stored.identity == identity and has_dram(stored.machine.ceilings)]
        if not held:
            return Found([], "")
        stored = min(held, key=lambda stored: abs(_off(look, stored)))
        day = stored.created[:16].replace("T", " ")
        if self.fresh:
            return Found([], f"Roofs are measured anew, as asked; those of {day} were not used.")
        off = _off(look, stored)
        if look is None or stored.copy_look is None:
            return Found([], f"Roofs are measured anew: no calibration copy connects this run with those of {day}.")
        speeds = f"{si(look.bytes_per_s, 'B/s')} now, {si(stored.copy_look.bytes_per_s, 'B/s')} then"
        change = f"{percent(abs(off))} {'faster' if off > 0 else 'slower'}"
        if abs(off) > AGREEMENT:
            text = f"Roofs are measured anew: the calibration copy is {change} than with those of {day} ({speeds})."
            return Found([], text)
        text = f"Roofs of {day} are used again: the calibration copy of {look.when} is {change} ({speeds})."
        mark = f"used again on {look.when}, calibration copy {change}; measured"
        return Found([replayed(ceiling, mark) for ceiling in own_ceilings(stored.machine)], text)

    def newest(self) -> StoredRoofs | None:
        """The roofs that were measured last, of whatever device; None where none are kept."""
        held = [stored for path in self.folder.glob("*.json") if (stored := self._read(path))]
        return max(held, key=lambda stored: stored.created, default=None)

    def keep(self, identity: Identity, effort: str, look: Look | None, machine: Machine) -> Path:
        """Store the roofs of a machine, by name and state; raises `OSError` where the folder cannot be written."""
        stored = StoredRoofs(
            identity=identity,
            effort=effort,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            copy_look=look,
            machine=machine,
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._file(identity, effort, machine.id)
        return write_atomically(path, stored.model_dump_json(indent=1).encode())

    def _file(self, identity: Identity, effort: str, machine: str = "*") -> Path:
        """The file of a state; a pattern where the name of the machine is left open."""
        text = json.dumps(identity, sort_keys=True)
        return self.folder / f"{machine}-{hashlib.sha256(text.encode()).hexdigest()[:12]}-{effort}.json"

    def _read(self, pattern: Path) -> StoredRoofs | None:
        """A stored file; None where there is none, or where it cannot be read and so must be made anew."""
        for path in self.folder.glob(pattern.name):
            try:
                return StoredRoofs.model_validate_json(path.read_bytes())
            except (OSError, ValueError):
                continue
        return None


def machine_of(data: object) -> object:
    """The machine inside the JSON of a stored file; other data are handed back as they are."""
    return data["machine"] if isinstance(data, dict) and data.get("kind") == "stored roofs" else data


def _off(look: Look | None, stored: StoredRoofs) -> float:
    """The copy of now relative to the one of then, less 1; infinite where one of them is missing."""
    if look is None or stored.copy_look is None:
        return math.inf
    return look.bytes_per_s / stored.copy_look.bytes_per_s - 1


def _at_least(effort: str) -> Sequence[str]:
    return EFFORTS[EFFORTS.index(effort) :] if effort in EFFORTS else (effort,)


def has_dram(ceilings: Iterable[Ceiling]) -> bool:
    """Whether a bandwidth of DRAM is among these; a device that is short of free memory has none."""
    return any((ceiling.quantity, ceiling.level, ceiling.scope) == ("bandwidth", "dram", "") for ceiling in ceilings)


def own_ceilings(machine: Machine) -> list[Ceiling]:
    """The ceilings that come from the device itself, without those that the catalogue states for it."""
    row = by_driver_name(machine.name)
    return [ceiling for ceiling in machine.ceilings if row is None or ceiling not in row.ceilings]


def replayed(ceiling: Ceiling, mark: str = "") -> Ceiling:
    """A measured ceiling as one of an earlier run, with a mark about that; others are handed back as they are."""
    if ceiling.provenance != "measured":
        return ceiling
    return ceiling.model_copy(
        update={"provenance": "replayed", "how": f"{ceiling.how}; {mark}" if mark else ceiling.how}
    )
