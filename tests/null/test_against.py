"""`seqroof profile --against BASE`: what the baseline decides, what it does not, and the exit code."""

import json

import pytest
import samples
from commands import seqroof
from user_kernels import kernel_file

from seqroof.profiler.plan import PlanError, kernels_of, only, shapes_of
from seqroof.profiler.request import MOST_GROUP_S, Request
from seqroof.scripts.against import refuse_other_machine, take_over
from seqroof.scripts.exits import Exit, Stop

BASE = samples.run().model_copy(update={"seed": 7, "suite": "standard"})
OK = [point for point in BASE.points if point.status == "ok"]


def test_the_baseline_decides_what_is_not_typed():
    taken, told = take_over(BASE, Request(dtypes=["fp16"], suite="quick"), set())
    assert taken.seed == 7 and taken.suite == "standard" and set(taken.dtypes) == {point.dtype for point in OK}
    named = {
        (c["kernel"], str(c["shape"]), c["dtype"], c["direction"], n) for c in taken.cases for n in c["implementations"]
    }
    assert named == {(p.kernel, str(p.shape), p.dtype, p.direction, p.implementation) for p in OK}
    assert "shapes, dtypes, directions, seed 7" in told and OK[0].kernel in told


def test_a_longer_suite_is_not_held_to_the_time_of_the_quick_one():
    quick = Request(budget_s=42.0, group_s=3.0, effort="quick")
    longer = take_over(BASE, quick, set())[0]
    assert (longer.budget_s, longer.effort) == (None, "full") and longer.group_s > 3
    assert take_over(BASE, quick, {"budget"})[0].budget_s == 42.0
    typed = take_over(BASE, Request(budget_s=600.0, group_s=MOST_GROUP_S), {"budget"})[0]
    assert (typed.budget_s, typed.group_s) == (600.0, MOST_GROUP_S)
    same = take_over(BASE.model_copy(update={"suite": "quick"}), quick, set())[0]
    assert (same.budget_s, same.group_s, same.effort) == (42.0, 3.0, "quick")


def test_what_is_typed_stays():
    given = {"dtype", "seed", "shape", "implementation"}
    request = Request(dtypes=["fp16"], axes={"B": [3]}, seed=1, implementations=["torch"])
    taken, told = take_over(BASE, request, given)
    assert (taken.dtypes, taken.axes, taken.seed, taken.implementations) == (["fp16"], {"B": [3]}, 1, ["torch"])
    assert all(set(case) == {"kernel", "direction"} for case in taken.cases) and "seed" not in told
    assert "shape" not in take_over(BASE, Request(), {"suite"})[0].cases[0]


def test_a_baseline_without_a_measurement_is_refused():
    failed = tuple(point.model_copy(update={"status": "crashed"}) for point in BASE.points)
    with pytest.raises(Stop, match="no valid measurement") as stop:
        take_over(BASE.model_copy(update={"points": failed}), Request(), set())
    assert stop.value.code == Exit.USAGE


def test_another_machine_is_refused_before_anything_is_measured():
    opened = {"id": BASE.machine.id, "environment": BASE.environment.model_dump()}
    refuse_other_machine(BASE, opened)
    refuse_other_machine(None, {})
    with pytest.raises(Stop, match="measure a baseline here") as stop:
        refuse_other_machine(BASE, opened | {"id": "another"})
    assert stop.value.code == Exit.NO_DEVICE


class Kernel:
    name = "k"
    source = "k"
    shape = staticmethod(lambda **sizes: tuple(sorted(sizes.items())))

    @staticmethod
    def suite(name):
        return ["from the suite"]


def group(**changes):
    fields = {"kernel": "k", "shape": {"B": 1}, "dtype": "fp32", "direction": "forward"}
    return fields | {"implementations": ["a", "b"], "refused": {"c": "for a reason"}} | changes


def test_the_worker_plans_these_cases_only():
    case = {"kernel": "k", "shape": {"B": 1}, "dtype": "fp32", "direction": "forward", "implementations": ["a"]}
    groups = [group(), group(shape={"B": 2}), group(dtype="bf16"), group(kernel="other")]
    (kept,) = only(groups, [case])
    assert kept["implementations"] == ["a"] and kept["refused"] == {
        "c": "for a reason",
        "b": "not among the rows that were asked for",
    }
    assert only(groups, []) == groups
    assert len(only(groups, [{"kernel": "k", "direction": "forward"}])) == 3
    assert shapes_of(Kernel, "quick", {}, [case, case]) == [(("B", 1),)]
    assert shapes_of(Kernel, "quick", {}, [{"kernel": "k"}]) == ["from the suite"]
    assert kernels_of([case], ["k", "other"]) == ["k"]
    with pytest.raises(PlanError, match=r"profile ./k.py --against"):
        kernels_of([case], ["other"])


def test_one_command_measures_and_gates(tmp_path, roofs):
    kernel_file(tmp_path)
    flags = ["--rounds", "6", "--budget", "1s", "--roofs", roofs]
    done = seqroof("profile", "mine.py", "--shape", "B=2|5", "--dtype", "fp32", *flags, "--out", "base", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "base" / "run.json"
    base = json.loads(file.read_text())
    for time in (point["time_s"] for point in base["points"] if point["time_s"]):  # a thousand times as fast as it was
        time |= {name: 1e-3 * time[name] for name in ("median", "low", "high", "min", "p95")}
        time["rounds_s"] = [1e-3 * value for value in time["rounds_s"]]
    file.write_text(json.dumps(base))
    done = seqroof("profile", "mine.py", *flags, "--against", "base", "--out", "new", cwd=tmp_path)
    assert done.returncode == 1, done.stderr + done.stdout
    assert "taken over from the baseline, of mine: shapes, dtypes, directions, seed 0" in done.stderr
    assert done.stdout.rindex("SLOWER: ") > done.stdout.index("Ceilings") and "Overall" in done.stdout[-400:]
    new = json.loads((tmp_path / "new" / "run.json").read_text())
    assert {(p["shape"]["B"], p["dtype"]) for p in new["points"]} == {(2, "fp32"), (5, "fp32")}
    kernel_file(tmp_path, fault="return (x * 3,)")  # wrong and slower: being wrong is told first
    done = seqroof("profile", "mine.py", *flags, "--against", "base", "--out", "wrong", cwd=tmp_path)
    assert done.returncode == 3 and "wrong in NEW" in " ".join(done.stdout.split())
