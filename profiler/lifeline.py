"""Makes a process end with its parent, even while it is deep in a kernel and even when the parent was killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

# prctl(2), option 1: the signal that a process gets when the thread that made it ends. Linux only; elsewhere a worker
# ends when it next reads its closed standard input.
_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Ask for a signal when the parent is gone; `parent` is the process id that it had when this one was started."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call above
        os.kill(os.getpid(), number)
