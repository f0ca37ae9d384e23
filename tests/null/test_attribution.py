"""Walls told by experiments: the rules, the arms on a clock that the test owns, and what readers see of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from round_machine import point, timing

from seqroof.kernels import _catalog
from seqroof.profiler import attribution, other_cases
from seqroof.profiler.attribution import attribute
from seqroof.profiler.calls import Group
from seqroof.profiler.clock import HostStopwatch, Subject
from seqroof.profiler.points import with_afterthoughts
from seqroof.profiler.working_set import made_bytes
from seqroof.roofline import Implementation, Work, export
from seqroof.roofline._steps import detail_text
from seqroof.roofline.attribution import agreement, agrees, decide, ratio_of
from seqroof.roofline.experiments import Attribution, Ratio
from seqroof.roofline.record import Floors
from seqroof.roofline.work import terms


def ratio(value):
    return None if value is None else Ratio(value=value, low=value, high=value, rounds=7)


def wall(rotated, halved, longer, *, sliced=None, lighter=None, cold=True, in_cache=True, threads=2):
    found = decide(
        *map(ratio, (rotated, sliced, halved, longer)),
        lighter=ratio(lighter),
        threads=threads,
        cold=cold,
        in_cache=in_cache,
        untried={"longer": "no T"},
    )
    assert found.reason and "longer not tried: no T" in found.reason
    return found.wall


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ((1.31, 1.0, None), "memory"),
        ((1.29, 1.0, None), "undetermined"),
        ((1.1, 1.61, None), "compute"),
        ((1.1, 1.59, None), "undetermined"),
        ((1.1, 1.0, 1.61), "serial"),
        ((1.1, 1.0, 1.59), "undetermined"),
        ((1.8, 2.0, None), "memory"),  # half the threads read memory more slowly too
        ((1.8, 1.0, 2.0), "undetermined"),  # several
        ((1.0, 2.0, 2.0), "undetermined"),
        ((None, None, None), "undetermined"),
    ],
)
def test_a_wall_is_what_one_experiment_shows(ratios, expected):
    assert wall(*ratios) == expected


def test_fewer_threads_say_nothing_where_memory_is_not_excluded():
    assert wall(None, 2.0, None, in_cache=False) == "undetermined"
    assert wall(None, 2.0, None, in_cache=False, cold=False) == "undetermined"


@pytest.mark.parametrize(
    ("sliced", "expected"), [(1.5, "memory"), (1.1, "compute"), (0.8, "compute"), (0.5, "undetermined")]
)
def test_slices_that_fit_tell_what_rotation_cannot(sliced, expected):
    """The last slice is twice as slow as the whole for other reasons, which excludes nothing."""
    for cold in (True, False):
        assert wall(None, 2.0, None, sliced=sliced, in_cache=False, cold=cold) == expected


@pytest.mark.parametrize(
    ("halved", "lighter", "expected"),
    [(2.0, 1.7, "compute"), (2.0, 1.5, "undetermined"), (2.0, None, "undetermined"), (1.0, 2.0, "undetermined")],
)
def test_half_the_arithmetic_on_the_same_bytes_excludes_memory(halved, lighter, expected):
    """Where no slice fits; of what shows no wall by itself, nothing is said."""
    for cold in (True, False):
        assert wall(None, halved, None, lighter=lighter, in_cache=False, cold=cold) == expected


def test_a_warm_case_in_the_cache_does_not_wait_for_memory():
    assert wall(3.0, 2.0, None, cold=False) == "compute"
    assert wall(3.0, 1.0, None, cold=False) == "undetermined"


def test_the_threshold_follows_the_number_of_threads():
    """One of three threads: a call that only computes takes three times as long, and 2.4 are asked for."""
    assert wall(1.0, 2.3, None, threads=3) == "undetermined"
    assert wall(1.0, 2.5, None, threads=3) == "compute"


def test_noise_shows_no_wall():
    """An interval that holds "no slower", and more than fewer threads can explain."""
    wide = Ratio(value=1.8, low=0.9, high=3.0, rounds=7)
    how = {"threads": 2, "cold": True, "in_cache": True, "untried": {}}
    assert decide(wide, None, ratio(1.0), wide, **how).wall == "undetermined"
    assert decide(ratio(1.0), None, wide, None, **how).wall == "undetermined"
    assert decide(ratio(1.0), None, ratio(9.0), None, **how).wall == "undetermined"
    assert decide(ratio(1.0), None, ratio(2.9), None, **how).wall == "compute"


def test_ratios_are_paired_by_rounds():
    found = ratio_of([2.0, 20.0, 200.0], [1.0, 10.0, 100.0])
    assert (found.low, found.value, found.high, found.rounds) == (2.0, 2.0, 2.0, 3)


def seen(wall, bound, **more):
    found = Attribution(wall=wall, rotated=ratio(1.5), threads=2, reason="because")
    return point(timing(200.0), bound=bound, attribution=found, **more)


@pytest.mark.parametrize(
    ("wall", "bound", "other", "expected"),
    [
        ("memory", "dram", None, True),
        ("memory", "cache", None, False),
        ("memory", "compute", "dram", True),
        ("compute", "compute", None, True),
        ("compute", "cache", None, True),
        ("compute", "serial", None, False),
        ("serial", "cache", None, False),
        ("serial", "serial", None, True),
        ("undetermined", "dram", None, None),
        ("memory", None, None, None),
    ],
)
def test_agreement_with_the_model(wall, bound, other, expected):
    assert agrees(seen(wall, bound, contested_with=other)) is expected


def test_agreement_is_counted_and_every_disagreement_listed():
    points = [seen("memory", "dram"), seen("compute", "dram", implementation="odd"), seen("undetermined", "dram")]
    (found,) = agreement([*points, point(timing(1.0), bound="dram")])
    expected = {"points": 3, "determined": 2, "agreement": 0.5, "undetermined": pytest.approx(1 / 3)}
    none = {"held": 0, "determined_held": 0, "agreement_held": None, "undetermined_held": None}
    assert found.numbers == expected | none
    told = "runs at 0.0 % of that floor, which explains less than half of the time; rotated data 1.50 x"
    assert f"k odd B=1 fp32: dram modelled, cores seen ({told})" in found.text
    (back,) = agreement([seen("compute", "dram", direction="backward")])
    assert "k torch B=1 fp32 backward: dram modelled" in back.text
    assert agreement([point(timing(1.0), bound="dram")]) == []


def test_many_disagreements_are_told_by_kernel_and_walls():
    points = [
        seen("compute", "dram", implementation=f"row{index}", floors_s=Floors(dram=20.0 * (1 + index % 2)))
        for index in range(7)
    ]
    (found,) = agreement([*points, seen("memory", "compute", kernel="other")])
    assert "Not on: k, dram modelled, cores seen: 7 at 10 % to 20 % of that floor; other, compute" in found.text
    (few,) = agreement(points[:6])
    assert few.text.count("cores seen (runs at") == 6


def test_points_that_their_floor_holds_are_counted_for_themselves():
    """Two of three are told rightly; of the two that run at half of their floor's speed or better, one."""
    near, far = (Floors(dram=200.0 * share) for share in (0.5, 0.49))
    points = [
        seen("memory", "dram", floors_s=near),
        seen("memory", "dram", floors_s=far),
        seen("compute", "dram", floors_s=near),
        seen("undetermined", "dram", floors_s=near),
    ]
    (found,) = agreement(points)
    assert (found.numbers["held"], found.numbers["agreement_held"]) == (3, 0.5)
    assert found.numbers["undetermined_held"] == pytest.approx(1 / 3)
    assert "4 points, 25 % undetermined, experiments and model agree on 2 of 3 (67 %)" in found.text
    assert "half of its floor's speed or better: 3 points, 33 % undetermined" in found.text
    assert "agree on 1 of 2 (50 %)." in found.text
    assert "runs at 50 % of that floor; rotated data" in found.text


