"""Progress on stderr: one live line on a terminal, plain lines in a pipe or on one that cannot rewrite a line."""

from __future__ import annotations

import os
import shlex
import sys
import time
from functools import cache
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from seqroof.roofline.record import Point

from .environment import LAUNCHER

# In a pipe, one line for so many groups at most, and one whenever a stage begins.
PLAIN_EVERY_S = 10.0
# Drawing takes a processor away from what is timed, for about a millisecond.
DRAWN_PER_S = 2


class Reporter:
    """Watches a session. Use as a context manager; silent when `quiet`.

    failures : tell of every case that failed as soon as it has, for long checks of which the table is far away.
    """

    def __init__(self, quiet: bool = False, failures: bool = False) -> None:
        self.failures = failures
        self.console = Console(stderr=True, quiet=quiet)
        self.live = self.console.is_terminal and not self.console.is_dumb_terminal and not quiet
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.live,
            refresh_per_second=DRAWN_PER_S,
        )
        self.task = self.progress.add_task("starting", total=None)
        self.total = 0
        self.done = 0
        self.started = time.monotonic()
        self.last_line = 0.0
        self.last_stage = ""

    def __enter__(self) -> Reporter:
        """Start the live line."""
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the live line."""
        self.progress.stop()

    def stage(self, text: str, detail: str = "") -> None:
        """Show what is going on outside the groups; in a pipe, once for all details of a stage."""
        self.progress.update(self.task, description=escape(f"{text}: {detail}" if detail else text))
        if not self.live and text != self.last_stage:
            self._line(text)
        self.last_stage = text

    def planned(self, groups: list[dict[str, Any]]) -> None:
        """Set the length of the bar, and begin it anew where another plan came before."""
        self.total, self.done, self.started = len(groups), 0, time.monotonic()
        self.progress.update(self.task, total=len(groups), completed=0)

    def group(self, index: int, group: dict[str, Any], detail: str) -> None:
        """Show the group and what is done with it."""
        sizes = ",".join(f"{name}={value}" for name, value in group["shape"].items())
        self.progress.update(
            self.task, description=escape(f"{group['kernel']} {group['dtype']} {sizes[:28]}  {detail}")
        )

    def finished(self, index: int, points: list[Point]) -> None:
        """Advance the bar; in a pipe, print a line now and then."""
        for point in points if self.failures else ():
            if point.status not in ("ok", "skipped"):
                case = f"{point.kernel} {point.implementation} {point.shape_text} {point.dtype} {point.direction}"
                self._line(f"{point.status}: {case}: {point.reason}")
        self.done += 1
        self.progress.update(self.task, completed=self.done)
        if not self.live and (time.monotonic() - self.last_line > PLAIN_EVERY_S or self.done == self.total):
            left_s = (time.monotonic() - self.started) / self.done * (self.total - self.done)
            self._line(f"{self.done} of {self.total} groups, about {left_s:.0f} s left")

    def _line(self, text: str) -> None:
        self.last_line = time.monotonic()
        self.console.print(f"seqroof: {text}", markup=False, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print a sentence on stderr."""
    print(text, file=sys.stderr)


@cache
def say_once(text: str) -> None:
    """Print a sentence on stderr, the first time that it is said; nothing for none."""
    if text:
        say(f"seqroof: {text}")


def typed(command: str) -> str:
    """A `seqroof ...` command as it can be typed here: scripts/profile puts no `seqroof` on the path, but has one."""
    launcher = os.environ.get(LAUNCHER)
    return f"{shlex.quote(launcher)}{command.removeprefix('seqroof')}" if launcher else command
