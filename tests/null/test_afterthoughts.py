"""Parts, algorithms and time per step: from the worker to the record, and what must not cost a time."""

import json
import os
import subprocess
import sys

import pytest
from round_machine import ROUND, ceiling, point, timing, work
from user_kernels import GOOD, kernel_file

from seqroof.profiler.afterthoughts import classify, observed
from seqroof.roofline._steps import detail_text
from seqroof.roofline.record import Part
from seqroof.roofline.verdict import judge, with_launch_tax

PERSISTENT = "void RNN_blockPersist_fp_LSTM<__half, __half, float, 512>(...)"
PRODUCT = "cutlass_90_tensorop_gemm_128x128_warpspecialized_persistent_cooperative"


@pytest.mark.parametrize(
    ("kernels", "algorithm"),
    [
        ([PERSISTENT, "elementwise"], "persistent"),
        (["LSTM_elementWise_fp", "sm90_xmma_gemm_bf16"], "standard"),
        (["LSTM_elementWise_fp", PRODUCT, "nvjet_tst_persistent"], "standard"),
        ([], "standard"),
    ],
)
def test_the_algorithm_is_read_from_kernel_names(kernels, algorithm):
    assert classify(kernels) == algorithm


def test_the_record_names_a_few_kernels_and_nothing_where_none_was_seen():
    facts = observed([PERSISTENT, *(f"kernel {index} {'x' * 200}" for index in range(9))])
    assert facts["algorithm_observed"] == "persistent"
    names = facts["kernels_observed"].split("; ")
    assert len(names) == 5 and max(map(len, names)) <= 80
    assert observed([]) == {}


