"""Profiles several devices at once, one per rank: `torchrun --nproc-per-node=4 -m seqroof.scripts.fleet profile ...`.

Every rank is a parent of its own: it has a worker, and a journal in OUT/rank-N. Ranks meet once, to start together, and
never wait for one another after that. `python -m seqroof.scripts.fleet --merge OUT` makes one record of the journals.
"""

from __future__ import annotations

import os
import shlex
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from seqroof.profiler import interruption, journal
from seqroof.profiler.host import usable_cores
from seqroof.profiler.lifeline import end_with_parent
from seqroof.profiler.request import Request
from seqroof.profiler.roofs import Roofs
from seqroof.profiler.session import Session
from seqroof.profiler.unused_gpu import passed_over
from seqroof.roofline.store import remove_leftovers, save

from . import main, measuring, merging, profile_verb, reading, run_folder
from .exits import Exit, Stop, exit_code, room_for
from .options import Typed
from .progress import Reporter, say, say_once

# torchrun ends the other ranks 30 s after the first has died. So long may the case in hand take ...
GRACE_S = 15.0
# ... and so long after that signal rank 0 waits for the others, before it merges what there is.
LAST_WAIT_S = 20.0
_LOOK_S = 0.5  # between two looks at who has ended

app = typer.Typer(name="fleet", add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@dataclass(frozen=True)
class Place:
    """Where torchrun has put this process: its rank among all, and among those of its host."""

    rank: int
    ranks: int
    local_rank: int
    local_ranks: int


def place() -> Place:
    """Read torchrun's environment; raises `Stop` with a sentence outside of it."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    try:
        return Place(*(int(os.environ[name]) for name in names))
    except (KeyError, ValueError) as error:
        command = "torchrun --nproc-per-node=4 -m seqroof.scripts.fleet profile --out FOLDER"
        raise Stop(f"A fleet is started by torchrun: {command}.", Exit.USAGE) from error


def share_of(cores: list[int], local_rank: int, local_ranks: int) -> tuple[list[int], bool]:
    """The cores of a rank, every n-th one, and whether it shares them, for want of enough, with another rank."""
    if local_ranks > len(cores):
        return [cores[local_rank % len(cores)]], True
    return cores[local_rank::local_ranks], False


def device_for(wanted: str, at: Place) -> str:
    """The device of this rank: a GPU of its own, or its share of the cores; raises `Stop` where GPUs are too few."""
    if wanted.startswith("cuda:"):
        raise Stop(f"--device {wanted} is one device, and every rank takes its own: --device cuda.", Exit.USAGE)
    if wanted == "cpu":
        return "cpu"
    import torch

    gpus = torch.cuda.device_count()  # asks the driver's library, and opens no device
    if not gpus:
        say_once(passed_over() if at.local_rank == 0 else "")
    if not gpus and wanted == "auto":
        return "cpu"
    if at.local_ranks > gpus:
        text = f"{at.local_ranks} ranks were started on a host with {gpus} GPU(s)"
        raise Stop(f"{text}; start one per GPU: --nproc-per-node={max(1, gpus)}.", Exit.NO_DEVICE)
    return f"cuda:{at.local_rank}"


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    merge: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Make one record of the journals in OUT.", show_default=False)
    ] = None,
) -> None:
    """Profile several devices at once, one per rank of torchrun."""
    if merge is not None:
        raise typer.Exit(int(_merged(merge)))
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def profile(
    out: Annotated[Path, typer.Option(help="Folder of the fleet.")],
    kernels: main.Kernels = None,
    suite: main.Suite = "quick",
    shape: main.Shape = None,
    dtype: main.Dtype = None,
    direction: main.Direction = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    implementation: Annotated[
        list[str] | None, typer.Option(help="Only these implementations.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Finish the fleet in --out.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the fleet in --out.")] = False,
    roofs: Annotated[Path | None, typer.Option(help="Use roofs measured before: a run, or a file of ceilings.")] = None,
    budget: Annotated[str | None, typer.Option(help="Time for each device: 60s, 5m.", show_default=False)] = None,
    rounds: Annotated[int | None, typer.Option(min=1, max=1000, show_default=False)] = None,
    counters: main.Counters = False,
    attribution: main.Attribution = None,
    deadline: main.Deadline = None,
    seed: main.Seed = 0,
) -> None:
    """Measure the same cases on the device of every rank; started by torchrun."""
    if resume and force:
        raise Stop("--resume keeps a fleet and --force replaces it; choose one.", Exit.USAGE)
    at = place()
    options = Typed(
        kernels=kernels,
        suite=suite,
        shape=shape,
        dtype=dtype,
        direction=direction,
        device=device,
        implementation=implementation,
        budget=budget,
        rounds=rounds,
        seed=seed,
        counters=counters,
        deadline=deadline,
        attribution=attribution,
    )
    request = profile_verb.request_of(options)
    together = _measure(replace(request, device=device_for(device, at)), at, out, resume, force, roofs)
    if at.rank == 0 and together:
        raise typer.Exit(int(_gather(out, at.ranks)))
    if at.rank == 0:
        say(f"seqroof: bring the folders rank-N of all hosts together, then: {_merge_command(out)}")
    # Any other exit code would make torchrun end the ranks that are still measuring.


def _measure(request: Request, at: Place, out: Path, resume: bool, force: bool, roofs: Path | None) -> bool:
    """Measure this rank's device; returns whether all ranks write into one folder."""
    # Nothing is measured before the start, and gloo, while it waits, lets no handler run.
    for number in interruption.SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    end_with_parent(os.getppid(), signal.SIGTERM)
    crowded = _settle_in(request.device, at)
    folder = run_folder.output_folder(merging.rank_folder(out, at.rank), "", resume, force)
    resume = resume and (folder / journal.NAME).exists()
    claim = run_folder.claimed(folder, resume)
    with Reporter(quiet=at.rank != 0) as reporter, measuring.open_worker(request.device) as supervisor:
        known = measuring.known_roofs(roofs, supervisor.opened["id"])
        session = Session(request, supervisor, reporter, Roofs(supervisor, reporter, known))
        measuring.planned(session)
        measuring.begin(session, claim, resume)
        if force and at.local_rank == 0:  # one on each host, for not all may see the folder of rank 0
            merging.forget(out, at.ranks)
        reporter.stage(f"waiting for {at.ranks} ranks")
        from seqroof.profiler import startline

        start = startline.meet(
            lambda token: merging.write_fleet(out, at.ranks, token),
            lambda token: merging.read_fleet(out).get("token") == token,
        )
        interruption.install()
        interruption.grant(GRACE_S)
        facts = {"host": start.host, "start_s": start.start_s, "clock_error_s": start.clock_error_s}
        session.started = time.monotonic()
        state = _measured(session, claim, facts | {"crowded": crowded}, None if start.shared else at.ranks, out)
    session.close(state)
    return start.together


def _measured(
    session: Session, claim: journal.Journal, facts: dict[str, Any], ranks_to_tell: int | None, out: Path
) -> str:
    """Measure; what ends a single run ends this rank, which says so in its journal where it can, and no other.

    facts : how this rank has started. ranks_to_tell : to leave in a folder that rank 0 does not see.
    """
    try:
        claim.write("start", facts)
        if ranks_to_tell is not None:
            merging.write_fleet(out, ranks_to_tell, 0)
        return measuring.measured(session)
    except (Stop, journal.JournalError) as stop:
        session.broken = f"had to stop: {stop}"
        say(f"seqroof: {stop}")
        return "interrupted"


def _settle_in(device: str, at: Place) -> bool:
    """Take this rank's share of the cores, for its worker too; says whether another rank has the same."""
    if not hasattr(os, "sched_setaffinity"):
        return at.local_ranks > 1
    mine, crowded = share_of(sorted(os.sched_getaffinity(0)), at.local_rank, at.local_ranks)
    os.sched_setaffinity(0, mine)
    os.environ["OMP_NUM_THREADS"] = str(usable_cores())  # torchrun has set it to 1
    if crowded and at.rank == 0:
        say(f"seqroof: {at.local_ranks} ranks are more than there are cores: their times are those of a contest")
    return crowded and device == "cpu"


def _gather(out: Path, ranks: int) -> Exit:
    """Wait until every rank has ended, and merge; after a signal wait no longer than torchrun leaves time for."""
    last_s, said = float("inf"), ""
    waiting = {rank: merging.Ending(merging.rank_folder(out, rank)) for rank in range(ranks)}
    while time.monotonic() < last_s:
        waiting = {rank: ending for rank, ending in waiting.items() if not ending.has_come()}
        if not waiting:
            break
        names = ", ".join(map(str, waiting))
        if names != said:
            say(f"seqroof: waiting for rank {names} of {ranks}")
            said = names
        told_s = interruption.since()
        last_s = float("inf") if told_s is None else told_s + LAST_WAIT_S
        time.sleep(_LOOK_S)
    return _merged(out)


def _merged(out: Path) -> Exit:
    """Merge a fleet's journals, write record and page, and show them; returns the exit code."""
    run = merging.merge(out)
    remove_leftovers(out)
    with room_for(out / "run.json", f"the journals hold everything: make room, then {_merge_command(out)}"):
        save(run, out)
    reading.write_pages(run, out)
    reading.show(run)
    say(f"\nWritten: {out}/run.json")
    if run.state == "interrupted":
        say("Not all devices are complete; finish them by the same torchrun command with --resume.")
    return exit_code([p.status for p in run.points], Exit.INTERRUPTED if run.state == "interrupted" else Exit.OK)


def _merge_command(out: Path) -> str:
    return f"python -m seqroof.scripts.fleet --merge {shlex.quote(str(out))}"


if __name__ == "__main__":
    main.run(app)
