"""C3: the growth of compute against that of bandwidth, by a catalogue."""

from __future__ import annotations

import claim_samples as samples
from claim_verdicts import one

from seqroof.roofline import generations
from seqroof.roofline.catalogue import machines


def test_growth_that_only_the_ratio_shows_decides_nothing():
    parts = []
    for index, part in enumerate(samples.catalogue(2.0, 1.7)):
        size = 6.0 if index in (1, 4) else 1.0  # a small part of that year is small in both
        roofs = tuple(roof.model_copy(update={"value": roof.value / size}) for roof in part.ceilings)
        parts.append(part.model_copy(update={"ceilings": roofs}))
    found = one("C3", None, tuple(parts))
    assert found.verdict == "INCONCLUSIVE" and "overlap" in found.missing[0]
    (over,) = (number for number in found.numbers if number.name.startswith("growth of FLOP/s over B/s per 2 years at"))
    assert (over.low or 0) > 1
    assert one("C3", None, samples.catalogue(2.0, 2.0)).verdict == "INCONCLUSIVE"
    assert "3 of 21" not in one("C3", None, samples.catalogue()).summary


def test_the_catalogue_of_today_shows_the_growth_and_tells_what_the_ratio_rests_on():
    found = one("C3", None, tuple(machines().values()))
    assert found.verdict == "SUPPORTED" and found.machine == "the catalogue" and not found.missing
    assert "one part per rate" in found.summary and "without mi8" in found.summary
    assert any(number.mark == "assumed" for number in found.numbers)


def test_without_the_parts_that_lack_matrix_units_the_growth_is_open():
    """docs/argument.md says so beside the growths."""
    lacking = {part.id for part in generations.parts(machines().values()) if "the vector units" in part.note}
    found = one("C3", None, tuple(part for part in machines().values() if part.id not in lacking))
    assert len(lacking) == 8 and found.verdict == "INCONCLUSIVE"
    assert found.missing[0].startswith("parts of more years") and "overlap" in found.missing[0]
