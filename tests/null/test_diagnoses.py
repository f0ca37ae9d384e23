"""The closed list: every entry fires where it should, keeps quiet where it must, and is as severe as it may be."""

import re
from pathlib import Path

import pytest
import samples
from diagnosis_cases import CASES, QUIET_ROUNDS, RESTLESS, RISING, ROUNDED, device, raw
from round_machine import ROUND, ceiling, point, timing, work

from seqroof.roofline import _steps, export
from seqroof.roofline.clock_doubts import disturbed
from seqroof.roofline.configuration import configuration_doubts, held_to
from seqroof.roofline.diagnoses import CLOSED_LIST, warn
from seqroof.roofline.instrument import instrument
from seqroof.roofline.steadiness import trend
from seqroof.roofline.store import load
from seqroof.roofline.telemetry import Spread, Telemetry
from seqroof.roofline.verdict import judge, with_launch_tax

RESULTS = Path(__file__).resolve().parents[2] / "results"
# All that may take a number out of every percentage: it cannot be true, or it is not known of what or by what it was
# measured. Everything else is a warning.
MAY_BE_INVALID = {"above-a-physical-roof", "output-changed-after-timing", "another-device", "no-clock-left"}
MAY_BE_INVALID |= {"slower-on-new-data", "unfinished-work", "measuring-code-replaced", "clock-contradicted"}


def ids(told):
    """The entries that a case tells: of warnings, or at the beginnings of printed lines."""
    if isinstance(told, str):
        return set(re.findall(r"^([a-z-]+): ", told, re.MULTILINE))
    return {warning.id for warning in told}


def doubts(*arguments, machine=ROUND, **changes):
    return {warning.id: warning for warning in judge(point(*arguments, **changes), machine).warnings}


def test_every_entry_has_its_cases_and_no_case_is_of_another_list():
    assert set(CASES) == set(CLOSED_LIST), "an entry of the closed list needs a line in tests/diagnosis_cases.py"


@pytest.mark.parametrize("name", CLOSED_LIST)
def test_it_fires(name):
    assert name in ids(CASES[name].fires())


@pytest.mark.parametrize("name", CLOSED_LIST)
def test_it_keeps_quiet(name):
    assert name not in ids(CASES[name].quiet())


def test_only_a_few_entries_make_a_measurement_invalid():
    assert {name for name, entry in CLOSED_LIST.items() if entry.severity == "invalid"} <= MAY_BE_INVALID


@pytest.mark.parametrize("name", CLOSED_LIST)
def test_an_entry_says_cause_and_advice(name):
    assert CLOSED_LIST[name].cause and CLOSED_LIST[name].advice


def test_an_unknown_entry_is_an_error():
    with pytest.raises(KeyError):
        warn("no-such-diagnosis")


def test_a_trend_is_told_from_noise_and_keeps_its_sign():
    assert trend(RISING) > 2.6 and trend(RISING[::-1]) < -2.6
    assert abs(trend(RESTLESS)) < 2.0 and abs(trend(QUIET_ROUNDS)) < 2.0
    assert trend([1.0] * 9) == 0.0 and trend([1.0, 2.0]) == 0.0


def test_noise_that_does_not_drift_seldom_seems_to():
    """A thousand series of lognormal rounds, 15 % wide: by chance at most 1 % may be called drifting."""
    import random

    source = random.Random(5)
    rounds = [[200 * source.lognormvariate(0, 0.15) for _ in range(12)] for _ in range(1000)]
    found = sum("drifting" in doubts(timing(200.0, 0.02, series)) for series in rounds)
    assert 0 < found <= 10


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        (device(300.0, streams=2), "2 streams"),
        (device(300.0, streams=1), "lower clock"),
        (device(100.0) | {"host_s": timing(200.0)}, "bound by launches"),
        (device(100.0), "idles between kernels"),
        (device(190.0) | {"host_s": timing(100.0)}, "did not wait"),
        (raw(300.0), "slewed"),
        (raw(200.0, busy_share=1.5, busy_error=0.2), "150 %"),
    ],
)
def test_a_disagreement_names_its_likely_cause(changes, cause):
    assert cause in doubts(timing(200.0), **changes)["two-clocks-disagree"].cause


