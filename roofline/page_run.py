"""What a page says of a run as a whole: when and how much was measured, and in which environment."""

from __future__ import annotations

from collections.abc import Sequence

from ._view import clean, run_letter
from .record import Run
from .wording import Wording


def summary(run: Run, _: Wording) -> str:
    """Threads, date, suite, how many points and how long, as one sentence."""
    measured = sum(point.status == "ok" for point in run.points)
    took = _(" in %(seconds)s s", seconds=f"{run.duration_s:.0f}") if run.duration_s is not None else ""
    state = "" if run.state == "complete" else _(" Interrupted: what was measured is kept.")
    suite = _("suite %(name)s, ", name=run.suite) if run.suite else ""
    count = _("%(ok)s of %(all)s points measured", ok=measured, all=len(run.points))
    threads = _("%(count)s threads, ", count=run.environment.threads) if run.environment.threads else ""
    day, _t, time = run.created.partition("T")
    return clean(f"{threads}{day} {time[:5]} UTC, {suite}{count}{took}" + _(".") + state)


def environment(run: Run, _: Wording) -> list[tuple[str, str]]:
    """Versions, clocks, command, commit and seed: (name, value); names are those of the record."""
    fields = run.environment.model_dump()
    clocks = fields.pop("clocks")
    facts = [(name.replace("_", " "), value) for name, value in fields.items() if value not in ("", None)]
    facts += [(f"clock {name}", value) for name, value in clocks.items() if value is not None]
    facts += [
        ("command", run.command),
        ("commit", run.commit or _("not recorded")),
        ("tool", run.tool),
        ("seed", run.seed),
    ]
    return [(clean(name), clean(str(value))) for name, value in facts]


def letters(runs: Sequence[Run]) -> list[str]:
    """What the runs of a page are called: A, B, ...; nothing where there is one only."""
    return [run_letter(index) if len(runs) > 1 else "" for index in range(len(runs))]


def prefixes(runs: Sequence[Run]) -> list[str]:
    """What stands in front of what is said of a run: "A: "; nothing where there is one only."""
    return [f"{letter}: " if letter else "" for letter in letters(runs)]


def labels(runs: Sequence[Run]) -> list[str]:
    """What tells several runs apart: letter, machine where there are several, suite and time of day (UTC)."""
    several = len({run.machine.name for run in runs}) > 1
    return [
        clean(" ".join(filter(None, (f"{run_letter(i)}:", run.machine.name * several, run.suite, run.created[11:16]))))
        for i, run in enumerate(runs)
    ]


def title(runs: Sequence[Run]) -> str:
    """The machines of a page; of several runs of one machine, the runs too."""
    names = list(dict.fromkeys(clean(run.machine.name) for run in runs))
    told = f" ({'; '.join(labels(runs))})" if len(names) == 1 < len(runs) else ""
    return "; ".join(names) + told
