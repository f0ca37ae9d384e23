"""Does everything that waits for a GPU, in pieces, the most telling first, and keeps what was measured.

    scripts/gpu_suite                       # all pieces that this commit has not got yet
    scripts/gpu_suite --only ceilings       # one of them
    scripts/gpu_suite --budget 9m           # start no piece that may outlast nine minutes; the next call goes on

Each piece is a process of its own with a time limit and a log, so one that hangs or crashes costs only itself. Results
go to `results/<machine>-<date>/`; `manifest.json` there says what ran, of which commit and on which GPU, how it ended
and how long it took. A piece that was cut off is finished by a later call on the same card, and one that failed is
tried again when all others have had their turn. Another card of the same name goes on too, under roofs of its own. What
the recurrent pieces were expected to show was written down before, in `results/predictions.md`. Nothing here changes
clocks, power limits or modes of the device, and nothing resets it.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from functools import partial
from pathlib import Path

from seqroof.profiler.lifeline import end_with_parent
from seqroof.scripts.environment import ROOT, has_nvidia_gpu
from seqroof.scripts.exits import Exit
from seqroof.scripts.gpu_pieces import PARTIAL, PIECES, ROOFS, Piece, installed
from seqroof.scripts.gpu_record import (
    MANIFEST,
    UNKNOWN,
    Facts,
    Outcome,
    commit_of_tree,
    gpu_here,
    history,
    new_folder,
    recorded,
    write_manifest,
)

# The pieces that measure roofs, which are those of one card.
_ROOFS = tuple(piece.name for piece in PIECES if piece.keeps in ROOFS)
# Exit codes of a profile that is complete although cases of it were wrong, invalid, crashed or out of memory.
CASES_FAILED = (Exit.WRONG_RESULT, Exit.INVALID_POINT, Exit.CASE_FAILED)
GRACE_S = 10  # between asking a piece to stop and killing it: time to write down what it has measured


def run_piece(piece: Piece, out: Path, limit_s: float, resume: bool = False, commit: str = "") -> Outcome:
    """Run one piece with its output in a log; nothing that it started outlives it, nor this process.

    resume : finish what an earlier call was cut off from. commit : what a record says where there is no git.
    """
    log, kept = out / f"{piece.name}.log", out / (f"{piece.keeps}.part" if piece.keeps else f"{piece.name}.log")
    command = _completed(piece, out, resume)
    start = time.monotonic()
    # Both append, so that neither overwrites what the other wrote where they are the same file.
    log.unlink(missing_ok=True)
    kept.unlink(missing_ok=True)
    with log.open("a") as errors, kept.open("a") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=output,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "SEQROOF_COMMIT": commit},
            start_new_session=True,
            preexec_fn=partial(end_with_parent, os.getpid()),
        )
        status = ""
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            status = "timed out"
        except KeyboardInterrupt:
            status = "interrupted"
        code = _end(process, ask=bool(status))
    complete = "profile" in command and code in CASES_FAILED
    status = status or ("ok" if code == 0 else "ok, with failed cases" if complete else "failed")
    if piece.keeps:
        _keep_printed(kept, out, piece.keeps, status, code)
    return Outcome(status, round(time.monotonic() - start, 1), code, log.name)


def _keep_printed(printed: Path, out: Path, name: str, status: str, code: int) -> None:
    """Keep what a piece printed when it went well, and roofs that are not whole: without any, no profile starts."""
    if status == "ok":
        printed.replace(out / name)
    elif name in ROOFS and status == "failed" and code == Exit.CASE_FAILED:
        printed.replace(out / f"{PARTIAL}{name}")
    else:
        printed.unlink()


def _completed(piece: Piece, out: Path, resume: bool) -> list[str]:
    """The command with what can only be said now: where the run is, its roofs, and whether a profile is taken up."""
    places = {"{out}": str(out), "{roofs}": str(roofs_in(out) or "")}
    command = list(piece.command)
    for name, place in places.items():
        command = [word.replace(name, place) for word in command]
    if "profile" in command:
        command.append("--resume" if resume else "--force")
    return command


def roofs_in(out: Path) -> Path | None:
    """The roofs of a run, the best that there are; None before any were measured."""
    return next((out / name for name in ROOFS if (out / name).exists()), None)


def _end(process: subprocess.Popen, ask: bool) -> int:
    """Leave nothing of a piece behind, which leads a process group of its own. ask : first ask it to stop, and wait."""
    try:
        if ask:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)  # pytest says on it where it was; SIGTERM it does not know
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(GRACE_S)
    return -signal.SIGKILL  # a driver holds it in the kernel: it is left behind


def run_suite(
    pieces: tuple[Piece, ...], out: Path, facts: Facts, budget_s: float, tried: Collection[str] = ()
) -> dict[str, Outcome]:
    """Run the pieces within the budget, those that were never tried first; `out/manifest.json` is kept up to date.

    A piece whose limit does not fit into what is left of the budget waits, and a shorter one after it may still run;
    so does one that is held to roofs until there are some. tried : pieces that were tried on another card; those of
    roofs come first on this one all the same.
    """
    out.mkdir(parents=True, exist_ok=True)
    outcomes = recorded(out, facts)
    end = time.monotonic() + budget_s
    tried = {name for name in tried if name not in _ROOFS} | {name for name in outcomes if outcomes[name].tried}
    left = sorted(pieces, key=lambda piece: piece.name in tried)
    while piece := next((piece for piece in left if _can_start(piece, out, end - time.monotonic())), None):
        left.remove(piece)
        before = outcomes.get(piece.name, Outcome("waits"))
        if not _is_needed(piece, out):
            outcomes[piece.name] = before if before.ok else Outcome("skipped")
        else:
            print(f"{piece.name}: {piece.why} (at most {piece.limit_s:.0f} s)", file=sys.stderr, flush=True)
            outcomes[piece.name] = Outcome("interrupted", log=f"{piece.name}.log")  # unless it comes to its end
            write_manifest(out, facts, outcomes)
            outcomes[piece.name] = _run_or_start_anew(piece, out, facts, before)
        write_manifest(out, facts, outcomes)
        if outcomes[piece.name].status == "interrupted":
            break
    for piece in left:
        outcomes.setdefault(piece.name, Outcome("waits"))
    if any("{roofs}" in piece.command for piece in left) and roofs_in(out) is None:
        print("Profiles wait for roofs to be held to, which the piece ceilings measures.", file=sys.stderr)
    write_manifest(out, facts, outcomes)
    return outcomes


def _can_start(piece: Piece, out: Path, left_s: float) -> bool:
    """Whether a piece fits into the time that is left, its end included, and has what it is held to."""
    return piece.limit_s + GRACE_S <= left_s and ("{roofs}" not in piece.command or roofs_in(out) is not None)


def _is_needed(piece: Piece, out: Path) -> bool:
    """Whether a piece has packages that it is about, and has not been made needless."""
    return _has_packages(piece) and not (piece.unless and (out / piece.unless).exists())


def _has_packages(piece: Piece) -> bool:
    return not piece.needs or any(map(installed, piece.needs))


def _run_or_start_anew(piece: Piece, out: Path, facts: Facts, before: Outcome) -> Outcome:
    """Run a piece: what an earlier call was cut off from is finished, and begun anew where that is refused."""
    commit = "" if facts.commit == UNKNOWN else facts.commit
    resume = facts.settled and before.cut_off and (out / piece.name / "journal.jsonl").exists()
    outcome = run_piece(piece, out, piece.limit_s, resume, commit)
    if resume and outcome.exit_code == Exit.NO_DEVICE:
        outcome = run_piece(piece, out, piece.limit_s - outcome.seconds, commit=commit)
    return outcome


def seconds(text: str) -> float:
    """A duration such as `90`, `90s` or `25m`, in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 90s, 25m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def table(pieces: tuple[Piece, ...], outcomes: dict[str, Outcome]) -> str:
    """The pieces and how they ended, one line each: how long they took, or may take at most."""
    rows = [("piece", "status", "time", "")]
    for piece in pieces:
        outcome = outcomes.get(piece.name, Outcome("waits"))
        spent = f"{outcome.seconds:.0f} s" if outcome.seconds else "-" if outcome.ok else f"<= {piece.limit_s:.0f} s"
        last = outcome.log if outcome.log and outcome.status != "ok" else piece.why
        if outcome.status == "skipped":
            last = f"none of {', '.join(piece.needs)} is installed" if piece.needs else f"{piece.unless} is there"
        rows.append((piece.name, outcome.status, spent, last))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]).rstrip() for row in rows
    )


