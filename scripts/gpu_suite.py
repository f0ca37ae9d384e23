"""Does everything that waits for a GPU, in pieces, the most worthwhile first, and keeps what was measured.

    scripts/gpu_suite                       # all pieces that this commit has not got yet
    scripts/gpu_suite --only ceilings       # one of them
    scripts/gpu_suite --budget 25m          # start no piece that may outlast 25 minutes

Each piece is a process of its own with a time limit and a log, so one that hangs or crashes costs only itself. Results
go to `results/<machine>-<date>/`; `manifest.json` there says what ran, of which commit, how it ended and how long it
took. What the recurrent pieces were expected to show was written down before, in `results/predictions.md`. Nothing here
changes clocks, power limits or modes of the device, and nothing resets it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from seqroof.scripts.environment import ROOT, has_nvidia_gpu
from seqroof.scripts.gpu_pieces import PIECES, Piece, installed

# Exit codes of a profile that is complete although cases of it were wrong, invalid, crashed or out of memory.
CASES_FAILED = (3, 5, 6)
# What a piece may have measured a part of when it ended so.
CUT_OFF = ("timed out", "interrupted", "failed")
GRACE_S = 10  # between asking a piece to stop and killing it: time to write down what it has measured
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Outcome:
    """How a piece ended: `ok`, `ok, with failed cases`, `failed`, `timed out`, `interrupted`.

    Not started: `waits` for another time, or `skipped`, because nothing that it needs is installed.
    """

    status: str
    seconds: float = 0.0
    exit_code: int | None = None
    log: str | None = None


def run_piece(piece: Piece, out: Path, limit_s: float, resume: bool = False) -> Outcome:
    """Run one piece with its output in a log; a piece past its limit is stopped with everything it started.

    resume : finish what an earlier call was cut off from, rather than measure it anew.
    """
    log, kept = out / f"{piece.name}.log", out / (piece.keeps or f"{piece.name}.log")
    command = _completed([word.replace("{out}", str(out)) for word in piece.command], resume)
    start = time.monotonic()
    # Both append, so that neither overwrites what the other wrote where they are the same file.
    log.unlink(missing_ok=True)
    kept.unlink(missing_ok=True)
    with log.open("a") as errors, kept.open("a") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=errors, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            code = process.wait(limit_s)
            complete = "profile" in command and code in CASES_FAILED
            status = "ok" if code == 0 else "ok, with failed cases" if complete else "failed"
        except subprocess.TimeoutExpired:
            code, status = _stop(process), "timed out"
        except KeyboardInterrupt:
            code, status = _stop(process), "interrupted"
    if piece.keeps and status != "ok":
        kept.unlink()
    return Outcome(status, round(time.monotonic() - start, 1), code, log.name)


def _completed(command: list[str], resume: bool) -> list[str]:
    """What can only be said once earlier pieces have run: whether there are roofs, and what there is to resume."""
    if "--roofs" in command:
        place = command.index("--roofs")
        if not Path(command[place + 1]).exists():
            del command[place : place + 2]
    if "profile" in command:
        folder = Path(command[command.index("--out") + 1])
        command.append("--resume" if resume and (folder / "journal.jsonl").exists() else "--force")
    return command


def _stop(process: subprocess.Popen) -> int:
    """End a piece and its children: ask, wait, then kill. The piece leads a process group of its own."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def run_suite(pieces: tuple[Piece, ...], out: Path, facts: dict, budget_s: float) -> dict[str, Outcome]:
    """Run the pieces in order within the budget; `out/manifest.json` is rewritten before and after each.

    `facts` is what the manifest says of the run as a whole (commit, machine, date). A piece whose limit does not fit
    into what is left of the budget waits, and a shorter one after it may still run.
    """
    out.mkdir(parents=True, exist_ok=True)
    outcomes = _recorded(out, facts["commit"])
    end = time.monotonic() + budget_s
    for piece in pieces:
        if piece.needs and not any(map(installed, piece.needs)):
            outcomes[piece.name] = Outcome("skipped")
        elif piece.limit_s > end - time.monotonic():
            outcomes[piece.name] = Outcome("waits")
        else:
            print(f"{piece.name}: {piece.why} (at most {piece.limit_s / 60:.0f} min)", file=sys.stderr, flush=True)
            before = outcomes.get(piece.name, Outcome("waits")).status
            outcomes[piece.name] = Outcome("interrupted")  # until it has ended: the suite itself may be killed
            _write_manifest(out, facts, outcomes)
            resume = before in CUT_OFF and is_clean(facts["commit"])
            outcomes[piece.name] = run_piece(piece, out, piece.limit_s, resume)
        _write_manifest(out, facts, outcomes)
        if outcomes[piece.name].status == "interrupted":
            break
    return outcomes


