"""`seqroof claims`: verdicts from recorded runs, and a gate on the verdicts that are expected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from seqroof.roofline import claim_table
from seqroof.roofline.claim_board import Board, board
from seqroof.roofline.claim_verdict import WORDS
from seqroof.roofline.claims import SUITE, all_claims, cases
from seqroof.roofline.compare import identity
from seqroof.roofline.record import Environment, Run
from seqroof.roofline.store import run_file

from .exits import Exit, Stop
from .progress import say
from .reading import load_run, unless_unreadable

# Where runs lie that nobody named: those of this folder, and recorded ones.
PLACES = ("seqroof-runs/*/run.json", "results/*/run.json", "results/*/*/run.json")


def claims(paths: list[Path], expect: Path | None, as_json: bool) -> Exit:
    """Print the verdict on every claim; returns the exit code."""
    expected = _expected(expect) if expect else []
    chosen = {path: load_run(path) for path in paths} or newest(Path())
    found = board([(_label(path), run) for path, run in chosen.items()])
    if as_json:
        print(found.model_dump_json())
    else:
        claim_table.render(found, Console(highlight=False))
    return _gate(found, expected)


def _label(path: Path) -> str:
    """A run by the last two names of its folder, which say no user and no machine's paths."""
    return "/".join(run_file(path).resolve().parent.parts[-2:])


def newest(folder: Path) -> dict[Path, Run]:
    """The run of each computer below a folder that says most: of the claims' own suite, complete, of all its kernels.

    Of equal ones it is the newest. Where a newer one was passed over, or one that cannot be read, a line on standard
    error says so.
    """
    found: dict[tuple[object, ...], list[tuple[tuple[bool, bool, bool, str], Path]]] = {}
    for path in sorted(path for place in PLACES for path in folder.glob(place)):
        facts = _facts(path)
        if facts:
            found.setdefault(facts[0], []).append((facts[1], path))
        else:
            say(f"seqroof: passed over: {_label(path)} holds no run, or is damaged")
    best = [_best(sorted(runs)) for runs in found.values()]
    return {path: run for path, run in filter(None, best)}


def _best(runs: list[tuple[tuple[bool, bool, bool, str], Path]]) -> tuple[Path, Run] | None:
    """The last of runs in rising order, of those that can be read; None where none can."""
    rank, best = runs[-1]
    run = unless_unreadable(load_run, best)
    if run is None:
        return _best(runs[:-1]) if runs[:-1] else None
    newer = [path for (*_, created), path in runs if created > rank[-1]]
    if newer:
        passed = ", ".join(map(_label, newer))
        say(f"seqroof: {_label(best)} is used; newer, but partial or of another suite: {passed}")
    return best, run


def _facts(path: Path) -> tuple[tuple[object, ...], tuple[bool, bool, bool, str]] | None:
    """The computer of a run, and how much it says: claims' suite, complete, all kernels, date; None if torn."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        machine, points = data["machine"], data.get("points", [])
        computer = identity(machine["id"], Environment.model_validate(data["environment"]))
        planned = {case["kernel"] for case in cases(machine.get("device") or "cpu")}
        whole = planned <= {point["kernel"] for point in points}
        complete = data.get("state", "complete") == "complete"
        return computer, (data.get("suite") == SUITE, complete, whole, str(data.get("created", "")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _expected(path: Path) -> list[dict[str, Any]]:
    """The entries of a file of expectations: {"C1": "REFUTED"}, or an earlier `seqroof claims --json`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise Stop(f'--expect {path} cannot be read as JSON; write {{"C1": "REFUTED"}}.', Exit.USAGE) from error
    if not isinstance(data, dict):
        raise Stop(f'--expect {path} is JSON, but no object; write {{"C1": "REFUTED"}}.', Exit.USAGE)
    entries = data["claims"] if "claims" in data else [{"id": id, "verdict": word} for id, word in data.items()]
    known = {claim.id for claim in all_claims()}
    if not isinstance(entries, list) or not entries:
        raise Stop(f'--expect {path} names no claim; write {{"C1": "REFUTED"}}.', Exit.USAGE)
    for entry in entries:
        id, word = (entry.get("id"), entry.get("verdict")) if isinstance(entry, dict) else (entry, None)
        if id not in known or word not in WORDS:
            wanted = f"claims are {', '.join(sorted(known, key=_number))}, verdicts {', '.join(WORDS)}"
            raise Stop(f"--expect {path} expects {word!r} of {id!r}; {wanted}.", Exit.USAGE)
    return entries


def _number(id: str) -> int:
    return int(id.removeprefix("C"))


def _gate(found: Board, expected: list[dict[str, Any]]) -> Exit:
    """Hold the verdicts against what was expected: of each machine, or of the one that an entry names."""
    code = Exit.OK
    for entry in expected:
        of_machine = [v for v in found.claims if v.id == entry["id"] and entry.get("machine") in (None, v.machine)]
        if not of_machine:
            say(f"seqroof: {entry['id']} was expected {entry['verdict']} on {entry.get('machine')}, which has no run")
            code = Exit.GATE_FAILED
        for verdict in of_machine:
            if verdict.verdict != entry["verdict"]:
                where = f" on {verdict.machine}" if verdict.machine else ""
                say(f"seqroof: {verdict.id}{where} is {verdict.verdict}, {entry['verdict']} was expected")
                code = Exit.GATE_FAILED
    return code
