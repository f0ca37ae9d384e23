"""The short answer of a page: which floors are highest, what the claims came to and on what rows, and the LSTM beside.

Every function returns finished sentences, so that the page and the Markdown say the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from . import contrast
from ._view import WALL_NAMES, Row, clean
from .contrast import Equal, token_s
from .instrument import pace_swings, waiting_shares
from .page_claims import CLASS_WORDS, origin
from .page_points import short_sizes
from .page_run import prefixes
from .record import WALLS, Run
from .stats import median
from .units import percent
from .walls import holds
from .wording import Wording

# Layers that an LSTM is held against, and how many classes of a run are told: the library and our own.
BESIDE_LSTM = ("transformer_block", "gated_conv_block", "gated_conv")
MOST_CLASSES = 2

Json = dict[str, Any]


def answer(runs: Sequence[Run], rows: Sequence[Row], groups: Sequence[Equal], board: Json, _: Wording) -> list[str]:
    """The short answer of these runs, in sentences. board : of `page_claims`."""
    charted = [row for row in rows if row.number]
    texts = [_where(charted, _)] if charted else [_("Nothing was measured in this run.")]
    texts += [_claims(board, _)] if board["counts"] else []
    texts += [*_lstm_beside(groups, _), *(text for index in range(len(runs)) if (text := _doubts(runs, index, _)))]
    return [clean(text) for text in texts]


def _doubts(runs: Sequence[Run], index: int, _: Wording) -> str:
    """How many times of a run carry a diagnosis, and how long others held the processors; empty without times."""
    timed = [point for point in runs[index].points if point.time_s is not None]
    if not timed:
        return ""
    text = prefixes(runs)[index] + _(
        "Doubts: %(doubted)s of %(timed)s times carry a diagnosis",
        doubted=sum(bool(point.warnings) for point in timed),
        timed=len(timed),
    )
    if waits := waiting_shares(timed):
        text += _(
            "; others held the processors %(median)s of the time in the median case, %(worst)s in the worst (measured)",
            median=percent(median(waits)),
            worst=percent(max(waits)),
        )
    if swings := pace_swings(timed):
        text += _(
            "; a fixed loop took %(median)s x as long at times as at others in the median case, %(worst)s x in the "
            "worst (measured)",
            median=f"{median(swings):.2f}",
            worst=f"{max(swings):.2f}",
        )
    return text + _(".")


def _claims(board: Json, _: Wording) -> str:
    """How many claims came to which verdict, on what rows, and which of them the library's rows see otherwise."""
    text = _(
        "Of %(all)s claims: %(told)s",
        all=board["all"],
        told=_(", ").join(f"{count} {_(word)}" for word, count in board["counts"]),
    )
    if board["rows"]:
        rows = _(" and ").join(_(CLASS_WORDS[rows]) for rows in board["rows"])
        text += _("; where times are compared, those of %(rows)s", rows=rows)
    if board["otherwise"]:
        text += _("; the library's rows decide %(claims)s otherwise", claims=_(", ").join(board["otherwise"]))
    if board["open"]:
        text += _("; the library's rows leave %(claims)s open", claims=_(", ").join(board["open"]))
    return text + _(".")


def _where(charted: Sequence[Row], _: Wording) -> str:
    """Which floor is the highest of the headline points, how many come near it, and which is nearest to the machine."""
    counts = Counter(row.point.bound for row in charted if row.point.bound)
    near = sum(holds(row.point) for row in charted)
    first = max(charted, key=lambda row: row.point.best_fraction.value if row.point.best_fraction else 0.0)
    nearest = first.point
    if not counts or nearest.best_fraction is None:
        return _("%(count)s points were measured.", count=len(charted))
    text = _(
        "The highest of the four floors (modelled) of the %(count)s points of the chart: %(walls)s. %(near)s of them "
        "run at half of that floor's speed or better",
        count=len(charted),
        walls=_(", ").join(f"{_(WALL_NAMES[wall])} {counts[wall]}" for wall in WALLS if counts[wall]),
        near=near,
    )
    if near < len(charted):
        text += _("; for the others that floor is less than half of the measured time")
    return text + _(
        ". The nearest to the machine's limit, at %(share)s of it, is point %(number)s: %(kernel)s %(name)s %(case)s.",
        share=percent(nearest.best_fraction.value),
        number=first.number,
        kernel=nearest.kernel,
        name=nearest.implementation,
        case=f"{short_sizes(nearest.shape)} {nearest.dtype} {nearest.direction}",
    )


def _lstm_beside(groups: Sequence[Equal], _: Wording) -> list[str]:
    """How long an LSTM takes per token beside layers of equal size, forward: a sentence for each class of rows.

    Of every run the first few, which in a fleet are those of its first device.
    """
    found: dict[str, list[str]] = {group.run: [] for group in groups}
    kinds = dict.fromkeys((group.run, group.device, group.rows) for group in groups)
    for kind in sorted(kinds, key=lambda kind: kind[1] or 0):
        run, _device, rows = kind
        mine = [g for g in groups if (g.run, g.device, g.rows) == kind and g.direction == "forward"]
        texts = [text for other in BESIDE_LSTM if (text := _ends(mine, other, _))]
        if texts:
            found[run].append(
                origin(mine[0], _)
                + _(
                    "Per token (forward, as many parameters, %(rows)s, measured), an LSTM takes %(told)s.",
                    rows=_(CLASS_WORDS.get(rows, rows)),
                    told=_("; ").join(texts),
                )
            )
    return [text for texts in found.values() for text in texts[:MOST_CLASSES]]


def _ends(groups: Sequence[Equal], other: str, _: Wording) -> str:
    """The largest and the smallest ratio of an LSTM to another layer with their sizes; empty where there is none."""
    ratios = sorted(
        ((ratio, group) for group in groups if (ratio := _ratio(group, other))), key=lambda entry: -entry[0]
    )
    told = [
        _("%(ratio)s (B=%(B)s, T=%(T)s, %(dtype)s)", ratio=f"{ratio:.2f}", B=group.B, T=group.T, dtype=group.dtype)
        for ratio, group in [*ratios[:1], *ratios[1:][-1:]]
    ]
    layer = _(contrast.NAMES[other])
    return _("%(times)s times as long as the %(layer)s", times=_(" and ").join(told), layer=layer) if told else ""


def _ratio(group: Equal, other: str) -> float | None:
    times = {point.kernel: token_s(point) for point in group.points}
    return times["lstm"] / times[other] if "lstm" in times and other in times else None