def test_readers_see_it_beside_the_modelled_wall():
    from samples import run

    shown = seen("memory", "dram")
    assert "seen without floors: memory (rotated data 1.50 x)" in detail_text(shown)
    made = run(points=(shown,))
    header, line = export.csv(made).splitlines()
    cells = dict(zip(header.split(","), line.split(",")))
    assert (cells["attribution"], cells["attribution_rotated_ratio"]) == ("memory", "1.5")
    assert "| seen |" in export.markdown(made) and "| memory |" in export.markdown(made)
    assert "| seen |" not in export.markdown(run(points=(point(timing(1.0)),)))


class Stopwatch:
    """Takes what the arm's only call returns."""

    def sample(self, calls, first, repeats):
        return [calls[0]()]


def group_of(name, sizes):
    """A group of cases on the CPU."""
    kernel = _catalog.load(name)
    device = SimpleNamespace(kind="cpu", torch_device="cpu")
    return SimpleNamespace(
        kernel=kernel, module=kernel.module, shape=kernel.shape(**sizes), dtype="fp32", device=device, seed=0
    )


def arm(seconds):
    return attribution.Arm([lambda: seconds], Stopwatch())


def test_arms_take_turns_and_slow_ones_are_given_up():
    arms = {"a": arm(1e-4), "b": arm(2e-4)}
    assert attribution._interleave(arms, 1.0) == attribution.ROUNDS
    assert [len(one.samples) for one in arms.values()] == [attribution.ROUNDS] * 2
    assert arms["a"].repeats == 10
    assert attribution._interleave({"a": arm(0.5), "b": arm(0.5)}, 0.0) == attribution.FEWEST_ROUNDS
    assert attribution._interleave({"a": arm(1.0), "b": arm(1.0)}, 100.0) == 0