def _recorded(folder: Path, commit: str) -> dict[str, Outcome]:
    """The outcomes in a folder's manifest if it belongs to this commit; nothing otherwise."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["commit"] != commit:
            return {}
        return {name: Outcome(**outcome) for name, outcome in manifest["pieces"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        print(f"{folder / MANIFEST} is damaged ({error}) and is not counted.", file=sys.stderr)
        return {}


def _write_manifest(out: Path, facts: dict, outcomes: dict[str, Outcome]) -> None:
    manifest = {**facts, "pieces": {name: asdict(outcome) for name, outcome in outcomes.items()}}
    fresh = out / f"{MANIFEST}.new"
    fresh.write_text(json.dumps(manifest, indent=2) + "\n")
    fresh.replace(out / MANIFEST)


def finished(folders: list[Path], commit: str) -> set[str]:
    """The pieces recorded as ok for this commit in any of the folders. A changed tree counts as no commit."""
    if not is_clean(commit):
        return set()
    runs = [_recorded(folder, commit) for folder in folders]
    return {name for run in runs for name, outcome in run.items() if outcome.status.startswith("ok")}


def is_clean(commit: str) -> bool:
    """Whether a commit says all of the tree: a changed one may be another each time."""
    return commit != "unknown" and not commit.endswith("-changed")


def new_folder(results: Path, machine: str, date: str, commit: str) -> Path:
    """Where a run goes: `<machine>-<date>`, numbered on where another commit was measured on the same day."""
    folder, number = results / f"{machine}-{date}", 1
    while folder.exists() and not _recorded(folder, commit):
        number += 1
        folder = results / f"{machine}-{date}-{number}"
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
        return "unknown"
    return f"{commit}-changed" if git("status", "--porcelain", "--", ".", ":!results") else commit


def machine_name() -> str:
    """The GPU's name as a folder name, such as `nvidia-h200`; `gpu` where nvidia-smi does not say."""
    try:
        words = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        listing = subprocess.run(words, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "gpu"
    first = (listing.stdout.splitlines() or ["gpu"])[0] if listing.returncode == 0 else "gpu"
    return re.sub(r"[^a-z0-9]+", "-", first.lower()).strip("-")


def seconds(text: str) -> float:
    """A duration such as `90`, `90s` or `25m`, in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 90s, 25m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def table(pieces: tuple[Piece, ...], outcomes: dict[str, Outcome]) -> str:
    """The pieces and how they ended, one line each."""
    rows = [("piece", "status", "time", "")]
    for piece in pieces:
        outcome = outcomes.get(piece.name, Outcome("waits"))
        spent = f"{outcome.seconds:.0f} s" if outcome.seconds else "-"
        last = outcome.log if outcome.log and outcome.status != "ok" else piece.why
        if outcome.status == "skipped":
            last = f"none of {', '.join(piece.needs)} is installed"
        rows.append((piece.name, outcome.status, spent, last))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]).rstrip() for row in rows
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


def main(words: list[str] | None = None) -> int:
    """Run the suite; returns 0 unless a piece failed (1) or was interrupted (130)."""
    choices = _choices(words)
    has_gpu = has_nvidia_gpu()
    machine = machine_name() if has_gpu else "gpu"
    commit = choices.commit or commit_of_tree()
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    out = (choices.out or new_folder(ROOT / "results", machine, today, commit)).resolve()
    done = finished([*sorted((ROOT / "results").glob(f"{machine}-*")), out], commit)
    if choices.list or not has_gpu:
        print(table(PIECES, {name: Outcome("ok") for name in done}))
        if not has_gpu:
            print("There is no NVIDIA GPU here: on a machine that has one, scripts/gpu_suite runs what waits.")
        return 0
    wanted = choices.only.split(",") if choices.only else [piece.name for piece in PIECES if piece.name not in done]
    pieces = tuple(piece for piece in PIECES if piece.name in wanted)
    outcomes = run_suite(pieces, out, {"commit": commit, "machine": machine, "date": today}, choices.budget)
    print(table(PIECES, {**{name: Outcome("ok") for name in done}, **outcomes}))
    print(f"results: {out}")
    statuses = {outcome.status for outcome in outcomes.values()}
    return 130 if "interrupted" in statuses else int(bool(statuses & {"failed", "timed out"}))


if __name__ == "__main__":
    sys.exit(main())