SEQUENCE = GOOD.replace("Work(terms=lines", "Work(depth=4 * shape.B, terms=lines").replace(
    'IMPLEMENTATIONS = {"reference": Implementation(reference, grad=True), "torch": Implementation(faulty)}',
    """
from seqroof.roofline import PartCall

def phases(shape, inputs):
    whole = work(shape, "fp32", "forward")
    x = inputs["x"]
    once = whole.model_copy(update={"depth": 1})
    return [PartCall("input product", lambda: x * 2, once), PartCall("recurrence", lambda: x + x, whole)]

def raising(shape, inputs):
    raise ValueError("no parts today")

def dying(shape, inputs):
    os._exit(3)

def padding_waste(shape):
    return 0.25

deep = lambda *case: 8 * case[0].B
IMPLEMENTATIONS = {
    "reference": Implementation(reference),
    "torch": Implementation(reference, hoists=True, depth=deep, parts=phases, algorithm=lambda *case: "standard"),
    "torch.raises": Implementation(reference, parts=raising),
    "torch.dies": Implementation(reference, parts=dying),
}
""",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sequence")
    file = kernel_file(folder, text=SEQUENCE)
    roofs = folder / "roofs.json"
    hide = folder / "hidden"
    hide.mkdir()
    (hide / "vl_convert.py").write_text("raise ImportError('hidden by this test')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(hide), os.environ.get("PYTHONPATH", "")])}

    def seqroof(*arguments):
        command = [sys.executable, "-m", "seqroof.scripts.main", *map(str, arguments)]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)

    here = seqroof("ceilings", "--device", "cpu", "--json").stdout
    roofs.write_text(here)
    options = ("--device", "cpu", "--dtype", "fp32", "--budget", "2s", "--roofs", roofs, "--out", folder / "out")
    done = seqroof("profile", file, "--shape", "B=2", *options, "--json")
    assert done.returncode in (0, 5), done.stderr
    return {(entry["implementation"], entry["cache"]): entry for entry in json.loads(done.stdout)["points"]}


def test_a_profile_records_parts_and_declared_facts(run):
    whole = run["torch", "warm"]
    assert [part["name"] for part in whole["parts"]] == ["input product", "recurrence"]
    assert all(part["time_s"]["median"] > 0 and part["bound"] for part in whole["parts"])
    assert whole["hoists"] and whole["depth"] == 16 and whole["work"]["depth"] == 8
    assert whole["step_s"] == pytest.approx(whole["time_s"]["median"] / 16)
    assert whole["compiler"] == {"algorithm_derived": "standard"} and whole["padding_waste"] == 0.25
    assert run["torch", "cold"]["parts"] == []


def test_parts_that_fail_or_die_cost_no_time(run):
    for name, says in (("torch.raises", "no parts today"), ("torch.dies", "3")):
        for cache in ("warm", "cold"):
            assert run[name, cache]["time_s"]["median"] > 0
        (doubt,) = [entry for entry in run[name, "warm"]["warnings"] if entry["id"] == "parts-not-measured"]
        assert says in doubt["cause"]
    assert run["reference", "warm"]["time_s"]["median"] > 0


def sequence(time, clock="events", **changes):
    """A warm point of eight dependent steps with weights that fit nowhere but in DRAM."""
    job = work(depth=8, weights=6000, streamed_bytes=60_000, hoisted_bytes=40_000)
    return point(time, cache="warm", clock=clock, work=job, **changes)


def test_an_implementation_that_hoists_streams_less():
    # 60 000 bytes in ten passes, 40 000 in eight; each pass after another finds 5100 again, and a warm call 5000.
    assert judge(sequence(None), ROUND).floors_s.dram == (60_000 - 9 * 5100 - 5000) / 100
    assert judge(sequence(None, hoists=True), ROUND).floors_s.dram == (10_000 - 5000) / 100


def test_a_chain_of_its_own_counts_in_this_design_only():
    steps = work(depth=8, matmul_flops=10**4)  # enough for a step not to be bound by registers alone
    found = judge(sequence(timing(1000.0), depth=400).model_copy(update={"work": steps}), ROUND)
    assert found.floors_s.serial == 800.0 and found.best_floors_s.serial == 8 * 0.5
    assert found.step_s == 2.5
    assert "400, where 8 would do" in found.gap and "(8 would do)" in found.floor_notes["serial"]


def test_time_per_step_is_for_sequences():
    assert judge(sequence(timing(1000.0)), ROUND).step_s == 125.0
    assert judge(point(timing(200.0)), ROUND).step_s is None


def test_the_launch_tax_is_host_minus_graph_of_the_same_case():
    other = sequence(timing(1.0), "graph", dtype="bf16")
    points = (sequence(timing(900.0), "host"), sequence(timing(700.0)), sequence(timing(500.0), "graph"), other)
    taxes = [entry.launch_tax_s for entry in with_launch_tax(judge(entry, ROUND) for entry in points)]
    assert taxes == [50.0, 50.0, 50.0, None]


def parts(*times):
    return tuple(Part(name=str(index), time_s=timing(time), work=work()) for index, time in enumerate(times))


def test_a_part_has_walls_of_its_own():
    whole = sequence(timing(1000.0), parts=(Part(name="recurrence", time_s=timing(400.0), work=sequence(None).work),))
    (part,) = judge(whole.model_copy(update={"chain": "barrier", "weights": "kept"}), ROUND).parts
    assert part.floors_s.serial == 8.0 and part.bound == "dram"
    product = judge(whole.model_copy(update={"parts": parts(400.0), "weights": "kept"}), ROUND).parts[0]
    assert product.floors_s.dram == 50.0 and product.floors_s.serial == 2.0, "a plain product reads its weights"
    assert product.best_fraction.value == pytest.approx(50.0 / 400.0)


def test_parts_that_do_not_add_up_are_told():
    def doubts(*times):
        return {warning.id for warning in judge(sequence(timing(1000.0), parts=parts(*times)), ROUND).warnings}

    assert "parts-do-not-add-up" in doubts(400.0, 300.0)
    assert "parts-do-not-add-up" not in doubts(400.0, 400.0)
    assert "parts-do-not-add-up" not in doubts(400.0, 550.0)
    assert "parts-do-not-add-up" in doubts(700.0, 450.0)
    assert "parts-do-not-add-up" not in doubts()
    uncertain = sequence(timing(1000.0, 0.6), parts=parts(400.0, 400.0))
    assert "parts-do-not-add-up" not in {warning.id for warning in judge(uncertain, ROUND).warnings}


def test_what_no_part_took_is_shown_as_the_rest():
    def told(*times):
        return detail_text(judge(sequence(timing(1000.0), parts=parts(*times)), ROUND))

    assert "rest 200 s: starting the parts and moving data between them (derived)" in told(400.0, 400.0)
    assert "rest" not in told(400.0, 550.0) and "rest" not in told(700.0, 450.0)


def test_the_best_design_keeps_recurrent_weights_only():
    job = work(depth=4, weights=6000, recurrent=3000, streamed_bytes=60_000, hoisted_bytes=40_000)
    roomy = ROUND.model_copy(update={"ceilings": (*ROUND.ceilings, ceiling("capacity", "chip", 3500.0, unit="B"))})
    best = judge(point(None, work=job), roomy).best_floors_s
    assert best.cache == 10.0, "compulsory bytes only: what is kept crosses the cache once"
    all_of_them = job.model_copy(update={"recurrent_bytes": 6000})
    passes = 40_000 // 6000  # at most, and each but the first finds again what the chip holds
    assert judge(point(None, work=all_of_them), roomy).best_floors_s.cache == 40.0 - (passes - 1) * 3.5
