"""The folder of a run: made, claimed for one process, and taken up again where an earlier run began it."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from seqroof.profiler import journal
from seqroof.profiler.host import commit_of
from seqroof.profiler.session import Session
from seqroof.roofline.store import remove_leftovers

from .exits import Exit, Stop
from .version import VERSION

TOOL = f"seqroof {VERSION}"
RUNS = Path("seqroof-runs")


@cache
def commit() -> str:
    """The commit of this seqroof; outside a repository what SEQROOF_COMMIT says of the copy, or empty."""
    return commit_of(Path(__file__).parent) or os.environ.get("SEQROOF_COMMIT", "")


def output_folder(out: Path | None, device: str, resume: bool, force: bool) -> Path:
    """Make the folder of a run before anything is measured; raises `Stop` when it cannot be written."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = out or RUNS / f"{stamp}-{device.replace(':', '')}"
    if folder.exists() and not folder.is_dir():
        raise Stop(f"--out {folder} is a file; name a folder.", Exit.USAGE)
    if _holds_a_run(folder) and not (resume or force):
        raise Stop(f"{folder} already holds a run; add --force to replace it, or --resume to finish it.", Exit.USAGE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise Stop(
            f"{folder} cannot be written ({error.strerror}); choose another folder with --out.", Exit.USAGE
        ) from error
    return folder


def _holds_a_run(folder: Path) -> bool:
    """Whether something was measured there; a run that was refused leaves an empty journal."""
    written = folder / journal.NAME
    return (folder / "run.json").exists() or (written.exists() and written.stat().st_size > 0)


def claimed(folder: Path, resume: bool) -> journal.Journal:
    """The journal of a folder, locked for this process; raises `Stop` while another one measures into it."""
    if resume and not (folder / journal.NAME).exists():
        raise Stop(f"There is no journal in {folder}; leave out --resume to start a new run there.", Exit.USAGE)
    try:
        made = journal.Journal(folder)
    except journal.JournalError as error:
        raise Stop(str(error), Exit.NO_DEVICE) from error
    except OSError as error:
        raise Stop(f"The journal in {folder} cannot be written ({error.strerror}).", Exit.USAGE) from error
    remove_leftovers(folder)
    return made


def earlier_events(claim: journal.Journal, session: Session) -> list[tuple[str, Any]]:
    """What an earlier run left in the journal, nothing if it ended before its header; refuses what is not its own."""
    folder = claim.path.parent
    try:
        events = claim.take_up()
    except journal.JournalError as error:
        raise Stop(str(error), Exit.USAGE) from error
    if not events:
        return []
    header = next((data for kind, data in events if kind == "header"), None)
    if header is None:
        raise Stop(f"The journal in {folder} has no header; start a new run with --force.", Exit.USAGE)
    identity = json.loads(json.dumps(session.identity()))
    here = {name: identity["machine"][name] for name in header["machine"]}  # what older journals tell
    if header["machine"] != here:
        raise Stop(
            f"{folder} was measured on another machine, torch version or number of threads; results of two do not "
            "belong in one run. Start a new one without --resume.",
            Exit.NO_DEVICE,
        )
    if header["request"] != identity["request"]:
        raise Stop(f"{folder} was asked for other cases; repeat its command line, with --resume added.", Exit.USAGE)
    _refuse_other_code(folder, header, identity["code"])
    if not any(kind == "end" and data["state"] == "complete" for kind, data in events):
        _refuse_other_commit(folder, header.get("commit", ""), commit())
    return events


def _refuse_other_code(folder: Path, header: dict[str, Any], code: dict[str, str]) -> None:
    """Refuse to finish what another seqroof, or other kernel files, began; older journals do not tell."""
    tool, before = header.get("tool", TOOL), header.get("code", code)
    if tool != TOOL:
        raise Stop(
            f"{folder} was begun by {tool}, and this is {TOOL}; results of two do not belong in one run. Finish it "
            "with that version, or start a new one without --resume.",
            Exit.NO_DEVICE,
        )
    changed = sorted(name for name in {*before, *code} if before.get(name) != code.get(name))
    if changed:
        raise Stop(
            f"{', '.join(changed)} changed since {folder} was begun; results of two do not belong in one run. Restore "
            "what was measured, or start a new run without --resume.",
            Exit.NO_DEVICE,
        )


def _refuse_other_commit(folder: Path, before: str, now: str) -> None:
    """Refuse to measure on with another profiler than before; where either commit is not known nothing can be said."""
    if not before or not now or before == now:
        return
    revision, _, changes = before.partition("+")
    with_changes = ", with the changes that it had then" if changes else ""
    raise Stop(
        f"{folder} was begun at commit {_short(before)} of seqroof, and this is {_short(now)}; results of two do not "
        f"belong in one run. Finish it with that one (git checkout {revision[:12]}{with_changes}), or start a new run "
        "without --resume.",
        Exit.NO_DEVICE,
    )


def _short(commit: str) -> str:
    revision, _, changes = commit.partition("+")
    return revision[:12] + (" with changes" if changes else "")
