"""What `scripts/gpu_suite` has recorded: how its pieces ended, of which commit, on which GPU, and in which folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from seqroof.scripts.environment import ROOT

MANIFEST = "manifest.json"
UNKNOWN = "unknown"  # the commit of a tree without git
_INTERRUPTED = 130  # the exit code of a profile that was cut off, or lost its worker for good


@dataclass(frozen=True)
class Outcome:
    """How a piece ended: `ok`, `ok, with failed cases`, `failed`, `timed out`, `interrupted`.

    Not started: `waits` for another time, or `skipped`, because what it needs is missing or nothing needs it.
    """

    status: str
    seconds: float = 0.0
    exit_code: int | None = None
    log: str | None = None

    @property
    def ok(self) -> bool:
        """Whether there is nothing left to do."""
        return self.status.startswith("ok")

    @property
    def tried(self) -> bool:
        """Whether it was started."""
        return self.status not in ("waits", "skipped")

    @property
    def cut_off(self) -> bool:
        """Whether it was ended before its end, so that what it has measured can be completed."""
        return self.status in ("timed out", "interrupted") or self.exit_code == _INTERRUPTED


@dataclass(frozen=True)
class Facts:
    """What a run of the suite is of.

    commit : as `commit_of_tree` tells it, or as it was named. machine : the GPU's name as a folder name.
    gpu : a hash of the GPU's UUID, which tells two of one name apart; empty where the driver does not tell it.
    """

    commit: str
    machine: str
    gpu: str
    date: str

    @property
    def settled(self) -> bool:
        """Whether what is recorded can be told to be of this code and this GPU; else everything is measured anew."""
        return bool(self.gpu) and self.commit != UNKNOWN and not self.commit.endswith("-changed")


def recorded(folder: Path, facts: Facts) -> dict[str, Outcome]:
    """The outcomes in a folder's manifest if it is of this commit and this GPU; nothing otherwise."""
    return _outcomes(folder, {"commit": facts.commit, "gpu": facts.gpu})


def _outcomes(folder: Path, wanted: dict[str, str]) -> dict[str, Outcome]:
    """The outcomes in a folder's manifest if that says all that is wanted; nothing otherwise."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if any(manifest[name] != value for name, value in wanted.items()):
            return {}
        return {name: Outcome(**outcome) for name, outcome in manifest["pieces"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        print(f"{folder / MANIFEST} is damaged ({error}) and is not counted.", file=sys.stderr)
        return {}


def write_manifest(out: Path, facts: Facts, outcomes: dict[str, Outcome]) -> None:
    """Write down how far the suite is, in one step."""
    manifest = {**asdict(facts), "pieces": {name: asdict(outcome) for name, outcome in outcomes.items()}}
    fresh = out / f"{MANIFEST}.new"
    fresh.write_text(json.dumps(manifest, indent=2) + "\n")
    fresh.replace(out / MANIFEST)


def history(folders: list[Path], facts: Facts) -> dict[str, Outcome]:
    """How pieces of this commit ended on any GPU of this name, the best outcome of each.

    What is complete needs no repetition on another card of the name; it stands beside the roofs of its own. Nothing
    where it cannot be told of what the records are.
    """
    found: dict[str, Outcome] = {}
    for folder in folders if facts.settled else ():
        for name, outcome in _outcomes(folder, {"commit": facts.commit, "machine": facts.machine}).items():
            held = found.setdefault(name, outcome)
            if (outcome.ok, outcome.tried) > (held.ok, held.tried):
                found[name] = outcome
    return found


def new_folder(results: Path, facts: Facts) -> Path:
    """Where a run goes: the folder that was begun for this commit and this GPU, else a new one.

    A new one is `<machine>-<date>`, numbered on where something else was measured on the same day.
    """
    days = f"{facts.machine}-*" if facts.settled else f"{facts.machine}-{facts.date}*"
    begun = [folder for folder in sorted(results.glob(days)) if recorded(folder, facts)]
    if begun:
        return begun[-1]
    folder, number = results / f"{facts.machine}-{facts.date}", 1
    while folder.exists():
        number += 1
        folder = results / f"{facts.machine}-{facts.date}-{number}"
    return folder


def commit_of_tree() -> str:
    """The commit of the checkout, with `-changed` when files outside `results/` differ; `unknown` without git."""

    def git(*words: str) -> str | None:
        try:
            answer = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
        except OSError:
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return UNKNOWN
    return f"{commit}-changed" if git("status", "--porcelain", "--", ".", ":!results") else commit


def gpu_here() -> tuple[str, str]:
    """The name of the first GPU as a folder name, such as `nvidia-h200`, and a hash of its UUID.

    They are `gpu` and empty where nvidia-smi does not say.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    words = ["nvidia-smi", *(["-i", visible] if visible else []), "--query-gpu=name,uuid", "--format=csv,noheader"]
    try:
        listing = subprocess.run(words, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "gpu", ""
    if listing.returncode or not listing.stdout.strip():
        return "gpu", ""
    name, _, uuid = listing.stdout.splitlines()[0].partition(",")
    folder = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "gpu"
    return folder, hashlib.sha256(uuid.strip().encode()).hexdigest()[:16] if uuid.strip() else ""
