"""What SIGINT and SIGTERM do to a run: they end the measuring, never the keeping of what was measured.

The first signal raises KeyboardInterrupt where the code can bear it: not while a result is being written down, and not
while the record, its page and its table are made. The second ends the process and its workers at once. A rank of a
fleet asks for time instead (`grant`): the case in hand is finished first. Signals are taken by the main thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Process groups that must not outlive this process: those of its workers.
workers: set[int] = set()
_INTERRUPTED = 130  # the exit code of `scripts/exits.py`: 128 + SIGINT, as shells write it


@dataclass
class _State:
    """How often and when a signal came, how deep the shields are, whether one waits behind them, the time granted."""

    count: int = 0
    first: float | None = None
    shields: int = 0
    pending: bool = False
    grace_s: float = 0.0
    asked: bool = False


_state = _State()


def install() -> None:
    """Take over SIGINT and SIGTERM, and forget what came before."""
    vars(_state).update(vars(_State()))
    for number in SIGNALS:
        signal.signal(number, _on_signal)


def grant(grace_s: float) -> None:
    """From now on, let the first signal wait until `stop_if_asked` is called, at most so many seconds."""
    _state.grace_s = grace_s
    signal.signal(signal.SIGALRM, _on_alarm)


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Put off a signal until the block has ended."""
    _state.shields += 1
    try:
        yield
    finally:
        _state.shields -= 1
        if _state.pending and not _state.shields:
            _raise()


def hold() -> None:
    """Put off the first signal for the rest of the process; the second still ends it at once."""
    _state.shields += 1


def pending() -> bool:
    """Whether a signal waits behind a shield."""
    return _state.pending


def since() -> float | None:
    """When the first signal came, by the monotonic clock."""
    return _state.first


def stop_if_asked() -> None:
    """Raise KeyboardInterrupt where a signal was granted time."""
    if _state.asked:
        _state.asked = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        _raise()


def _raise() -> None:
    _state.pending = False
    raise KeyboardInterrupt


def _interrupt() -> None:
    if _state.shields:
        _state.pending = True
    else:
        _raise()


def _on_alarm(*_: object) -> None:
    if _state.asked:
        _state.asked = False
        _interrupt()


def _on_signal(*_: object) -> None:
    _state.count += 1
    _state.first = _state.first or time.monotonic()
    if _state.grace_s and _state.count == 1:
        _state.asked = True
        signal.setitimer(signal.ITIMER_REAL, _state.grace_s)
    elif _state.asked:  # impatient: the case in hand is given up, and the next signal ends everything
        _state.asked, _state.count = False, 1
        _interrupt()
    elif _state.count > 1:
        _end_at_once()
    else:
        _interrupt()


def _end_at_once() -> None:
    for pid in list(workers):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    if sys.stderr is not None and sys.stderr.isatty():
        os.write(2, b"\x1b[?25h")  # the live line hides the cursor
    os.write(2, b"seqroof: ended at once; what was finished is in the journal\n")
    os._exit(_INTERRUPTED)