def plan(pieces: tuple[Piece, ...]) -> str:
    """How long pieces take at most, and how they are spread over several calls."""
    total_s = sum(piece.limit_s for piece in pieces if not (piece.needs or piece.unless))
    return (
        f"What waits takes {total_s / 60:.0f} minutes at most. It need not be one call: --budget 9m starts what fits "
        "into nine minutes, and the next call of the same commit goes on with the rest, on another GPU of the same "
        "name too, whose roofs it measures first."
    )


def _choices(words: list[str] | None) -> argparse.Namespace:
    names = [piece.name for piece in PIECES]
    parser = argparse.ArgumentParser(prog="scripts/gpu_suite", description="Do everything that waits for a GPU.")
    parser.add_argument("--only", metavar="PIECE,...", help=f"some of: {', '.join(names)}; runs them even if recorded")
    parser.add_argument("--list", action="store_true", help="print the pieces and what is recorded, and run nothing")
    parser.add_argument("--out", type=Path, help="the folder for results (results/<machine>-<date>)")
    parser.add_argument("--budget", type=seconds, default=float("inf"), metavar="TIME", help="such as 25m; no limit")
    parser.add_argument("--commit", help="the commit, for a copy of the tree that has no git")
    choices = parser.parse_args(words)
    unknown = set(choices.only.split(",")) - set(names) if choices.only is not None else set()
    if unknown:
        parser.error(f"no piece is named {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return choices


def _facts(choices: argparse.Namespace, has_gpu: bool) -> Facts:
    """What this call measures; says what keeps a later call from going on with it."""
    machine, gpu = gpu_here() if has_gpu else ("gpu", "")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    facts = Facts(choices.commit or commit_of_tree(), machine, gpu, today)
    if has_gpu and not facts.settled:
        why = "nvidia-smi tells no UUID of the GPU" if facts.commit != UNKNOWN else "there is no git here"
        cure = "" if facts.commit != UNKNOWN else ": name the commit with --commit"
        if facts.commit.endswith("-changed"):
            why, cure = "files differ from the commit", ": commit them first"
        print(f"{why}, so every call measures everything anew{cure}.", file=sys.stderr)
    return facts


def _refuse_other_run(out: Path, facts: Facts) -> None:
    """Leave with exit code 2 where a folder that was named holds what is of another commit or GPU."""
    if (out / MANIFEST).exists() and not recorded(out, facts):
        print(f"{out} holds a run of another commit or GPU; name another folder with --out.", file=sys.stderr)
        raise SystemExit(Exit.USAGE)


def _waiting(known: dict[str, Outcome], here: dict[str, Outcome]) -> list[str]:
    """The pieces that are not complete; roofs of this card too while there is a profile to hold to them.

    known : outcomes on all cards of the name. here : those on this card.
    """
    waiting = {piece.name for piece in PIECES if not known.get(piece.name, Outcome("waits")).ok}
    if any("{roofs}" in piece.command and _has_packages(piece) for piece in PIECES if piece.name in waiting):
        waiting |= {name for name in _ROOFS if not here.get(name, Outcome("waits")).ok}
    return [piece.name for piece in PIECES if piece.name in waiting]


def main(words: list[str] | None = None) -> int:
    """Run the suite; returns 0 unless a piece failed (1) or was interrupted (130)."""
    choices = _choices(words)
    has_gpu = has_nvidia_gpu()
    facts = _facts(choices, has_gpu)
    out = (choices.out or new_folder(ROOT / "results", facts)).resolve()
    _refuse_other_run(out, facts)
    known = history([*(ROOT / "results").glob(f"{facts.machine}-*"), out], facts)
    wanted = choices.only.split(",") if choices.only else _waiting(known, recorded(out, facts))
    pieces = tuple(piece for piece in PIECES if piece.name in wanted)
    if choices.list or not has_gpu:
        print(table(PIECES, known))
        print(plan(pieces))
        if not has_gpu:
            print("There is no NVIDIA GPU here: on a machine that has one, scripts/gpu_suite runs what waits.")
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    tried = {name for name, outcome in known.items() if outcome.tried}
    outcomes = run_suite(pieces, out, facts, choices.budget, tried)
    print(table(PIECES, {**known, **{name: outcomes[name] for name in wanted}}))
    print(f"results: {out}")
    statuses = {outcome.status for name, outcome in outcomes.items() if name in wanted}
    return Exit.INTERRUPTED if "interrupted" in statuses else int(bool(statuses & {"failed", "timed out"}))


if __name__ == "__main__":
    sys.exit(main())
