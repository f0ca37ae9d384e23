"""The small languages of the command line: sizes and sweeps, dtypes, durations."""

from __future__ import annotations

import math
import re

from .exits import Exit, Stop

DTYPES = {"fp32": "fp32", "float32": "fp32", "float": "fp32", "tf32": "tf32", "fp16": "fp16", "float16": "fp16"}
DTYPES |= {"half": "fp16", "bf16": "bf16", "bfloat16": "bf16"}
# A sweep of more values is almost certainly a typing error.
MOST_VALUES = 1000
# Combinations of sizes. With four dtypes and three directions so many make 12 000 groups; planned, they take up to
# 5 ms and 21 kB each (`encoder_decoder`), just within a worker's longest silence and the longest line of an answer.
MOST_SHAPES = 1000

_SYNTAX = "write sizes as B=1:64:x2,T=128|512,H=768 (a value, a list a|b, a range a:b:xk or a:b:+k)"


def _usage(text: str) -> Stop:
    return Stop(text, Exit.USAGE)


def parse_shape(texts: list[str]) -> dict[str, list[int]]:
    """Read `B=1:64:x2,T=128|512,H=768` into values by size; raises `Stop` with a sentence."""
    axes: dict[str, list[int]] = {}
    for part in ",".join(texts).split(","):
        if not part.strip():
            continue
        name, equals, values = part.strip().partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name) or not values:
            raise _usage(f"--shape: {part.strip()!r} is no size; {_SYNTAX}.")
        if name in axes:
            raise _usage(f"--shape: {name} is given twice; give several values as {name}=1|2.")
        axes[name] = [value for piece in values.split("|") for value in _values(name, piece)]
    if texts and not axes:
        raise _usage(f"--shape is empty; {_SYNTAX}.")
    shapes = math.prod(map(len, axes.values()))
    if shapes > MOST_SHAPES:
        swept = " x ".join(f"{len(values)} values of {name}" for name, values in axes.items() if len(values) > 1)
        raise _usage(f"--shape: {swept} are {shapes} shapes, and {MOST_SHAPES} are the most; use larger steps.")
    return axes


def _values(name: str, piece: str) -> list[int]:
    if match := re.fullmatch(r"-?[0-9]+", piece):
        return [_positive(name, int(piece))]
    match = re.fullmatch(r"([0-9]+):([0-9]+):([x+])([0-9]+)", piece)
    if not match:
        raise _usage(f"--shape: {name}={piece} cannot be read; {_SYNTAX}.")
    first, last, step = _positive(name, int(match[1])), int(match[2]), int(match[4])
    if last < first:
        raise _usage(f"--shape: the range {name}={piece} is empty; its second number must not be below the first.")
    if step < (2 if match[3] == "x" else 1):
        raise _usage(f"--shape: the range {name}={piece} never ends; use a larger step.")
    values = []
    while first <= last and len(values) <= MOST_VALUES:
        values.append(first)
        first = first * step if match[3] == "x" else first + step
    if len(values) > MOST_VALUES:
        raise _usage(f"--shape: the range {name}={piece} has more than {MOST_VALUES} values; use a larger step.")
    return values


def _positive(name: str, value: int) -> int:
    if value < 0:
        raise _usage(f"--shape: {name}={value} is negative; sizes are whole numbers from 1 on.")
    return value


def parse_dtypes(texts: list[str]) -> list[str]:
    """Read `fp32,bfloat16` into the names of the record; raises `Stop` with a sentence."""
    names = [name.strip() for name in ",".join(texts).split(",") if name.strip()]
    for name in names:
        if name not in DTYPES:
            raise _usage(f"There is no dtype {name!r}; dtypes are fp32, tf32, fp16 and bf16 (or the names torch uses).")
    return list(dict.fromkeys(DTYPES[name] for name in names))


def one_case(dtype: str, direction: str = "forward") -> tuple[str, str]:
    """The only dtype and direction that a verb is about; raises `Stop` with a sentence for none or several."""
    dtypes, directions = parse_dtypes([dtype]), parse_directions([direction])
    if len(dtypes) != 1 or len(directions) != 1:
        raise _usage("This takes one dtype and one direction, such as --dtype bf16 --direction forward.")
    return dtypes[0], directions[0]


def parse_duration(text: str | None) -> float | None:
    """Read `90`, `60s`, `5m` or `1h` into seconds; raises `Stop` with a sentence."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h)?", text.strip())
    if not match or float(match[1]) <= 0:
        raise _usage(f"{text!r} is no duration; write it as 60s, 5m or 1h.")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, None: 1}[match[2]]


def parse_part(text: str | None) -> tuple[int, int]:
    """Read `2/8`, the second of eight parts, into (2, 8); raises `Stop` with a sentence."""
    if text is None:
        return 1, 1
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise _usage(f"{text!r} is no part; write 2/8 for the second of eight.")
    return int(match[1]), int(match[2])


def parse_directions(texts: list[str]) -> list[str]:
    """Read `forward,both`; raises `Stop` with a sentence."""
    names = [name.strip() for name in ",".join(texts).split(",") if name.strip()]
    for name in names:
        if name not in ("forward", "backward", "both"):
            raise _usage(
                f"There is no direction {name!r}; directions are forward, backward and both (one training step)."
            )
    return list(dict.fromkeys(names)) or ["forward"]


def check_device(text: str) -> str:
    """Accept auto, cpu, cuda and cuda:N; raises `Stop` with a sentence."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise _usage(f"There is no device {text!r}; devices are auto, cpu and cuda:N.")
    return text
