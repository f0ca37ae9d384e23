"""The suite of the claims measures what its verdicts need: sizes that exist, equal parameters, and probes that end."""

from __future__ import annotations

import itertools

import claim_samples as samples
import pytest
from round_machine import timing

from seqroof.kernels import _catalog
from seqroof.profiler import claim_time, probes
from seqroof.profiler.claim_plan import claim_cases, for_verdicts
from seqroof.profiler.group_runs import clocks_of
from seqroof.profiler.plan import PlanError
from seqroof.profiler.points import headline
from seqroof.profiler.probing import KIND, ROW, Probing, wanted
from seqroof.profiler.request import Request
from seqroof.profiler.supervisor import WorkerDied
from seqroof.roofline import claim_reach, claims
from seqroof.roofline.catalogue import machines
from seqroof.roofline.claim_board import decided
from seqroof.roofline.record import Point
from seqroof.scripts import measuring, profile_verb
from seqroof.scripts.exits import Exit, Stop
from seqroof.scripts.options import Typed

DEVICES = ("cpu", "cuda")


def cases_of(claim, device):
    for case in claim.cases:
        if case.device in ("", device):
            for sizes, direction in itertools.product(case.shapes(), case.directions):
                kernel = _catalog.load(case.kernel)
                yield kernel, kernel.shape(**sizes), direction


def points_of(claim, device):
    """Points of all rows that a claim compares, in both states of the caches, each after a second."""
    dtype = claims.dtypes(device)[0]
    for kernel, shape, direction in cases_of(claim, device):
        for name, cache in itertools.product(
            ("reference", "triton_step", "triton_resident", "triton"), ("cold", "warm")
        ):
            yield Point(
                kernel=kernel.name,
                implementation=name,
                shape={key: int(value) for key, value in vars(shape).items()},
                dtype=dtype,
                direction=direction,
                cache=cache,
                clock="events" if device == "cuda" else "host",
                status="ok",
                time_s=timing(1.0),
                work=kernel.module.work(shape, dtype, direction),
                weights="kept" if name == "triton_resident" else "reread",
                chain="launch",
                roof_fraction=samples.share(0.5),
            )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("claim", [claim for claim in claims.all_claims() if claim.cases], ids=lambda claim: claim.id)
