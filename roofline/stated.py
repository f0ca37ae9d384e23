"""What was measured beside what is stated: the driver's or system's own figures, and the vendor's.

Percentages are against measured roofs; the other columns show how far a measurement is from what a datasheet promises.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ._view import clean
from .machine import Ceiling, Provenance
from .units import percent, si
from .wording import ENGLISH, Wording

TITLES = ("limit", "measured", "derived", "stated", "share")
NOTE = (
    "Derived: from bus width, clocks and units that the driver or the operating system reports; stated: the vendor's "
    "datasheet unless marked; share: measured over stated, or over derived where nothing is stated. Percentages of "
    "points are against what was measured."
)
_COLUMNS: tuple[tuple[Provenance, ...], ...] = (
    ("measured", "replayed"),
    ("derived",),
    ("datasheet", "published", "assumed", "modelled"),
)


@dataclass(frozen=True)
class Beside:
    """One limit: the most favourable measured, derived and stated ceiling, None where there is none."""

    name: str
    measured: Ceiling
    derived: Ceiling | None
    stated: Ceiling | None

    @property
    def share(self) -> float:
        """Measured over stated, or over derived where nothing is stated."""
        other = self.stated or self.derived
        assert other is not None
        return self.measured.value / other.value

    def cells(self, _: Wording = ENGLISH) -> tuple[str, ...]:
        """Texts in the order of `TITLES`."""
        pattern = f", {clean(self.measured.pattern)}" if self.measured.quantity == "bandwidth" else ""
        texts = (*(_text(limit, _) for limit in (self.measured, self.derived, self.stated)), percent(self.share))
        return (self.name + pattern, *texts)


def side_by_side(ceilings: Iterable[Ceiling]) -> list[Beside]:
    """All limits of a whole device that were measured and are also derived or stated."""
    groups: dict[tuple[str, str, str], list[Ceiling]] = {}
    for ceiling in ceilings:
        if not ceiling.scope:
            groups.setdefault((ceiling.level, ceiling.quantity, ceiling.dtype), []).append(ceiling)
    found = []
    for (level, quantity, dtype), members in groups.items():
        if quantity == "bandwidth" and dtype:  # a product streams through the same memory as a copy
            continue
        measured, derived, stated = (_best(members, provenances) for provenances in _COLUMNS)
        if measured and (derived or stated):
            name = " ".join(clean(part) for part in (level, quantity, dtype) if part)
            found.append(Beside(name, measured, derived, stated))
    return found


def _best(ceilings: Iterable[Ceiling], provenances: tuple[Provenance, ...]) -> Ceiling | None:
    """The most favourable; of derived ones, those of the device itself come before those of its catalogue row."""
    found = [ceiling for ceiling in ceilings if ceiling.provenance in provenances]
    own = [ceiling for ceiling in found if ceiling.pattern in ("driver", "knee")] or found
    if not own:
        return None
    return (min if own[0].quantity == "latency" else max)(own, key=lambda ceiling: ceiling.value)


def _text(ceiling: Ceiling | None, _: Wording) -> str:
    if ceiling is None:
        return "-"
    mark = (
        f" ({_(ceiling.provenance)})" if ceiling.provenance in ("published", "assumed", "modelled", "replayed") else ""
    )
    return si(ceiling.value, ceiling.unit) + mark