@pytest.mark.parametrize(
    "changes",
    [
        raw(210.0, busy_share=1.0),
        raw(200.0, busy_share=1.5, busy_error=0.5),
        raw(None),
        device(None),
        device(235.0),
        device(170.0),
    ],
)
def test_clocks_that_are_near_or_missing_agree(changes):
    assert "two-clocks-disagree" not in doubts(timing(200.0), **changes)


def test_gaps_between_many_launches_are_no_disagreement():
    """Forty launches of 2 s latency each: events hold 78 s that no kernel fills."""
    chain = device(120.0, launches=200, records=200)
    assert "two-clocks-disagree" not in doubts(timing(200.0), **chain)
    assert "two-clocks-disagree" in doubts(timing(300.0), **chain)


def test_lost_records_make_no_second_clock():
    found = doubts(timing(200.0), **device(20.0, records=1))
    assert set(found) == {"profiler-lost-events"} and "4 of 5" in found["profiler-lost-events"].cause
    uncounted = doubts(timing(200.0), **device(190.0, launches=None))
    assert not uncounted, "a graph does not tell how many kernels it starts"


def test_a_faster_unit_excuses_strict_fp32_only_and_only_as_far_as_it_goes():
    products = {"machine": ROUNDED, "work": work(matmul_flops=1_000_000)}
    assert set(doubts(timing(60.0), **products)) == {"faster-unit"}
    assert set(doubts(timing(40.0), **products)) == {"above-a-physical-roof"}
    assert set(doubts(timing(40.0), dtype="tf32", **products)) == {"above-a-physical-roof"}
    unrounded = ROUND.model_copy(update={"ceilings": ROUNDED.ceilings[:2]})
    assert "above-a-physical-roof" in doubts(timing(60.0), **(products | {"machine": unrounded}))


def test_a_chain_of_launches_at_its_wall_is_not_called_launch_bound_twice():
    slow = ROUND.model_copy(update={"ceilings": (*ROUND.ceilings[:6], ceiling("latency", "launch", 150.0, unit="s"))})
    by_host = {"clock": "events", "host_s": timing(400.0)}
    assert judge(point(timing(200.0), **by_host), slow).bound == "serial"
    assert "launch-bound" not in doubts(timing(200.0), machine=slow, **by_host)


@pytest.mark.parametrize(
    ("graph_s", "cause"),
    [
        (100.0, "200 s when its kernels are launched one by one, 100 s when a graph"),
        (300.0, "by the graph"),
        (190.0, ""),
    ],
)
def test_a_graph_is_held_against_events(graph_s, cause):
    points = [judge(point(timing(t), cache="warm", clock=c), ROUND) for t, c in ((200.0, "events"), (graph_s, "graph"))]
    events, graph = with_launch_tax(points)
    assert cause in "".join(doubt.cause for doubt in events.warnings) and bool(events.warnings) == bool(cause)
    assert not graph.warnings and len(with_launch_tax([judge(events, ROUND), graph])[0].warnings) == bool(cause)


def test_another_stream_is_not_taken_for_launching():
    found = doubts(timing(200.0), host_s=timing(400.0), **device(390.0, streams=2))
    assert "two-clocks-disagree" in found and "launch-bound" not in found


def test_noise_names_other_work_where_it_was_seen():
    busy = raw(200.0, waiting_share=0.3)
    assert "30 % of the time" in doubts(timing(200.0, 0.3), **busy)["noisy"].cause
    assert "of the time" not in doubts(timing(200.0, 0.3), **raw(200.0, waiting_share=0.001))["noisy"].cause


def test_a_call_of_a_few_dispatches_is_remarked_on_a_processor():
    fast = point(timing(8.0), work=point().work.model_copy(update={"terms": ()}))
    assert "4.0 x the latency of one dispatched operation" in judge(fast, ROUND).gap
    assert "dispatch" not in judge(point(timing(200.0)), ROUND).gap


