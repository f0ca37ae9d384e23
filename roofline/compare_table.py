"""Prints a comparison of two runs: what changed first, under headings that hold what the rows have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from . import _terminal, _view
from .compare import Comparison, Comparisons
from .ratio import Ratio, Verdict
from .run_noise import describe
from .units import percent, seconds

if TYPE_CHECKING:
    from rich.console import Console

# The reading order of a gate: what fails it, what can be celebrated, what is open, what is no news.
VERDICTS: tuple[Verdict, ...] = ("SLOWER", "FASTER", "AMBIGUOUS", "SAME")
STYLES = {"SLOWER": "red", "FASTER": "green", "AMBIGUOUS": "yellow", "SAME": "dim"}
_RIGHT = (False, False, False, True, True, False)
_REASONS = 12  # points left out that are named one by one; the rest is counted, and all are in --json


def render(made: Comparisons, console: Console, notes: Sequence[str] = (), everything: bool = False) -> None:
    """Print verdicts, points that could not be compared, and the overall ratio. notes : sentences about the set-up."""
    _terminal.say(
        console,
        f"Ratio: new over base time (measured), below 1 is faster. SAME is within ±{percent(made.band)}. "
        f"{_view.clean(describe(made.noise))}",
        "dim",
    )
    for note in notes:
        _terminal.say(console, _view.clean(note), "yellow")
    for ruling in VERDICTS:
        members = [comparison for comparison in made.found if comparison.verdict == ruling]
        news = [comparison for comparison in members if everything or _is_news(comparison, made.band)]
        if members and (news or ruling == "AMBIGUOUS"):
            seem = "" if len(news) == len(members) else f", {len(news)} of them beyond the band so far"
            _terminal.title(console, f"{ruling}: {_points(len(members))}{seem}")
            _rows(news, console)
        if ruling == "AMBIGUOUS":
            _advices(members, console)
    _left_out(made, console)
    _summary(made, console, everything)


def _is_news(comparison: Comparison, band: float) -> bool:
    """Whether a point changed, or seems to: the others are no more than counted."""
    beyond = not 1 / (1 + band) <= comparison.ratio.value <= 1 + band
    return comparison.verdict in ("SLOWER", "FASTER") or (comparison.verdict == "AMBIGUOUS" and beyond)


def _points(count: int) -> str:
    return f"{count} point{'' if count == 1 else 's'}"


def _rows(members: Sequence[Comparison], console: Console) -> None:
    by_point = {id(comparison.point): comparison for comparison in members}
    wrapped = [_view.Row("", 0, comparison.point) for comparison in members]
    sections = _view.sections(wrapped)
    lines = [[_cells(by_point[id(row.point)], sizes) for row, sizes in rows] for _, rows in sections]
    widths = [max(map(len, column)) for column in zip(*(cells for group in lines for cells in group))]
    for (heading, _), group in zip(sections, lines):
        _terminal.say(console, _view.clean(heading), "bold cyan")
        for cells in group:
            _terminal.row(console, [_view.encodable(cell, console.encoding) for cell in cells], widths, _RIGHT, 2)


def _cells(comparison: Comparison, sizes: str) -> list[str]:
    point, ratio = comparison.point, comparison.ratio
    time = seconds(point.time_s.median) if point.time_s else "-"
    names = (_view.clean(text) for text in (point.implementation, point.dtype))
    return ["  " + _view.clean(sizes), *names, time, f"{ratio.value:.3f}", interval(ratio)]


def interval(ratio: Ratio) -> str:
    """The interval of a ratio: "[0.991, 1.012]"."""
    return f"[{ratio.low:.3f}, {ratio.high:.3f}]" if ratio.low is not None and ratio.high is not None else "no interval"


def _advices(members: Iterable[Comparison], console: Console) -> None:
    """Advice that many points share, once each; the number of rounds as the range that it has."""
    kinds = Counter(_kind(comparison.advice) for comparison in members)
    rounds = sorted(int(comparison.advice.split()[1]) for comparison in members if _kind(comparison.advice) == "rounds")
    for kind, count in kinds.most_common():
        if kind == "rounds":
            _terminal.say(
                console,
                f"{_points(count)}: --rounds {rounds[len(rounds) // 2]} would decide half of them, "
                f"--rounds {rounds[-1]} all.",
                indent=2,
            )
        else:
            _terminal.say(console, f"{_points(count)}: {_view.clean(kind)}.", indent=2)


def _kind(advice: str) -> str:
    return "rounds" if advice.startswith("about ") else advice


def _left_out(made: Comparisons, console: Console) -> None:
    if made.left_out:
        _terminal.title(console, f"Not compared: {_points(len(made.left_out))}")
    for left in made.left_out[:_REASONS]:
        _terminal.say(console, f"{_view.clean(left.point.key)}: {_view.clean(left.why)}", indent=2)
    if len(made.left_out) > _REASONS:
        _terminal.say(console, f"and {len(made.left_out) - _REASONS} more; --json names them all", indent=2)


def _summary(made: Comparisons, console: Console, everything: bool) -> None:
    counts = Counter(comparison.verdict for comparison in made.found)
    told = ", ".join(f"{counts[ruling]} {ruling}" for ruling in VERDICTS if counts[ruling])
    console.print()
    _terminal.say(console, f"{_points(len(made.found))}: {told or 'nothing that both runs measured'}.", "bold")
    if made.overall is not None and made.verdict is not None:
        _terminal.say(
            console,
            f"Overall (geometric mean): {made.overall.value:.3f} {interval(made.overall)} {made.verdict}.",
            STYLES[made.verdict],
        )
    if not everything and (made.hidden or counts["SAME"] or counts["AMBIGUOUS"]):
        more = f", and {_points(made.hidden)} with the other cache state or clock" if made.hidden else ""
        _terminal.say(console, f"--all also lists points in which nothing seems to have changed{more}.", "dim")
