"""Straight lines through points, with intervals: exponents of times, growth by year. Plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .record import Fraction
from .stats import CONFIDENCE, student


@dataclass(frozen=True)
class Line:
    """A least-squares line through points of which the errors of y are taken as independent and equally large.

    x, y : the middle of the points. slope : with its 95 % interval by Student's t. count : how many points there are.
    square : the sum of squared distances of the xs from their middle.
    """

    x: float
    y: float
    slope: Fraction
    count: int
    square: float

    def at(self, x: float) -> Fraction:
        """The height of the line at x with its 95 % interval: where the mean of such points lies, not a single one."""
        half_slope = self.slope.high - self.slope.value
        half = half_slope * math.sqrt(self.square / self.count + (x - self.x) ** 2)
        value = self.y + self.slope.value * (x - self.x)
        return Fraction(value=value, low=value - half, high=value + half)


def line(xs: Sequence[float], ys: Sequence[float]) -> Line:
    """The line through points.

    Raises `ValueError` where fewer than three points or a single x leave no line.
    """
    count = len(xs)
    if count < 3 or len(set(xs)) < 2:
        raise ValueError(f"a line with an interval needs three points at two places; there are {count}")
    mean_x, mean_y = sum(xs) / count, sum(ys) / count
    square = sum((x - mean_x) ** 2 for x in xs)
    value = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys)) / square
    rest = sum((y - mean_y - value * (x - mean_x)) ** 2 for x, y in zip(xs, ys))
    half = student(count - 2, (1 + CONFIDENCE) / 2) * math.sqrt(rest / (count - 2) / square)
    return Line(mean_x, mean_y, Fraction(value=value, low=value - half, high=value + half), count, square)


def slope(xs: Sequence[float], ys: Sequence[float]) -> Fraction:
    """The slope of the line through points with its 95 % interval; raises as `line` does."""
    return line(xs, ys).slope


def exponent(sizes: Sequence[float], times_s: Sequence[Fraction]) -> Fraction:
    """The power of the size with which a time grows, with its interval: 1 for a time in proportion.

    The interval holds that of the line through the times and the flattest and steepest lines that their own allow.
    """
    xs = [math.log(size) for size in sizes]
    middle = sum(xs) / len(xs)
    fitted = slope(xs, [math.log(time.value) for time in times_s])
    flattest = slope(xs, [math.log(time.high if x < middle else time.low) for x, time in zip(xs, times_s)])
    steepest = slope(xs, [math.log(time.low if x < middle else time.high) for x, time in zip(xs, times_s)])
    return Fraction(value=fitted.value, low=min(fitted.low, flattest.value), high=max(fitted.high, steepest.value))


def between(size: float, other: float, times: Fraction) -> Fraction:
    """The power of the size with which a time grows from one to the other; times : the later over the earlier one."""
    apart = math.log(other / size)
    value, low, high = (math.log(ratio) / apart for ratio in (times.value, times.low, times.high))
    return Fraction(value=value, low=low, high=high)


def power(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The power of the size with which exact values grow; 0 where they stay."""
    return slope([math.log(size) for size in sizes], [math.log(value) for value in values]).value


def growth(years: Sequence[float], values: Sequence[float], over: float) -> Fraction:
    """The factor by which values grow in `over` years, with its interval."""
    rate = slope(years, [math.log(value) for value in values])
    return Fraction(value=math.exp(over * rate.value), low=math.exp(over * rate.low), high=math.exp(over * rate.high))
