"""Verdicts: fractions, walls and status. The detectors have tests of their own in test_diagnoses.py."""

import pytest
from round_machine import ROUND, ceiling, point, timing, work

from seqroof.roofline.diagnoses import warn
from seqroof.roofline.verdict import judge


def ids(found):
    return {warning.id for warning in found.warnings}


def test_fractions_of_a_point_at_half_its_wall():
    found = judge(point(timing(200.0, 0.01)), ROUND)
    assert found.best_bound == found.bound == "dram"
    assert found.best_fraction.value == pytest.approx(0.5)
    assert found.best_fraction.low < 0.5 < found.best_fraction.high
    assert "best possible" in found.gap and "2.0 x" in found.gap
    assert found.status == "ok" and not found.warnings


def test_the_roofs_own_interval_widens_the_fraction():
    shaky = ROUND.model_copy(
        update={"ceilings": (ceiling("bandwidth", "dram", 100.0, low=50.0, high=100.0), *ROUND.ceilings[1:])}
    )
    assert judge(point(timing(200.0)), shaky).best_fraction.high == pytest.approx(0.75)


def test_faster_than_the_best_possible_is_invalid_and_never_a_percentage():
    found = judge(point(timing(80.0, 0.01)), ROUND)
    assert "above-a-physical-roof" in ids(found)
    assert found.status == "invalid" and found.best_fraction is None and found.roof_fraction is None
    assert "80.0 s" in found.reason


def test_within_the_slack_of_the_roof_is_a_point_at_its_wall():
    found = judge(point(timing(98.0, 0.01)), ROUND)
    assert found.status == "ok" and found.best_fraction.value == 1.0
    assert ids(found) == {"roof-uncertain"}
    assert "roof-uncertain" not in ids(judge(point(timing(98.0, 0.06)), ROUND)), "its own interval reaches the floor"


def test_a_noisy_point_at_its_roof_has_a_share_and_its_whole_interval():
    """10 % below the floor by its median, while its interval reaches the floor: no doubt, and at its roof."""
    found = judge(point(timing(90.0, 0.4)), ROUND)
    assert found.status == "ok" and not ids(found) & {"roof-uncertain", "above-a-physical-roof"}
    assert found.best_fraction.value == 1.0 and found.best_fraction.low == pytest.approx(100 / 108)
    assert found.best_fraction.high > 1.0


@pytest.mark.parametrize("median", range(60, 130, 3))
@pytest.mark.parametrize("width", [0.0, 0.05, 0.2, 0.6])
def test_a_share_is_missing_only_where_a_diagnosis_says_why(median, width):
    shaky = ROUND.model_copy(
        update={"ceilings": (ceiling("bandwidth", "dram", 100.0, low=90.0, high=100.0), *ROUND.ceilings[1:])}
    )
    found = judge(point(timing(float(median), width)), shaky)
    assert (found.best_fraction is None) == ("above-a-physical-roof" in ids(found)) == (found.status == "invalid")
    below = found.time_s.high < 100.0
    assert below == bool(ids(found) & {"roof-uncertain", "above-a-physical-roof"})


def test_the_classic_roof_has_the_uncertainty_of_its_own_ceiling():
    """Bound by steps that are known exactly; its bytes by a bandwidth that is not."""
    shaky = ROUND.model_copy(
        update={"ceilings": (ceiling("bandwidth", "dram", 100.0, low=50.0, high=100.0), *ROUND.ceilings[1:])}
    )
    found = judge(point(timing(400.0), work=work(depth=150)), shaky)
    assert found.bound == "serial" and found.attainable_fraction.high == pytest.approx(300 / 400)
    assert found.roof_fraction.high == pytest.approx(1.5 * 100 / 400)


def test_an_invalid_point_stays_invalid_when_judged_again():
    found = judge(judge(point(timing(80.0, 0.01)), ROUND), ROUND)
    assert found.status == "invalid" and len(found.warnings) == len(ids(found))


def test_a_larger_roof_measured_later_can_clear_or_condemn():
    first = judge(point(timing(80.0, 0.01)), ROUND)
    larger = ROUND.model_copy(update={"ceilings": (ceiling("bandwidth", "dram", 125.0), *ROUND.ceilings[1:])})
    assert judge(first, larger).status == "ok"


def test_warm_data_in_a_cache_is_explained_and_not_scored_against_dram():
    found = judge(point(timing(5.0), cache="warm", work=work(read=4000), clock="events"), ROUND)
    assert "fits-in-cache" in ids(found)
    assert found.status == "ok" and found.roof_fraction is None
    assert "fits-in-cache" not in ids(judge(point(timing(200.0)), ROUND))


def test_the_workers_own_warning_survives():
    changed = warn("output-changed-after-timing", detail="output 0 differs")
    found = judge(point(timing(200.0), status="invalid", warnings=(changed,)), ROUND)
    assert found.status == "invalid" and ids(found) == {"output-changed-after-timing"}


def test_a_graph_is_judged_by_the_latency_of_graph_nodes():
    nodes = ROUND.model_copy(update={"ceilings": (*ROUND.ceilings, ceiling("latency", "graph", 0.7, unit="s"))})
    assert judge(point(timing(200.0), clock="graph", cache="warm"), nodes).floors_s.serial == 0.7


def test_points_without_a_time_get_their_floors():
    found = judge(point(None, status="skipped", reason="no GPU"), ROUND)
    assert found.floors_s.dram == 100.0 and found.best_fraction is None and found.status == "skipped"
