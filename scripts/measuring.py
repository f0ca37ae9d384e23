"""The verbs that measure: profile and ceilings."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from seqroof.profiler import claim_time, interruption, journal
from seqroof.profiler.calibration import Calibration
from seqroof.profiler.ceiling_store import RoofStore
from seqroof.profiler.clock import MOST_ROUNDS
from seqroof.profiler.request import Request
from seqroof.profiler.roofs import Roofs
from seqroof.profiler.session import Session
from seqroof.profiler.supervisor import Refused, Supervisor, WorkerDied
from seqroof.roofline.claims import SUITE
from seqroof.roofline.extras import installing
from seqroof.roofline.machine import Machine
from seqroof.roofline.next_command import repeatable
from seqroof.roofline.record import Run
from seqroof.roofline.store import remove_products, save

from . import reading
from .against import refuse_other_machine
from .exits import Exit, Stop, exit_code, room_for
from .progress import Reporter, say, say_once, typed
from .run_folder import RUNS, TOOL, claimed, commit, earlier_events, output_folder
from .stored_noise import with_noise

CEILINGS = RUNS / "ceilings"
# The quick suite must end within a minute on two cores, its start and its report included.
QUICK_BUDGET_S = 42.0
# The suite of the claims takes seven minutes or so on two cores; on a slower machine its groups get less time each, so
# that it ends within eight, its start and its report included.
CLAIMS_BUDGET_S = 400.0


def open_worker(device: str, interpret: bool = False, threads: int | None = None) -> Supervisor:
    """Start a worker on a device; raises `Stop` with a sentence when it cannot be had. threads : as in `Supervisor`."""
    supervisor = Supervisor(device, interpret, threads)
    try:
        supervisor.start()
    except Refused as refusal:
        raise Stop(str(refusal), Exit.NO_DEVICE) from refusal
    except WorkerDied as death:
        hint = f" (is torch installed? {installing('run')})" if "No module named" in str(death) else ""
        raise Stop(f"The worker process did not start: {death}{hint}.", Exit.NO_DEVICE) from death
    say_once(supervisor.opened.get("unused_gpu", ""))
    return supervisor


def planned(session: Session) -> list[dict[str, Any]]:
    """The plan of a session; a wrong request ends the command with a sentence."""
    try:
        return session.plan()
    except Refused as refusal:
        raise Stop(str(refusal), Exit.USAGE) from refusal
    except WorkerDied as death:
        raise Stop(f"A kernel file ended the worker when it was loaded: {death}.", Exit.USAGE) from death


def known_roofs(path: Path | None, machine_id: str) -> Machine | None:
    """Roofs measured earlier, from a run or from `seqroof ceilings`; refuses those of another machine."""
    if path is None:
        return None
    machine = reading.read_machine(path)
    if machine.id != machine_id:
        raise Stop(f"{path} holds the roofs of {machine.id}; this machine is {machine_id}.", Exit.NO_DEVICE)
    return machine


def profile(
    request: Request,
    out: Path | None,
    resume: bool,
    force: bool,
    roofs: Path | None = None,
    base: Run | None = None,
    fresh_roofs: bool = False,
) -> tuple[Run, Path, Exit]:
    """Run a profile; returns the record, its folder and the exit code so far. Keeps everything when interrupted."""
    if resume and force:
        raise Stop("--resume keeps a run and --force replaces it; choose one.", Exit.USAGE)
    if resume and out is None:
        raise Stop("--resume needs the folder of the run to finish: --out FOLDER --resume.", Exit.USAGE)
    # A folder that was named is claimed before a worker is started.
    claim = claimed(output_folder(out, "", resume, force), resume) if out is not None else None
    if roofs is not None:
        reading.read_machine(roofs)
    with Reporter() as reporter:
        reporter.stage("starting the worker")
        with open_worker(request.device) as supervisor:
            known, store = known_roofs(roofs, supervisor.opened["id"]), RoofStore(CEILINGS, fresh_roofs)
            session = Session(request, supervisor, reporter, Roofs(supervisor, reporter, known, store))
            planned(session)
            refuse_other_machine(base, supervisor.opened)
            claim = claim or claimed(output_folder(None, supervisor.opened["torch_device"], resume, force), resume)
            folder = claim.path.parent
            begun = begin(session, claim, resume)
            state = measured(session)
            run = with_noise(
                session.record(state, command_line(), begun["commit"], begun["created"], TOOL, advice(request))
            )
    keep(run, folder, session, state)
    code = exit_code([point.status for point in run.points], Exit.INTERRUPTED if state == "interrupted" else Exit.OK)
    return run, folder, code


def keep(run: Run, folder: Path, session: Session, state: str) -> None:
    """Write the record of a session that has ended, and let go of its journal whatever becomes of that."""
    try:
        if not folder.exists():
            say(f"seqroof: {folder} was removed while this run went on, and its journal with it; what is known is kept")
        advice = f"its journal holds everything: make room, then finish it with {resume_command(folder)}"
        with room_for(folder / "run.json", advice):
            folder.mkdir(parents=True, exist_ok=True)
            save(run, folder)
    finally:
        session.close(state)


def begin(session: Session, claim: journal.Journal, resume: bool) -> dict[str, str]:
    """Begin the journal, or take it up; returns when and by which commit the run was begun."""
    events = earlier_events(claim, session) if resume else []
    created = datetime.now(UTC).isoformat(timespec="seconds")
    facts = {"command": repeatable(sys.argv[1:]), "created": created, "commit": commit()}
    with room_for(claim.path, "make room, and repeat the command"):
        if not events:  # what --force replaces must not stand beside a journal that is not its own
            remove_products(claim.path.parent)
        try:
            session.open_journal(claim, events, **facts, tool=TOOL, advice=advice(session.request))
        except journal.Unreadable as error:
            raise Stop(str(error), Exit.USAGE) from error
        except journal.JournalError as error:
            raise Stop(str(error), Exit.NO_DEVICE) from error
    header = next((data for kind, data in events if kind == "header"), {})
    return {name: header.get(name, facts[name]) for name in ("created", "commit")}


def measured(session: Session) -> Literal["complete", "interrupted"]:
    """Measure, and say whether all of it was; a signal after this waits until the results are written and shown."""
    try:
        session.run()
        return "complete"
    except KeyboardInterrupt:
        return "interrupted"
    except journal.JournalError as error:
        raise Stop(str(error), Exit.NO_DEVICE) from error
    except (WorkerDied, Refused) as death:
        session.broken = why_no_worker(death)
        if not session.points:
            raise Stop(f"This run {session.broken}.", Exit.NO_DEVICE) from death
        say(f"seqroof: this run {session.broken}; what was measured is kept")
        return "interrupted"
    finally:
        interruption.hold()


def why_no_worker(death: WorkerDied | Refused) -> str:
    """Why no worker goes on, as the end of a sentence: none can be had, or none may take up what was begun."""
    reason = str(death).rstrip(".")
    if isinstance(death, Refused) and death.kind != "DeviceError":
        return f"could not go on with a new worker ({reason})"
    return f"lost its worker, which could not be replaced ({reason})"


def advice(request: Request) -> str:
    """How to measure longer, given the flags already in use."""
    if request.rounds:
        return f"--rounds {2 * request.rounds}"
    if request.budget_s and request.suite != "quick":
        return f"--budget {2 * request.budget_s:.0f}s"
    return f"--rounds {2 * MOST_ROUNDS}"  # an unsteady case has had up to half of that


def command_line() -> str:
    """The command as typed, without the paths of this machine."""
    return shlex.join(["seqroof", *(Path(word).name if word.startswith("/") else word for word in sys.argv[1:])])


def resume_command(folder: Path) -> str:
    """The command that finishes the run in a folder."""
    return f"{typed(repeatable(sys.argv[1:]))} --out {shlex.quote(str(folder))} --resume"


def say_written(run: Run, folder: Path) -> None:
    """Name the files of a run that was shown, and where not all of it was measured, the command that finishes it."""
    say(f"\nWritten: {folder}/run.json" + (", report.html, roofline.svg" if (folder / "report.html").exists() else ""))
    if run.state == "interrupted":
        say(f"Interrupted, so what is shown is not all; finish it with: {resume_command(folder)}")


def final_code(code: Exit) -> Exit:
    """The exit code of a command whose run has been shown: a signal that came meanwhile counts too."""
    return exit_code([], code, Exit.INTERRUPTED if interruption.pending() else Exit.OK)


def dry_run(request: Request) -> list[dict[str, Any]]:
    """The plan alone."""
    with open_worker(request.device) as supervisor, Reporter(quiet=True) as reporter:
        return planned(Session(request, supervisor, reporter))


def about_s(request: Request, groups: list[dict[str, Any]]) -> float | None:
    """About how long a run of the claims' suite takes on a processor; None for what nobody has fitted."""
    whole = request.suite == SUITE and not request.cases and request.rounds is None
    if not whole or any(group["kind"] != "cpu" for group in groups):
        return None
    fair_s = request.group_s if request.budget_s is None else 0.5 * request.budget_s / max(1, len(groups))
    return claim_time.about_s(groups, min(request.group_s, fair_s))


def measure_ceilings(device: str, effort: str, show: Callable[[Machine], None]) -> None:
    """Measure the roofs of a device, show them, and then store them; a sentence where they are not all, or cannot be.

    Those of a measurement that was cut short are shown and not stored, for a later run would take them for all.
    """
    with Reporter() as reporter, open_worker(device) as supervisor:
        calibration, roofs = Calibration(supervisor), Roofs(supervisor, reporter)
        try:
            calibration.look("start")
            whole = roofs.measure(effort)
        except (WorkerDied, Refused) as death:
            if not roofs.ceilings:
                text = f"No roof was measured, as the worker died: {death}. See `seqroof doctor`."
                raise Stop(text, Exit.NO_DEVICE) from death
            whole = False
    machine, look = roofs.machine(), calibration.looks.get("start")
    show(machine)
    for finding in roofs.findings():
        say(f"seqroof: {finding.text}")
    if not whole:
        raise Stop("These roofs are shown, but not kept, as some are missing; measure them again.", Exit.CASE_FAILED)
    with room_for(CEILINGS, "what is shown was measured, but not kept: repeat it in a folder that can be written"):
        RoofStore(CEILINGS).keep(supervisor.opened["roof_identity"], effort, look, machine)