@pytest.mark.parametrize(("held", "expected"), [(1.0, 2), (0.3, 4), (0.27, 4), (0.15, 12), (1e-6, None)])
def test_the_largest_slice_that_a_cache_holds_is_taken(held, expected):
    """A batch of twelve goes in two, three, four, six or twelve; its weights are in every slice."""
    group = group_of("gated_conv", {"B": 12, "T": 64, "C": 16, "O": 16, "W": 2})
    inputs = group.module.inputs(group.shape, "fp32", "cpu", 0)
    whole = other_cases.touched_bytes(
        group, "reference", group.shape, lambda: group.kernel.implementations["reference"].run(group.shape, **inputs)
    )
    untried = {}
    count, call = other_cases.slice_of(group, "reference", held * whole, untried)
    if expected is None:
        assert call is None and "no slice" in untried["sliced"]
    else:
        assert (count, call()[0].shape[0], untried) == (expected, 12 // expected, {})


@pytest.mark.parametrize(
    ("name", "sizes", "held", "expected"),
    [
        ("lstm_step", {"B": 8, "I": 128, "H": 128}, 4e5, {"B": 4}),  # its bytes are its weights
        ("lstm_step", {"B": 7, "I": 128, "H": 128}, 1e5, None),  # nothing that halves but the weights
        ("lstm_step", {"B": 8, "I": 128, "H": 128}, 1e9, None),  # a cache holds them
        ("lstm_step", {"B": 512, "I": 16, "H": 16}, 1e3, None),  # its bytes are its states
        ("transformer_block", {"B": 1, "T": 16, "M": 64, "N": 1, "F": 256}, 1.5e5, {"T": 8}),
        ("lstm", {"B": 2, "T": 4, "I": 128, "H": 128}, 4e5, {"B": 1}),  # half the steps are another chain
    ],
)
def test_half_the_arithmetic_goes_through_nearly_all_bytes(name, sizes, held, expected):
    group = group_of(name, sizes)
    group.device.free_memory_bytes = lambda: 1 << 30
    inputs = group.module.inputs(group.shape, "fp32", "cpu", 0)
    run = group.kernel.implementations["reference"].run
    whole = other_cases.touched_bytes(group, "reference", group.shape, lambda: run(group.shape, **inputs))
    untried = {}
    calls = other_cases.lighter(group, "reference", whole, held, True, untried)
    if expected is None:
        assert not calls and "no case of half its arithmetic" in untried["lighter"]
        return
    smaller = replace(group.shape, **expected)
    assert len(calls) > 1 and not untried
    assert calls[0]()[0].shape == run(smaller, **group.module.inputs(smaller, "fp32", "cpu", 0))[0].shape


@pytest.mark.parametrize(
    ("name", "sizes", "expected"),
    [
        ("attention_decode", {"B": 1, "N": 8, "K": 1024, "P": 64}, ({"K": 512}, 2)),  # half the keys
        ("attention_decode", {"B": 3, "N": 8, "K": 1024, "P": 64}, ({"B": 1}, 3)),  # the batch first
        ("attention", {"B": 1, "N": 6, "S": 256, "P": 64}, ({"N": 3, "G": 3}, 2)),  # heads with their keys
        ("gated_conv", {"B": 1, "T": 4096, "C": 16, "O": 16, "W": 2}, ({"T": 2048}, 2)),
        ("lstm", {"B": 1, "T": 64, "I": 64, "H": 64}, None),  # half the steps are another chain, half of H a quarter
    ],
)
def test_a_slice_is_an_equal_part_of_the_work(name, sizes, expected):
    group = group_of(name, sizes)
    first = next(other_cases.cuts(group, group.shape), None)
    if expected is None:
        assert first is None
    else:
        assert first == (replace(group.shape, **expected[0]), expected[1])


@pytest.mark.parametrize(
    ("name", "sizes", "expected"),
    [
        ("lstm", {"B": 4, "T": 3, "I": 5, "H": 6}, True),
        ("lstm", {"B": 1, "T": 4, "I": 5, "H": 6}, False),
        ("lstm", {"B": 1, "T": 3, "I": 5, "H": 6}, None),
        ("gated_conv", {"B": 4, "T": 8, "C": 4, "O": 4, "W": 2}, None),  # nothing waits
        ("dilated_conv", {"B": 4, "T": 8, "C": 4, "W": 2, "L": 3}, None),  # the chain runs through layers
        ("lstm_step", {"B": 4, "I": 5, "H": 6}, None),  # no steps
    ],
)
def test_steps_are_doubled_only_where_they_make_the_chain(name, sizes, expected):
    group = group_of(name, sizes)
    untried = {}
    found = other_cases.longer(group, "reference", untried)
    assert (found[0] if found else None) == expected
    assert bool(untried) == (sizes.get("T") == 3 and expected is None)
    if found:
        assert found[1]()[0].shape[0] * found[1]()[0].shape[1] == sizes["B"] * sizes["T"]


def test_the_parent_keeps_it_with_the_point_it_belongs_to():
    points = [point(timing(1.0)), point(timing(1.0), cache="warm"), point(timing(1.0), implementation="other")]
    event = {"event": "attribution", "implementation": "torch", "cache": "cold", "clock": "host"}
    found = with_afterthoughts(points, event | {"found": {"wall": "memory"}})
    assert [p.attribution.wall if p.attribution else None for p in found] == ["memory", None, None]


MADE = 4 * 256 * 256  # bytes of one result


@pytest.mark.parametrize(
    ("call", "results"),
    [
        (lambda x: x + 1, 1),
        (lambda x: (x + 1, x + 2, x[:1], x), 2),  # a view of the input is no new memory
        (lambda x: ((x + 1) * 2).exp_().sum(), 2),  # the first is freed when the second is there; exp_ makes nothing
        (lambda x: [x := x + 1 for _ in range(9)][-1], 9),  # all are kept
        (lambda x: torch.softmax(x @ x.T, -1) @ x, 2),
    ],
)
def test_what_a_call_makes_is_counted_while_it_lives(call, results):
    x = torch.ones(256, 256)
    with torch.no_grad():
        assert made_bytes(lambda: call(x)) // MADE == results


@dataclass(frozen=True)
class Scores:
    """Sizes of a call that looks like attention."""

    B: int


def tried(knee_bytes, caches=("cold", "warm")):
    """Experiments on a result of [8, 256] by way of scores [8, 256, 256], which the declared bytes leave out."""

    def run(shape, x):
        return ((x[:, :, None] * x[:, None, :]).sum(-1),)

    def work(shape, dtype, direction):
        size = 4 * 256 * shape.B
        return Work(terms=terms("read_bytes", ("x", size, "")) + terms("write_bytes", ("y", size, "")))

    module = SimpleNamespace(work=work, inputs=lambda shape, *rest: {"x": torch.ones(shape.B, 256)})
    device = SimpleNamespace(
        kind="cpu",
        torch_device="cpu",
        last_cache_bytes=lambda: 1 << 40,
        finish=lambda: None,
        stopwatch=lambda cache, clock: HostStopwatch(block=cache == "warm"),
    )
    kernel = SimpleNamespace(module=module, implementations={"row": Implementation(run)})
    group = Group(device, kernel, Scores(8), "fp32", "forward", 0)
    subjects = [
        Subject("row", cache, "host", [lambda: run(None, torch.ones(8, 256))], HostStopwatch(cache == "warm"))
        for cache in caches
    ]
    told = []
    options = {"attribution": True, "budget_s": 0.01, "cache_bytes": knee_bytes}
    with torch.no_grad():
        attribute(group, subjects, options, lambda event, **data: told.append(data))
    return {name for name, ratio in told[-1]["found"].items() if isinstance(ratio, dict)} - {"halved"}


def test_intermediate_results_count_for_what_fits_in_the_cache():
    assert tried(2.5 * MADE) == {"sliced"}, "the scores of two of eight fit, so slices of two are tried"
    assert tried(100 * MADE) == {"rotated"}
    assert tried(None) == {"rotated"}, "half of what is reported, where no knee is known"


@pytest.mark.parametrize(("caches", "expected"), [(("cold",), {"rotated"}), (("warm",), set())])
def test_a_suite_may_time_one_state_of_the_caches(caches, expected):
    assert tried(100 * MADE, caches) == expected


def test_slow_calls_are_not_tried():
    slow = Subject("row", "cold", "host", [], HostStopwatch(False), estimate_s=60.0)
    found = attribution._experiments(SimpleNamespace(), "row", {"cold": slow, "warm": slow}, True, 1.0, None)
    assert found.reason == attribution.TOO_SLOW
