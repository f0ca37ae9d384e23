"""Exit codes, and the exception that ends a command with a sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import IntEnum


class Exit(IntEnum):
    """What the exit code of a command means."""

    OK = 0
    GATE_FAILED = 1
    USAGE = 2
    WRONG_RESULT = 3
    NO_DEVICE = 4
    INVALID_POINT = 5
    CASE_FAILED = 6
    INTERRUPTED = 130


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