def test_the_cases_of_a_claim_are_all_that_its_verdict_needs(claim, device):
    roofs = tuple(
        roof.model_copy(update={"level": "tensor", "dtype": "bf16"}) if roof.quantity == "rate" else roof
        for roof in samples.MACHINE.ceilings
    )
    machine = samples.MACHINE
    if device == "cuda":
        machine = machine.model_copy(update={"device": "cuda", "ceilings": roofs})
    found = decided(
        claim,
        samples.run(points=tuple(points_of(claim, device)), evidence=(), machine=machine),
        "r",
        tuple(machines().values()),
    )
    # What is timed in turn is evidence of a probe, which these points are without.
    besides = ("joules", "less noise", "in shared rounds", "what decides it")
    assert found.numbers and not [text for text in found.missing if not any(words in text for words in besides)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("id", ["C4", "C6", "C15"])
def test_models_that_are_compared_have_equal_parameters(id, device):
    claim = next(claim for claim in claims.all_claims() if claim.id == id)
    found: dict[tuple[int, ...], dict[str, int]] = {}
    for kernel, shape, direction in cases_of(claim, device):
        works = found.setdefault((shape.B, shape.T, getattr(shape, "H", 0) or getattr(shape, "M", 0) or shape.C), {})
        works[kernel.name] = kernel.module.work(shape, "fp32", direction).parameters
    for sizes, parameters in found.items():
        assert len(parameters) == (3 if id == "C4" else 2), sizes
        assert max(parameters.values()) <= 1.02 * min(parameters.values()), (sizes, parameters)


@pytest.mark.parametrize("device", DEVICES)
def test_the_plan_names_every_size(device):
    found = claim_cases(device, [], _catalog.load)
    assert len(found) == len(claims.cases(device))
    assert all(set(case["shape"]) == set(_catalog.load(case["kernel"]).sizes()) for case in found)
    assert {case["kernel"] for case in claim_cases(device, ["gru"], _catalog.load)} == {"gru"}
    with pytest.raises(PlanError, match="no cases of rnn"):
        claim_cases(device, ["rnn"], _catalog.load)


def group(kernel, names, **changes):
    """A planned group of a kernel at one size."""
    return {"kernel": kernel, "shape": {"B": 1}, "dtype": "fp32", "direction": "forward"} | {
        "implementations": list(names),
        "refused": {"compile": "slow"},
        "sequence": False,
        "kind": "cpu",
        **changes,
    }


def case(kernel, **changes):
    named = {"kernel": kernel, "shape": {"B": 1}, "dtype": "fp32", "direction": "forward"}
    return named | {"caches": ["warm"], "fastest": False} | changes


def test_only_what_verdicts_use_is_timed_in_the_order_of_the_claims():
    groups = [
        group("lstm", ["reference", "torch", "torch.onednn", "flashrnn"]),
        group("attention", ["reference", "torch.math", "torch.flash", "triton"]),
        group("rnn", ["reference"]),
    ]
    first, second = for_verdicts(groups, [case("attention"), case("lstm", caches=["cold"])], [])
    assert (first["kernel"], first["caches"]) == ("attention", ["warm"])
    assert first["implementations"] == ["reference", "torch.math", "torch.flash", "triton"]
    assert second["implementations"] == ["reference", "torch"]
    assert set(second["refused"]) == {"compile", "torch.onednn", "flashrnn"}
    (every,) = for_verdicts(groups, [case("lstm", fastest=True)], [])
    assert every["implementations"] == ["reference", "torch", "torch.onednn"]
    (asked,) = for_verdicts(groups, [case("lstm")], ["flashrnn"])
    assert "flashrnn" in asked["implementations"]


def test_a_group_is_timed_in_the_states_that_claims_name_and_one_of_them_is_its_headline():
    clocks = [["cold", "events"], ["warm", "events"], ["warm", "graph"]]
    plain = group("attention", ["reference"])
    assert clocks_of(plain, clocks) == clocks and headline(plain) == ("cold", "host")
    warm = plain | {"caches": ["warm"]}
    assert clocks_of(warm, clocks) == clocks[1:] and headline(warm) == ("warm", "host")
    assert headline(plain | {"caches": ["warm", "cold"]}) == ("cold", "host")


def test_a_case_of_several_claims_has_what_all_of_them_need():
    steps = {tuple(case["shape"].values()): case for case in claims.cases("cpu") if case["kernel"] == "lstm_step"}
    shared = steps[1, 512, 512]  # C5 asks for both states, C11 for one of them
    assert shared["caches"] == ["cold", "warm"] and not shared["fastest"]
    assert steps[1, 1024, 1024]["fastest"] and steps[1, 1024, 1024]["caches"] == ["cold"]


@pytest.mark.parametrize("options", [{"shape": ["B=1"]}, {"dtype": ["fp32"]}, {"direction": ["both"]}])
def test_the_suite_says_itself_what_to_measure(options):
    with pytest.raises(Stop, match=f"leave out --{next(iter(options))}") as stopped:
        profile_verb.request_of(Typed(suite="claims", device="cpu", **options))
    assert stopped.value.code == Exit.USAGE


def test_probes_make_every_row_that_a_claim_asks_for():
    biases = [f"{claim_reach.GRADIENT_REACH} forget_bias={bias}" for bias in probes.FORGET_BIASES]
    weights = [f"{claim_reach.GRADIENT_DEPTH} weights={name}" for name in probes.WEIGHTS]
    wanted_rows = [row for claim in claims.all_claims() for row in claim.evidence]
    assert sorted(wanted_rows) == sorted([claim_reach.HIERARCHY, *biases, *weights])


def test_probes_belong_to_the_whole_suite():
    assert wanted(Request(suite="claims")) == claims.probes()
    assert set(claims.probes()) == {*probes.PROBES, claims.PAIRED}
    assert wanted(Request(suite="claims", kernels=["gru"])) == wanted(Request(suite="quick")) == []


@pytest.fixture
def small(monkeypatch):
    """Probes of a few steps, seeds and layers."""
    for name, value in {"SEEDS": 2, "FORGET_BIASES": (0, 5), "DISTANCES": (1, 3, 10), "HIDDEN": 8, "LAYERS": 4}.items():
        monkeypatch.setattr(probes, name, value)
    monkeypatch.setattr(probes, "WINDOW", 6)
    monkeypatch.setattr(probes, "COPIES", 5)


def told(name):
    said: list[str] = []
    rows = probes.PROBES[name](_catalog.load, said.append)
    assert len(set(said)) == len(said) > 1  # every word is a new sign of life
    return rows


def test_an_open_gate_keeps_more_than_a_closed_one(small):
    closed, open_ = (row.values for row in told("gradient_reach"))
    assert closed["norm_1"] == open_["norm_1"] == 1.0
    assert closed["norm_10_low"] <= closed["norm_10"] <= closed["norm_10_high"] < 0.5 < open_["norm_10"]


def test_the_depth_probe_measures_every_kind_of_layer(small):
    for row in told("gradient_depth"):
        assert row.values["gated_over_tanh"] > 0 and row.values["residual"] > 0 and row.values["layers"] == 4


def test_every_input_of_a_hierarchy_is_perturbed(small):
    (row,) = told("hierarchy_reach")
    assert (row.values["inputs"], row.values["changed"]) == (36, 36)
    assert (row.values["levels"], row.values["levels_one_more"]) == (2, 3)


def test_an_input_that_is_not_seen_is_not_counted(small, monkeypatch):
    kernel = _catalog.load("hierarchical_attention")
    whole = kernel.module.reference

    def blind(shape, x, **inputs):
        return whole(shape, x=x * (probes.torch.arange(shape.T) != 7)[:, None], **inputs)

    monkeypatch.setattr(kernel.module, "reference", blind)
    (row,) = told("hierarchy_reach")
    assert row.values["changed"] == 35


class Worker:
    """Answers probes, or dies of them."""

    def __init__(self, *deadly):
        self.deadly, self.asked, self.restarts = deadly, [], 0

    def ask(self, op, silence_s, name, rounds, known):
        self.asked.append(name)
        self.silence_s, self.rounds = silence_s, rounds
        yield {"event": "progress", "text": "at it"}
        yield {"event": "probed", "row": {"id": name, "values": {"x": 1}, "how": "sample"}}
        if name in self.deadly:
            raise WorkerDied("crashed", "SIGSEGV")

    def restart(self):
        self.restarts += 1


def test_probes_are_journalled_resumed_and_survive_a_dead_worker():
    journal: list = []
    first = Probing(Worker("b"), ["a", "b"])  # type: ignore[arg-type]
    first.run(lambda kind, data: journal.append((kind, data)), lambda text, detail: None)
    # What the dead worker had found stays, and beside it why there is no more.
    assert [row.id for row in first.evidence()] == ["a", "b", "b"] and first._supervisor.restarts == 1
    assert first.evidence()[1].values and not first.evidence()[2].values and "SIGSEGV" in first.evidence()[2].how
    again = Probing(worker := Worker(), ["a", "b", "c"])  # type: ignore[arg-type]
    assert {kind for kind, _ in journal} == {KIND, ROW}
    for kind, data in journal:
        again.recall(kind, data)
    again.run(lambda kind, data: None, lambda text, detail: None)
    assert worker.asked == ["c"] and [row.id for row in again.evidence()] == ["a", "b", "b", "c"]


def test_the_rounds_that_a_user_asks_for_reach_the_probes():
    probing = Probing(worker := Worker(), ["a"], 300)  # type: ignore[arg-type]
    probing.run(lambda kind, data: None, lambda text, detail: None)
    assert worker.rounds == 300


class Pairs:
    """A worker that times three pairs, and dies or is cut off at one of them."""

    def __init__(self, ends_at="", end=None):
        self.ends_at, self.end, self.asked, self.restarts = ends_at, end, [], 0

    def ask(self, op, silence_s, name, rounds, known):
        self.asked.append(list(known))
        for id in ("one", "two", "three"):
            if id not in known:
                yield {"event": "progress", "text": id}
                yield {"event": "progress", "text": f"{id}, round"}
                if id == self.ends_at:
                    raise self.end
                yield {"event": "probed", "row": {"id": id, "values": {"ratio": 1.0}, "how": "sample"}}

    def restart(self):
        self.restarts += 1


def test_pairs_are_written_down_as_they_come_and_a_resumed_run_asks_for_the_others():
    journal: list = []
    cut_off = Probing(Pairs("two", KeyboardInterrupt()), [claims.PAIRED])  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        cut_off.run(lambda kind, data: journal.append((kind, data)), lambda text, detail: None)
    assert [row.id for row in cut_off.evidence()] == ["one"]
    again = Probing(worker := Pairs(), [claims.PAIRED])  # type: ignore[arg-type]
    for kind, data in journal:
        again.recall(kind, data)
    again.run(lambda kind, data: journal.append((kind, data)), lambda text, detail: None)
    assert worker.asked == [["one"]] and [row.id for row in again.evidence()] == ["one", "two", "three"]
    whole = Probing(worker := Pairs(), [claims.PAIRED])  # type: ignore[arg-type]
    for kind, data in journal:
        whole.recall(kind, data)
    whole.run(lambda kind, data: None, lambda text, detail: None)
    assert worker.asked == [] and whole.evidence() == again.evidence()


def test_a_pair_that_kills_the_worker_costs_itself_only():
    probing = Probing(worker := Pairs("two", WorkerDied("hung", "no sign of life")), [claims.PAIRED])  # type: ignore[arg-type]
    probing.run(lambda kind, data: None, lambda text, detail: None)
    one, two, three = probing.evidence()
    assert (one.id, two.id, three.id) == ("one", "two", "three") and one.values and three.values and not two.values
    assert "no sign of life" in two.how and worker.restarts == 1 and worker.asked == [[], ["one", "two"]]


def test_the_probe_that_times_comes_last_and_its_silence_is_the_users():
    assert claims.probes()[-1] == claims.PAIRED and len(claims.probes()) == 4
    probing = Probing(worker := Worker(), ["a"], deadline_s=25.0)  # type: ignore[arg-type]
    probing.run(lambda kind, data: None, lambda text, detail: None)
    assert worker.silence_s == 25.0


def test_a_dry_run_says_about_how_long_the_suite_takes():
    work = {"depth": 1000, "flops": 6e10, "compulsory_bytes": 0}
    group = {"kind": "cpu", "direction": "forward", "work": work}
    request = profile_verb.request_of(Typed(suite="claims", device="cpu"))
    one, two = (measuring.about_s(request, [group] * count) for count in (1, 2))
    assert one is not None and two is not None and one > claim_time.BESIDE_GROUPS_S
    assert two - one == pytest.approx(claim_time.START_S + claim_time.OVERTIME * request.group_s + 60 * 1.105)
    assert measuring.about_s(request, [group | {"kind": "cuda"}]) is None
    assert measuring.about_s(Request(suite="quick"), [group]) is None
