"""Who is blamed when a worker dies in a group, and what is kept of those that were timed by then."""

import pytest
import stand_in_worker
from scripted import Scripted, begun, session, statuses, whole

from seqroof.profiler.stages import AFTERTHOUGHTS, REFERENCE
from seqroof.profiler.supervisor import WorkerDied


def died(status="oom"):
    return WorkerDied(status, "ended by the system")


def group(**changes):
    return stand_in_worker.group(1) | changes


def run(tmp_path, *script, request=None, **changes):
    made = session(tmp_path, Scripted(*script))
    made.groups = [group(**changes)]
    for name, value in (request or {}).items():
        setattr(made.request, name, value)
    made.run()
    made.close("complete")
    return made


@pytest.mark.parametrize("stage", [REFERENCE, f"{REFERENCE}, again", f"{REFERENCE}, neighbours, 2"])
def test_the_checkers_own_reference_is_nobodys_fault(tmp_path, stage):
    made = run(tmp_path, [begun("", stage), died()])
    assert statuses(made) == {"reference": "oom", "torch": "oom"} and len(made.supervisor.asked) == 1
    assert all("the float64 reference of this shape failed" in point.reason for point in made.points)


def test_an_implementation_called_reference_is_blamed_for_itself(tmp_path):
    made = run(tmp_path, [begun("", REFERENCE), begun("reference"), died("crashed")], whole("torch"))
    assert statuses(made) == {"reference": "crashed", "torch": "ok"}
    assert "float64" not in made.points[0].reason


@pytest.mark.parametrize("stage", ["prepare", "prepare cold host, 1", "check again", "check again, 3"])
def test_whose_turn_it_is_is_blamed(tmp_path, stage):
    made = run(tmp_path, [begun("torch", stage), died()], whole("reference"))
    assert statuses(made) == {"torch": "oom", "reference": "ok"}


def test_who_dies_while_several_take_turns_shows_one_by_one(tmp_path):
    made = run(tmp_path, [begun("", "time, 7"), died()], [begun("", "time"), died()], whole("torch"))
    assert made.supervisor.asked == [("reference", "torch"), ("reference",), ("torch",)]
    assert statuses(made) == {"reference": "oom", "torch": "ok"}


def timed(*names, cache="cold"):
    return [event | {"cache": cache} for event in whole(*names) if event["event"] == "point"]


def test_who_dies_when_memory_is_measured_costs_nobody_elses_times(tmp_path):
    script = [*timed("reference", "torch"), begun("torch", "memory warm host"), died("crashed")]
    made = run(tmp_path, script, request={"attribution": True})
    assert [(point.implementation, point.status) for point in made.points] == [
        ("reference", "ok"),
        ("torch", "crashed"),
    ]
    assert made.supervisor.asked == [("reference", "torch")]
    assert reasons(made, "reference")["attribution"] == "ended by the system"


def reasons(made, name):
    (point,) = [point for point in made.points if point.implementation == name]
    parts = next((w.cause for w in point.warnings if w.id == "parts-not-measured"), "")
    return {
        "parts": parts,
        "attribution": point.attribution.reason if point.attribution else "",
        "energy": point.energy.reason if point.energy else "",
    }


def test_what_was_not_told_when_the_worker_was_lost_says_why(tmp_path):
    script = [*timed("reference", "torch", cache="warm"), begun("reference", "parts, 2"), died("crashed")]
    made = run(tmp_path, script, request={"attribution": True}, sequence=True)
    assert statuses(made) == {"reference": "ok", "torch": "ok"}
    assert "ended by the system" in reasons(made, "reference")["parts"] and not reasons(made, "torch")["parts"]
    for name in ("reference", "torch"):
        assert reasons(made, name)["attribution"] == "ended by the system"
        assert reasons(made, name)["energy"] == "", "there is no meter, so none was owed"


def test_a_loss_in_the_experiments_of_one_step_lands_on_the_cold_row(tmp_path):
    told = {"event": "attribution", "implementation": "reference", "cache": "cold", "clock": "host"}
    told |= {"found": {"wall": "undetermined", "reason": "none is shown"}}
    script = [*timed("reference", "torch"), told, begun("torch", "attribution"), died("crashed")]
    made = run(tmp_path, script, request={"attribution": True})
    assert reasons(made, "reference")["attribution"] == "none is shown", "what was told stands"
    assert reasons(made, "torch")["attribution"] == "ended by the system"
    assert AFTERTHOUGHTS.index("parts") < AFTERTHOUGHTS.index("attribution") and not reasons(made, "torch")["parts"]
