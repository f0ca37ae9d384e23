"""The numbers of rows as short text: "1-3,7"."""

from __future__ import annotations

from collections.abc import Sequence


def ranges(numbers: Sequence[str]) -> str:
    """Join the numbers of rows, runs of neighbours shortened: "1-3,7". Letters in front are kept: "B1-3"."""
    parts: list[list[str]] = []
    for number in numbers:
        if parts and _follows(parts[-1][-1], number):
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(_range(part) for part in parts)


def _split(number: str) -> tuple[str, int]:
    digits = number.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return number[: len(number) - len(digits)], int(digits)


def _follows(before: str, after: str) -> bool:
    (run, number), (other, following) = _split(before), _split(after)
    return run == other and following == number + 1


def _range(part: Sequence[str]) -> str:
    if len(part) == 1:
        return part[0]
    return f"{part[0]},{part[1]}" if len(part) == 2 else f"{part[0]}-{_split(part[-1])[1]}"
