"""The comparisons of a page: complete layers of equal size side by side, and the claims with their verdicts.

Every function returns finished sentences and cells, so that the page and the Markdown say the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from . import claim_board, contrast
from ._view import clean, own_wall
from .claim_facts import BESIDE, COMPARED
from .claim_scaling import CATALOGUE
from .claim_verdict import WORDS, Verdict
from .claims import COMMAND, SUITE, all_claims
from .contrast import Equal, token_s
from .page_map import is_of_the_argument
from .page_run import letters
from .record import Run
from .units import percent, seconds, si
from .wording import Wording

# How the class of implementations that is compared is named, where its name alone says too little.
CLASS_WORDS = {"reference": "plain code", "torch": "the library", "triton": "Triton", "compile": "torch.compile"}
DIRECTIONS = {"forward": "forward pass", "backward": "gradients", "both": "training step"}
# Claims without a verdict are folded away when they are more than this share.
FOLDED = 0.5

Json = dict[str, Any]


def equal_intro(_: Wording) -> str:
    """What is compared in the tables of equal layers, and where their numbers come from."""
    return _(
        "Complete layers of one run with as many parameters, within 2 %, at the same batch, length, dtype and "
        "direction, all with warm caches. The implementations of one table are of one class. Rates are set beside the "
        "fastest. Measured, except steps (counted), walls and shares (modelled floors over measured times); “roof” is "
        "the share of the classic roofline, of compute and compulsory DRAM bytes alone. A wall in brackets is the "
        "highest floor of a time that is more than twice it."
    )


def layers(runs: Sequence[Run]) -> list[Equal]:
    """The groups of equal layers, run by run: layers of two runs are in no group, as their machines may differ."""
    return [
        replace(group, run=letter)
        for letter, run in zip(letters(runs), runs)
        for group in contrast.equal_layers(run.points)
    ]


def origin(group: Equal, _: Wording) -> str:
    """Where layers were measured, in front of what is said of them: "A, device 1: "; empty of a single device."""
    device = "" if group.device is None else _("device %(rank)s", rank=group.device)
    told = _(", ").join(filter(None, (group.run, device)))
    return f"{told}: " if told else ""


def equal(groups: Sequence[Equal], numbers: dict[int, str], _: Wording) -> list[Json]:
    """Classes of implementations with their groups of equal layers, each with a row for every layer.

    numbers : what a point is called on the charts, by its `id()`.
    """
    found = []
    for rows in sorted(dict.fromkeys(group.rows for group in groups), key=contrast.class_rank):
        mine = [group for group in groups if group.rows == rows]
        words = _(CLASS_WORDS.get(rows, rows))
        found.append({"rows": rows, "words": words, "groups": [_group(group, numbers, _) for group in mine]})
    return found


def _group(group: Equal, numbers: dict[int, str], _: Wording) -> Json:
    low, high = group.parameters
    fastest = min(token_s(point) for point in group.points)
    return {
        "title": origin(group, _)
        + _(
            "%(direction)s, B=%(B)s, T=%(T)s, %(dtype)s: %(count)s parameters each, within %(apart)s",
            direction=_(DIRECTIONS[group.direction]),
            B=group.B,
            T=group.T,
            dtype=clean(group.dtype),
            count=si(low, "").strip(),
            apart=percent(high / low - 1),
        ),
        "rows": [
            {
                "layer": _(contrast.NAMES[point.kernel]),
                "number": numbers.get(id(point), ""),
                "implementation": clean(point.implementation),
                "steps": point.steps,
                "time": seconds(token_s(point)),
                "rate": si(1 / token_s(point), "").strip(),
                "share": fastest / token_s(point),
                "wall": own_wall(point, _),
                "wall_class": point.bound or "",
                "machine": percent(point.best_fraction.value if point.best_fraction else None),
                "design": percent(point.attainable_fraction.value if point.attainable_fraction else None),
                "roof": percent(point.roof_fraction.value if point.roof_fraction else None),
                "energy": si(point.energy.per_token_j, "J") if point.energy and point.energy.per_token_j else "",
            }
            for point in group.points
        ],
    }


def no_equal(_: Wording) -> str:
    """Why there is no table of equal layers, with what makes one."""
    return _(
        "This run has no two complete layers of equal size, batch and length. What measures them: %(one)s, or the "
        "claims' own: %(two)s",
        one="seqroof contrast --measure",
        two=COMMAND,
    )


def board(runs: Sequence[Run], _: Wording) -> Json:
    """The verdicts on all claims from these runs; empty lists where none of them was made for any.

    claims : those to show at once; folded : those without a verdict, when they are most; counts : of each verdict.
    rows : the classes that verdicts rest on; otherwise, open : claims that the vendor's rows decide in another way, or
    not, where these rows do.
    """
    mine = [(label, run) for label, run in zip(letters(runs), runs) if is_of_the_argument(run)]
    empty: Json = {"claims": [], "folded": [], "counts": [], "all": 0, "rows": [], "otherwise": [], "open": []}
    if not mine:
        return empty
    verdicts = claim_board.board(mine)
    # The catalogue decides C3 whatever was run.
    if not any(run.suite == SUITE for _label, run in mine) and not any(
        entry.decided and entry.verdict != "INCONCLUSIVE" for entry in verdicts.claims if entry.machine != CATALOGUE
    ):
        return empty
    shown = [_claim(row, len(runs) > 1, _) for row in claim_board.rows(verdicts)]
    open_ones = [row for row in shown if row["verdict"] == "INCONCLUSIVE"]
    folded = open_ones if len(open_ones) > FOLDED * len(shown) else []
    counts = Counter(entry.verdict for entry in verdicts.claims)
    return {
        "claims": [row for row in shown if row not in folded],
        "folded": folded,
        "counts": [(word, counts[word]) for word in WORDS if counts[word]],
        "all": len(shown),
        "rows": list(dict.fromkeys(entry.rows for entry in verdicts.claims if entry.rows in COMPARED)),
        **_by_vendor(verdicts.claims),
    }


def _by_vendor(verdicts: Sequence[Verdict]) -> dict[str, list[str]]:
    """The claims that the vendor's rows decide otherwise, and those that they leave open, by their ids."""
    pairs = [(entry, line.verdict) for entry in verdicts for line in entry.beside if line.rows == BESIDE]
    differing = [(entry.id, word) for entry, word in pairs if word != entry.verdict]
    found = {
        name: [id for id, word in differing if (word == "INCONCLUSIVE") is (name == "open")]
        for name in ("otherwise", "open")
    }
    return {name: list(dict.fromkeys(ids)) for name, ids in found.items()}


def _claim(row: dict[str, Any], several: bool, _: Wording) -> Json:
    cells = {name: clean(text) for name, text in row.items()}
    where = f"{cells['run']}: {cells['machine']}" if cells["run"] else cells["machine"]
    claim = next(claim for claim in all_claims() if claim.id == row["id"])
    lines = (
        (_("needed"), clean(claim.filled(_(claim.test)))),
        (_("found"), cells["numbers"]),
        (_("compared"), cells["rows"]),
        (_("where"), cells["region"]),
        (_("beside"), cells["beside"]),
        (_("missing"), cells["missing"]),
        (_("rests on"), where if several else ""),
    )
    return {
        "id": cells["id"],
        "verdict": cells["verdict"],
        "word": _(cells["verdict"]),
        "claim": _(cells["claim"]),
        "source": _(cells["source"]),
        "lines": [(name, text) for name, text in lines if text],
    }


def no_claims(_: Wording) -> str:
    """Why there are no verdicts, with what makes them."""
    return _("No claim is decided by this run. What decides them: %(command)s", command=COMMAND)
