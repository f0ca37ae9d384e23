"""What a user asks a run to measure, as plain data that a journal can hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

# Time for a group outside the quick suite: 20 rounds of four rows or so.
FULL_GROUP_S = 6.0
# The most time for a group where a budget was named: a round, an eighteenth of it, stays far below the silence after
# which a worker counts as hung.
MOST_GROUP_S = 300.0


@dataclass
class Request:
    """What to profile. Empty lists mean the defaults: every kernel, the device's dtypes, the suite's shapes.

    axes : swept sizes, name -> values. cases : only these, each with `kernel` and any of `shape`, `dtype`, `direction`
        and `implementations`; empty for all of the suite. budget_s : seconds for the whole run, None for
        `group_s` per group, which is the most for a group in any case. deadline_s : the longest time for a case without
        news; None for what its kind of work may need. parts : whether parts of implementations are timed too.
    """

    kernels: list[str] = field(default_factory=list)
    suite: str = "quick"
    axes: dict[str, list[int]] = field(default_factory=dict)
    cases: list[dict[str, Any]] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    directions: list[str] = field(default_factory=lambda: ["forward"])
    device: str = "auto"
    implementations: list[str] = field(default_factory=list)
    compile: bool = False
    attribution: bool = False
    parts: bool = True
    budget_s: float | None = None
    group_s: float = FULL_GROUP_S
    rounds: int | None = None
    counters: bool = False
    seed: int = 0
    effort: str = "quick"
    deadline_s: float | None = None

    def identity(self) -> dict[str, Any]:
        """The part that must be equal for `--resume`: what is measured, not how long."""
        wanted = asdict(self)
        for name in ("budget_s", "group_s", "rounds", "counters", "effort", "deadline_s"):
            del wanted[name]
        return wanted


def key_of(group: dict[str, Any]) -> str:
    """The identity of a group."""
    sizes = ",".join(f"{name}={value}" for name, value in group["shape"].items())
    return f"{group['source']} {sizes} {group['dtype']} {group['direction']}"
