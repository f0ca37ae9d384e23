"""Exit codes, the exception that ends a command with a sentence, and how a command is run and ended."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any

from seqroof.profiler import interruption


class Exit(IntEnum):
    """What the exit code of a command means."""

    OK = 0
    GATE_FAILED = 1
    USAGE = 2
    WRONG_RESULT = 3
    NO_DEVICE = 4
    INVALID_POINT = 5
    CASE_FAILED = 6
    INTERNAL = 70  # EX_SOFTWARE of sysexits.h
    INTERRUPTED = 130
    READER_GONE = 141  # what a shell says of a program that SIGPIPE ended


# When several apply, the first of these is the exit code.
PRECEDENCE = (
    Exit.USAGE,
    Exit.NO_DEVICE,
    Exit.INTERRUPTED,
    Exit.WRONG_RESULT,
    Exit.CASE_FAILED,
    Exit.INVALID_POINT,
    Exit.GATE_FAILED,
    Exit.OK,
)

_OF_STATUS = {
    "wrong": Exit.WRONG_RESULT,
    "crashed": Exit.CASE_FAILED,
    "hung": Exit.CASE_FAILED,
    "oom": Exit.CASE_FAILED,
    "invalid": Exit.INVALID_POINT,
}


INTERNAL_ERROR = (
    "seqroof: this is a fault of seqroof itself, and no verdict about anything that was measured. Please report it, "
    "with the command and the lines below, where you have seqroof from. A run that was begun is kept: `--resume` with "
    "its folder as --out finishes it."
)


class Stop(Exception):
    """Ends a command: the text goes to stderr, `code` to the shell."""

    def __init__(self, text: str, code: Exit) -> None:
        super().__init__(text)
        self.code = code


@contextlib.contextmanager
def room_for(what: object, advice: str) -> Iterator[None]:
    """End the command with a sentence where a file cannot be written; advice : what to do, without a full stop."""
    try:
        yield
    except OSError as error:
        raise Stop(f"{what} cannot be written ({error.strerror}); {advice}.", Exit.NO_DEVICE) from error


def exit_code(statuses: list[str], *more: Exit) -> Exit:
    """The exit code of a run from the statuses of its points, and other codes that apply."""
    found = {_OF_STATUS.get(status, Exit.OK) for status in statuses} | set(more) | {Exit.OK}
    return next(code for code in PRECEDENCE if code in found)


def run(app: Callable[[], Any]) -> None:
    """Run a command; every expected failure ends in one sentence and its exit code, any other in one of its own."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that knows ASCII only gets question marks, no traceback
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # Whoever ends this process politely gets the same as with Ctrl-C: workers are ended, results are kept.
    interruption.install()
    try:
        code = _called(app)
    except Stop as stop:
        print(f"seqroof: {stop}", file=sys.stderr)
        code = int(stop.code)
    except KeyboardInterrupt:
        print("seqroof: interrupted", file=sys.stderr)
        code = int(Exit.INTERRUPTED)
    except Exception:
        print(INTERNAL_ERROR, file=sys.stderr)
        traceback.print_exc()
        code = int(Exit.INTERNAL)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = code or int(Exit.READER_GONE)
    if code == Exit.READER_GONE:  # what is left to print goes nowhere, without a complaint when this process ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    sys.exit(code)


def _called(app: Callable[[], Any]) -> int:
    """Run a command; returns its exit code, and that of a reader such as head that went before all was printed.

    Typer and rich end with 1 then, which would be a gate that failed.
    """
    try:
        app()
    except SystemExit as end:
        context = end.__context__
        while context is not None:
            if isinstance(context, BrokenPipeError):
                return int(Exit.READER_GONE)
            context = context.__context__
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BrokenPipeError:
        return int(Exit.READER_GONE)
    return int(Exit.OK)
