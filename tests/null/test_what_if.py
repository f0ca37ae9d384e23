"""What more of a resource would buy: laws of the model, pairs that check it, and what the command prints."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from round_machine import ROUND, ceiling, point, timing, work
from samples import run
from typer.testing import CliRunner

from seqroof.kernels import _catalog
from seqroof.roofline import catalogue, what_if
from seqroof.roofline.floors import best_floors, best_residency, own_floors
from seqroof.roofline.record import WALLS
from seqroof.roofline.store import dumps
from seqroof.roofline.verdict import judge
from seqroof.roofline.what_if import RESOURCES, Case
from seqroof.scripts.main import app
from seqroof.scripts.supposing import experiment

H200 = catalogue.machine("h200-sxm")
LSTM = _catalog.load("lstm")
RATES = ("compute", "dram", "cache", "latency")


def lstm(B=1, T=64, H=256, dtype="bf16", **how):
    job = LSTM.module.work(LSTM.shape(B=B, T=T, I=H, H=H), dtype, "forward")
    return Case(job, dtype, "cold", **({"weights": "reread", "chain": "launch"} | how))


CASES = st.builds(
    lstm,
    B=st.sampled_from([1, 7, 64]),
    T=st.sampled_from([1, 33, 512]),
    H=st.sampled_from([64, 1024, 4096]),
    weights=st.sampled_from(["reread", "kept"]),
    chain=st.sampled_from(["launch", "graph", "barrier"]),
    hoists=st.booleans(),
)


def floors(case, machine):
    how = {"hoists": case.hoists, "depth": case.depth}
    own = own_floors(case.work, case.dtype, case.weights, case.chain, machine, case.cache, **how)
    return own, best_floors(case.work, case.dtype, machine, case.cache)


@given(CASES, st.sampled_from(list(RESOURCES)), st.floats(1.0, 20.0))
def test_no_floor_rises_with_more_of_a_resource(case, resource, factor):
    for before, after in zip(floors(case, H200), floors(case, what_if.scaled(H200, resource, factor))):
        for wall in WALLS:
            old, new = getattr(before.floors, wall), getattr(after.floors, wall)
            assert old is None or new <= old * (1 + 1e-9)


@given(CASES)
def test_a_machine_of_twice_the_speed_halves_every_floor(case):
    faster = H200
    for resource in RATES:
        faster = what_if.scaled(faster, resource, 2.0)
    for before, after in zip(floors(case, H200), floors(case, faster)):
        for wall in WALLS:
            old, new = getattr(before.floors, wall), getattr(after.floors, wall)
            assert (old is None and new is None) or new == pytest.approx(old / 2)


@given(CASES)
def test_no_design_beats_the_best_possible_one(case):
    assume(case.weights == "reread" or best_residency(case.work, H200) == "chip")
    times = {name: what_if.time_s(other, H200) for name, other in what_if.designs(case, H200).items()}
    assert min(times.values()) >= times[what_if.BEST] * (1 - 1e-9)


def test_weights_are_kept_only_where_they_fit_and_as_long_as_a_launch_lasts():
    """134 MB of recurrent weights at H=4096 against 65 MB of chip."""
    assert "weights kept on chip, one launch" not in what_if.designs(lstm(T=512, H=4096), H200)
    kept = what_if.designs(lstm(T=512, H=1024), H200)["weights kept on chip, one launch"]
    assert (kept.weights, kept.chain) == ("kept", "barrier")


def measured_h200(**values):
    """An H200 as a run records it: measured roofs below those of the datasheet, which stand beside them."""
    roofs = [
        ceiling("bandwidth", "dram", 4.0e12),
        ceiling("bandwidth", "cache", 6.0e12),
        ceiling("rate", "tensor", 7.0e14, "bf16", "product", "FLOP/s"),
        ceiling("rate", "simt", 5.0e13, "fp32", "product", "FLOP/s"),
        ceiling("rate", "special", 3.0e12, unit="op/s"),
        ceiling("capacity", "cache", 4.0e7, unit="B", pattern="knee"),
        *(ceiling("latency", level, value, unit="s") for level, value in values.items()),
    ]
    return catalogue.measured_machine("h200-sxm", "NVIDIA H200", "cuda", roofs)


@given(CASES)
def test_a_measured_machine_is_scaled_from_what_was_measured(case):
    """The datasheet beside the measured roofs is higher; it must not come in when those change."""
    machine = measured_h200(launch=4e-6, graph=2e-6, barrier=2e-6, inside=2e-7)
    found = what_if.elasticities(case, machine)
    assert not found or sum(found[name] for name in RATES) == pytest.approx(1.0, abs=1e-6)
    for resource in RESOURCES:
        same = what_if.time_s(case, what_if.scaled(machine, resource, 1.0))
        assert same == what_if.time_s(case, machine)
    half, narrow = what_if.narrower(case, machine)[1:]
    assert half.dtype == "bf16"
    assert narrow.best("rate", "tensor", "bf16").value == 2 * 7.0e14


def test_weights_kept_on_a_gpu_meet_at_its_barrier():
    """A chain inside one program is faster than a barrier, but one multiprocessor does not hold what the chip can."""
    machine = measured_h200(launch=4e-6, barrier=2e-6, inside=2e-7)
    kept = what_if.designs(lstm(T=512, H=1024), machine)["weights kept on chip, one launch"]
    assert kept.chain == "barrier"


@pytest.mark.parametrize("machine", ["v100-sxm2", "b200-sxm"])
def test_what_is_not_known_leaves_no_estimate(machine):
    """No bf16 rate there; no latency here."""
    assert what_if.time_s(lstm(), catalogue.machine(machine)) is None


@given(CASES)
def test_elasticities_of_rates_and_latency_add_up_to_one(case):
    for one in (case, case.best):
        found = what_if.elasticities(one, H200)
        assert sum(found[name] for name in RATES) == pytest.approx(1.0, abs=1e-6)
        assert set(found) == set(RATES) and all(-1e-9 <= value <= 1 + 1e-9 for value in found.values())


def test_a_gain_follows_from_the_share_of_a_resource():
    """100 s of products, 20 s of bytes, 40 s of chain: ten times the arithmetic leaves 60 s, where DRAM then binds."""
    job = work(matmul_flops=1000, depth=4)
    machine = ROUND.model_copy(
        update={
            "ceilings": (
                ceiling("rate", "simt", 10.0, dtype="fp32"),
                ceiling("bandwidth", "dram", job.compulsory_bytes / 20.0, pattern="read"),
                ceiling("latency", "launch", 10.0),
            )
        }
    )
    case = Case(job, "fp32", "cold", "reread", "launch")
    now = what_if.time_s(case, machine)
    found, share = what_if.gains(case, machine), what_if.elasticities(case, machine)
    serial = 40.0
    assert share["latency"] == pytest.approx(serial / now, rel=1e-3)
    assert found["latency"][2.0] == pytest.approx(now / (now - serial / 2))
    assert now == 140.0 and found["compute"] == {2.0: 140 / 90, 4.0: 140 / 65, 10.0: 140 / 60}


def test_half_the_width_halves_bytes_and_no_operation():
    case = lstm()
    small = what_if.halved(case.work)
    assert small.matmul_flops == case.work.matmul_flops and small.depth == case.work.depth
    assert small.compulsory_bytes == pytest.approx(case.work.compulsory_bytes / 2, rel=1e-3)
    assert small.recurrent_bytes == case.work.recurrent_bytes // 2
    words, narrow, faster = what_if.narrower(case, H200)
    assert "8-bit" in words and "assumed" in words
    assert faster.best("rate", "tensor", "bf16").value == 2 * H200.best("rate", "tensor", "bf16").value
    assert faster.best("rate", "tensor", "bf16").provenance == "assumed"
    assert what_if.time_s(narrow, faster) < what_if.time_s(case, H200)


def test_half_the_width_of_single_precision_is_the_machines_own_sixteen_bits():
    words, narrow, machine = what_if.narrower(lstm(B=256, H=2048, dtype="fp32"), H200)
    assert words == "16-bit numbers" and machine is H200
    assert what_if.time_s(narrow, machine) == pytest.approx(what_if.time_s(lstm(B=256, H=2048), H200), rel=0.02)


def test_other_designs_are_those_that_change_something():
    assert "weights kept on chip, one launch" in what_if.designs(lstm(), H200)
    assert "weights kept on chip, one launch" not in what_if.designs(lstm(weights="kept"), H200)
    assert set(what_if.designs(lstm(T=1), H200)) == {"the best possible design"}
    assert "a graph of launches" not in what_if.designs(lstm(chain="graph"), H200)


def test_an_unknown_latency_leaves_no_estimate():
    nothing = H200.model_copy(update={"ceilings": tuple(c for c in H200.ceilings if c.quantity != "latency")})
    assert what_if.time_s(lstm(), nothing) is None
    assert what_if.elasticities(lstm(), nothing) == what_if.gains(lstm(), nothing) == {}


def measured(B, estimate, seconds, **more):
    """A point of B tokens."""
    job = work(matmul_flops=1000).model_copy(update={"tokens": B})
    return point(timing(seconds), **({"shape": {"B": B}, "dtype": "fp32", "work": job, "estimate_s": estimate} | more))


def test_pairs_that_differ_in_the_batch_alone_check_the_model():
    points = [measured(1, 10.0, 20.0), measured(4, 20.0, 40.0), measured(2, 10.0, 40.0)]
    points += [measured(8, 1.0, 1.0, implementation="other"), measured(16, 1.0, 1.0, status="invalid")]
    first, second = what_if.checks(points)
    assert (first.change, first.modelled, first.measured) == ("B=1 to 2", 2.0, 1.0)
    assert first.off == pytest.approx(2.0)
    assert (second.change, second.modelled, second.measured) == ("B=2 to 4", 1.0, 2.0)
    assert what_if.typical_error([first, second]) == pytest.approx(2.0)


def test_a_model_within_the_interval_is_not_off():
    wide = [measured(1, 10.0, 20.0), measured(2, 10.0, 22.0)]
    noisy = [one.model_copy(update={"time_s": timing(one.time_s.median, 0.5)}) for one in wide]
    assert what_if.checks(wide)[0].off > 1
    assert what_if.checks(noisy)[0].off == 1


def test_a_dtype_of_half_the_width_checks_the_model_too():
    points = [measured(1, 10.0, 20.0, dtype="fp32"), measured(1, 5.0, 20.0, dtype="bf16")]
    (found,) = what_if.checks(points)
    assert (found.change, found.modelled, found.measured) == ("fp32 to bf16", 2.0, 1.0)


def invoke(*arguments, columns="80"):
    return CliRunner().invoke(app, ["what-if", *map(str, arguments)], env={"COLUMNS": columns, "NO_COLOR": "1"})


def test_the_command_names_what_helps_and_an_experiment():
    found = invoke("lstm", "--shape", "B=1,T=512,I=1024,H=1024")
    assert found.exit_code == 0, found.output
    text = " ".join(found.output.split())
    for part in (
        "step latency",
        "weights kept on chip, one launch",
        "batch of 10 (per token)",
        "(assumed)",
        "h100-sxm",
        "modelled",
    ):
        assert part in text
    assert "To check it (batch): seqroof profile lstm --shape B=1:8:x2" in text
    assert all(len(line) <= 80 for line in found.output.splitlines() if not line.startswith("To check it"))


def test_a_list_of_sizes_is_quoted_for_a_shell():
    assert "--shape 'B=1,H=256|64'" in experiment("cache", "lstm", {"B": 1, "H": 256})


def test_machines_of_which_too_little_is_known_get_a_lower_bound():
    found = invoke("lstm_step", "--shape", "B=1,I=1024,H=1024")
    (row,) = [line for line in found.output.splitlines() if line.startswith("hbm-pim-x4")]
    assert row.split()[2:5] == [">=", "3.41", "µs"]  # 16.8 MB at 4.92 TB/s
    made = json.loads(invoke("lstm_step", "--shape", "B=1,I=1024,H=1024", "--json").output)["machines"]
    assert made["k80"]["design"] is None and made["h200-sxm"]["design_least_s"] <= made["h200-sxm"]["design"]


def test_json_is_one_document_that_adds_up():
    made = json.loads(invoke("lstm_step", "--shape", "B=1,I=512,H=512", "--json").output)
    assert sum(made["elasticities"]["design"][name] for name in RATES) == pytest.approx(1.0, abs=1e-6)
    assert made["gains"]["design"]["dram"]["2.0"] >= 1 and made["batch"]["10"]["times_as_fast"] > 1
    assert made["designs"]["the best possible design"]["estimate_s"] <= made["estimate_s"]["design"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lstm_step", "--shape", "B=1|2,I=8,H=8"), "takes one shape"),
        (("lstm_step", "--shape", "B=1,I=8,H=8", "--on", "h2000"), "path of a run"),
        (("lstm_step", "--shape", "B=1,I=8,H=8", "--on", "k80", "--dtype", "bf16"), "cannot be estimated"),
        (("lstm_step", "--shape", "B=1,I=8,H=8", "--weights", "x"), "reread, kept"),
        (("lstm_step", "--shape", "B=1,I=8,H=8", "--dtype", ""), "one dtype"),
        (("lstm_step", "--shape", "B=1,I=8,H=8", "--dtype", "fp32,bf16"), "one dtype"),
        (("lstm", "--shape", "B=1,T=9,I=4096,H=4096", "--weights", "kept"), "134 MB"),
        (("nothing",), "nothing"),
    ],
)
def test_bad_input_ends_in_a_sentence(arguments, said):
    found = invoke(*arguments)
    assert found.exit_code != 0 and said in str(found.exception)


def test_a_run_shows_what_would_help_each_point_and_checks_the_model(tmp_path):
    path = tmp_path / "run.json"
    points = tuple(judge(measured(B, None, 150.0 * B), ROUND) for B in (1, 2))
    path.write_text(dumps(run(points=points).model_copy(update={"machine": ROUND})))
    found = invoke(path)
    assert found.exit_code == 0, found.output
    text = " ".join(found.output.split())
    assert "Percent of time" in text and "1 that differ in batch or dtype alone" in text
    made = json.loads(invoke(path, "--json").output)
    assert made["points"] and all(set(RATES) <= set(entry["elasticities"]) for entry in made["points"])
    empty = tmp_path / "empty.json"
    empty.write_text(dumps(run(points=())))
    assert "no timed point" in str(invoke(empty).exception)


def test_units_inside_the_memory_take_in_bytes_at_so_many_times_its_bandwidth():
    case = lstm(T=1, H=4096)
    inside = what_if.inside_memory(H200, 4.0)
    assert inside.best("bandwidth", "dram").value == inside.best("bandwidth", "cache").value == 4 * 4.8e12
    gained = what_if.time_s(case, H200) / what_if.time_s(case, inside)
    assert 3 < gained < 4  # the launch stays
    slow = what_if.inside_memory(H200, 1.0)
    assert slow.best("bandwidth", "cache").value == H200.best("bandwidth", "cache").value


def test_the_command_supposes_units_inside_the_memory_and_names_an_experiment_for_each_change():
    found = invoke("lstm_step", "--shape", "B=1,I=4096,H=4096")
    text = " ".join(found.output.split())
    assert "inside the memory, at 4 x its bandwidth" in text and "(supposed; HBM-PIM states 4 x)" in text
    assert "To check it (memory): weights one level nearer: seqroof profile lstm_step" in text
    made = json.loads(invoke("lstm_step", "--shape", "B=1,I=4096,H=4096", "--json").output)
    gains = [entry["times_as_fast"] for entry in made["inside_memory"].values()]
    assert 1 < gains[0] < gains[1] and set(RESOURCES) < set(made["experiments"])
