"""Verdicts and detectors: each detector in a case where it must fire and in one where it must not."""

import pytest
from round_machine import ROUND, ceiling, point, timing, work

from seqroof.roofline.diagnoses import CLOSED_LIST, warn
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


def test_noise():
    assert "noisy" in ids(judge(point(timing(200.0, 0.3)), ROUND))
    assert "noisy" not in ids(judge(point(timing(200.0, 0.05)), ROUND))


def test_drift():
    assert "drifting" in ids(judge(point(timing(200.0, 0.02, [190, 191, 200, 201, 215, 216])), ROUND))
    assert "drifting" not in ids(judge(point(timing(200.0, 0.02, [199, 201, 200, 200, 201, 199])), ROUND))


def test_too_short_for_the_clock():
    short = {"work": work(read=0), "weights": "kept", "chain": "inside"}
    fast = ROUND.model_copy(update={"ceilings": (ceiling("latency", "inside", 1e-9, unit="s"),)})
    assert "too-short-for-the-clock" in ids(judge(point(timing(2e-6), **short), fast))
    assert "too-short-for-the-clock" not in ids(judge(point(timing(2e-3), **short), fast))
    assert "too-short-for-the-clock" not in ids(judge(point(timing(2e-6), cache="warm", **short), fast))


def test_launch_bound():
    slow_host = {"clock": "events", "host_s": timing(400.0)}
    assert "launch-bound" in ids(judge(point(timing(200.0), **slow_host), ROUND))
    assert "launch-bound" not in ids(judge(point(timing(200.0), clock="events", host_s=timing(210.0)), ROUND))


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


def test_every_entry_of_the_closed_list_says_cause_and_advice():
    for name, entry in CLOSED_LIST.items():
        assert entry.cause and entry.advice, name
    with pytest.raises(KeyError):
        warn("no-such-diagnosis")
