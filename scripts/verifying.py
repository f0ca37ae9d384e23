"""`seqroof verify`: every implementation checked, none timed, by several workers side by side."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace

from seqroof.profiler.host import usable_cores
from seqroof.profiler.request import Request
from seqroof.profiler.session import Session
from seqroof.profiler.supervisor import Refused, WorkerDied
from seqroof.profiler.verification import Verification
from seqroof.roofline.record import Point

from .exits import Exit, Stop
from .measuring import open_worker, planned, why_no_worker
from .progress import Reporter, say

# Workers that check side by side, each on a core of its own; each takes about half a gigabyte.
MOST_CHECKERS = 4


@dataclass(frozen=True)
class Checked:
    """What a verification found, all of it unless it was `interrupted`. kind : of the device."""

    points: list[Point]
    kind: str
    interrupted: bool = False


def verify(request: Request, long: bool, part: tuple[int, int] = (1, 1)) -> Checked:
    """Check every implementation without timing it; Triton on a CPU runs interpreted, on small odd shapes.

    part : (2, 8) for the second of eight parts of the groups.
    """
    started = time.monotonic()
    more = "-long" if long else ""
    with Reporter(failures=True) as reporter:
        found = _verify(replace(request, suite=f"checked{more}"), reporter, part)
        if found.kind == "cpu":
            points = [point for point in found.points if not point.implementation.startswith("triton")]
            found = replace(found, points=points)
            if not found.interrupted:
                odd = replace(request, suite=f"interpreted{more}", device="cpu")
                rest = _verify(odd, reporter, part, interpret=True)
                found = replace(rest, points=points + rest.points)
    ended = ", interrupted before the others" if found.interrupted else ""
    say(f"seqroof: checked {len(found.points)} cases in {time.monotonic() - started:.0f} s{ended}")
    return found


def _verify(request: Request, reporter: Reporter, part: tuple[int, int], interpret: bool = False) -> Checked:
    """Check one suite, in workers that share the cores among them."""
    reporter.stage("starting the worker")
    workers = min(usable_cores(), MOST_CHECKERS)
    threads = usable_cores() // workers
    with ExitStack() as stack:
        supervisors = [stack.enter_context(open_worker(request.device, interpret, threads)) for _ in range(workers)]
        kind = supervisors[0].opened["kind"]
        sessions = [Session(request, supervisor, reporter) for supervisor in supervisors]
        groups = planned(sessions[0])[part[0] - 1 :: part[1]]
        for supervisor in supervisors:
            supervisor.code = sessions[0].code
        reporter.planned(groups)
        options = {"only": "triton", "mark": "ok (interpreted)"} if interpret else {}
        check = Verification(sessions, groups, **options)
        try:
            return Checked(check.run(), kind)
        except KeyboardInterrupt:
            return Checked(check.points, kind, interrupted=True)
        except (WorkerDied, Refused) as death:
            why = why_no_worker(death)
            if not check.points:
                raise Stop(f"This verification {why}.", Exit.NO_DEVICE) from death
            say(f"seqroof: this verification {why}; what was checked is kept")
            return Checked(check.points, kind, interrupted=True)