def test_a_resumed_point_is_held_to_what_is_installed_now():
    old = point(timing(200.0), compiler={"triton": "3.6.0", "algorithm_derived": "standard"})
    assert held_to({"triton": "3.6.0"}, old).warnings == ()
    (doubt,) = held_to({"triton": "3.9.0"}, held_to({"triton": "3.9.0"}, old)).warnings
    assert doubt.id == "configuration-differs" and "3.6.0, now 3.9.0" in doubt.cause


def test_reports_show_the_second_clock():
    seen = judge(point(timing(200.0), **device(190.0)), ROUND).model_copy(update={"headline": True})
    run = samples.run(points=(seen, judge(point(timing(200.0), **raw(200.0)), ROUND)))
    assert "device records (torch.profiler) 190 s, 5 of 5 kernels recorded" in export.markdown(run)
    assert export.markdown(run).count("## Second clocks") == 1 and "raw host clock" not in export.markdown(run)
    header, first, *_ = export.csv(run).splitlines()
    assert dict(zip(header.split(","), first.split(",")))["second_clock_s"] == "190.0"
    assert "device records" in _steps.records_text(seen)
    assert ("second clock", "raw host clock 200 s (measured)") in run.points[1].facts()


def test_versions_are_told_once_for_two_runs():
    base, new = (samples.run(points=(point(timing(1.0), compiler={"triton": v}),)) for v in ("3.6.0", "3.9.0"))
    same = base.environment.model_copy(update={"triton": "3.6.0"})
    newer = base.environment.model_copy(update={"triton": "3.9.0"})
    found = configuration_doubts(
        base.model_copy(update={"environment": same}), new.model_copy(update={"environment": newer})
    )
    assert [doubt.cause for doubt in found] == ["configured otherwise than recorded: triton: 3.6.0, now 3.9.0"]


# Honest kernels may carry a diagnosis on so many of their points.
HONEST_SHARE = 0.02
NOISE = {"noisy", "drifting"}
# Looks are few beside the samples, so where so many points show a disturbed machine, the others were disturbed too.
RESTLESS_SHARE = 0.1


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/*/run.json")), ids=lambda path: path.parent.name)
def test_honest_kernels_are_seldom_doubted(path):
    """Recorded runs, judged by today's rules. Noise counts unless clocks other than that of the kernel show that the
    machine was disturbed; runs from before those were recorded are held to everything but noise."""
    run = load(path)
    from_before = not any(found.second_clock for found in run.points)
    judged = [judge(found, run.machine) for found in run.points if found.time_s]
    restless = sum(map(disturbed, judged)) > RESTLESS_SHARE * len(judged)
    doubted = [
        found.key
        for found in judged
        if {w.id for w in found.warnings} - (NOISE if from_before or restless or disturbed(found) else set())
    ]
    assert len(doubted) <= HONEST_SHARE * len(judged), doubted


@pytest.mark.parametrize(("swing", "told"), [(1.19, False), (1.21, True)])
def test_a_processor_that_changes_its_pace_explains_noise(swing, told):
    pace = Telemetry(samples=9, pace_s=Spread(median=5e-5, low=5e-5, high=5e-5 * swing))
    noisy = judge(point(timing(200.0, 0.3), telemetry=pace), ROUND)
    (doubt,) = [doubt for doubt in noisy.warnings if doubt.id == "noisy"]
    assert disturbed(noisy) is told
    assert (f"a fixed loop took {swing:.2f} x as long at times as at others" in doubt.cause) is told
    (doubted,) = [found for found in instrument([noisy]) if found.id == "doubts"]
    assert f"a fixed loop took {swing:.2f} x" in doubted.text and doubted.numbers["disturbed"] == told


def test_a_run_counts_its_doubts_and_names_who_held_the_processors():
    quiet, loud = (
        judge(point(timing(200.0, w), **raw(200.0, waiting_share=s)), ROUND) for w, s in ((0.0, 0), (0.3, 0.4))
    )
    clocks, doubted = instrument([quiet, loud])
    assert clocks.numbers == {"median": 0.0, "most": 0.0, "lost": 0}
    assert "1 of 2 times carry a diagnosis (noisy 1); others held the processors 20 % of the time" in doubted.text
    assert doubted.numbers["disturbed"] == 1 and instrument([]) == []
