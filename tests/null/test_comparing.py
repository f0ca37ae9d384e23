"""`seqroof compare`: what it prints, what it refuses, what it names, and its exit codes."""

import io
import json
import math
from dataclasses import replace

import pytest
import samples
from rich.console import Console

from seqroof.roofline import compare_table
from seqroof.roofline.compare import LeftOut, compare_runs, noise_between
from seqroof.roofline.comparison_model import Noise
from seqroof.roofline.record import Evidence
from seqroof.roofline.run_noise import FEWEST_POINTS, KnownNoise, assumed
from seqroof.roofline.store import save
from seqroof.scripts import comparing
from seqroof.scripts.exits import Exit, Stop

QUIET = KnownNoise(0.002, "measured", "by hand")


def noise(run, **changes):
    fields = {
        "machine": run.machine.id,
        "device_hash": run.environment.device_hash,
        "threads": run.environment.threads,
        "when": "2026-11-21T00:00:00",
        "workers": 5,
        "rounds": 20,
        "between_runs": 0.002,
    }
    return Noise(**(fields | changes))


def scaled(run, factor, chosen=lambda point: True, **changes):
    """The run with the times of some points multiplied."""

    def slower(point):
        if point.time_s is None or not chosen(point):
            return point
        names = ("median", "low", "high", "min", "p95")
        times = point.time_s.model_copy(update={name: factor * getattr(point.time_s, name) for name in names})
        return point.model_copy(update={"time_s": times})

    return run.model_copy(update={"points": tuple(map(slower, run.points)), **changes})


def first_timed(run):
    return next(point for point in run.points if point.status == "ok" and point.time_s)


@pytest.fixture
def run():
    made = samples.run()
    return made.model_copy(update={"noise": noise(made)})


def gate(base, new, *arguments, **options):
    return comparing.print_comparison(base, new, 0.01, *arguments, **options)


def test_one_slower_point_fails_the_gate_and_comes_first(run, capsys):
    key = first_timed(run).key
    assert gate(run, scaled(run, 1.2, lambda point: point.key == key)) == Exit.GATE_FAILED
    told = capsys.readouterr().out
    assert "SLOWER: 1 point\n" in told and "1.200" in told
    assert told.index("SLOWER") < told.index("Overall")


def test_all_points_together_fail_the_gate_where_none_does_alone(run):
    """Every point is 2.5 % slower: one in so many may seem so by chance, all of them hardly ever do."""
    new = scaled(run, 1.025)
    made = compare_runs(run, new, QUIET)
    assert {comparison.verdict for comparison in made.found} == {"AMBIGUOUS"}
    assert made.verdict == "SLOWER" and made.slower and gate(run, new) == Exit.GATE_FAILED


def test_faster_ambiguous_and_the_same_pass_the_gate(run):
    key = first_timed(run).key
    for factor in (0.7, 1.0, 1.01):
        assert gate(run, scaled(run, factor, lambda point: point.key == key)) == Exit.OK


def test_what_could_not_be_compared_is_named(run, capsys):
    one, *rest = [point for point in run.points if point.status == "ok" and point.headline]
    broken = one.model_copy(update={"status": "invalid", "reason": "it [cheats]"})
    lost = rest[0]
    new = run.model_copy(update={"points": (broken, *(p for p in run.points if p not in (one, lost)))})
    made = compare_runs(run, new, QUIET)
    told = {left.point.key: left.why for left in made.left_out}
    assert told[one.key] == "invalid in NEW (it [cheats])" and told[lost.key] == "not in NEW"
    assert compare_runs(new, run, QUIET).left_out and len(made.found) + len(made.left_out) <= len(run.points)
    gate(run, new)
    shown = capsys.readouterr().out
    assert "it [cheats]" in shown and "not in NEW" in shown


@pytest.mark.parametrize(
    ("status", "code"),
    [("wrong", 3), ("invalid", 5), ("crashed", 6), ("hung", 6), ("oom", 6), ("skipped", 0)],
)
@pytest.mark.parametrize("headline", [True, False])
def test_what_base_measured_and_new_did_not_get_right_fails_the_gate(run, capsys, status, code, headline):
    lost = next(point for point in run.points if point.status == "ok" and point.headline == headline)
    failed = lost.model_copy(update={"status": status, "reason": "for a reason", "time_s": None})
    new = run.model_copy(update={"points": tuple(failed if point is lost else point for point in run.points)})
    assert gate(run, new) == code == gate(run, scaled(new, 1.0), as_json=True)
    assert gate(new, run) == Exit.OK, "what BASE had not measured is no loss"
    assert not code or f"{status} in NEW" in capsys.readouterr().out
    slower = gate(run, scaled(new, 2.0))
    assert slower == (code or Exit.GATE_FAILED)


def test_a_point_that_new_was_not_asked_for_is_named_and_fails_nothing(run, capsys):
    new = run.model_copy(update={"points": run.points[1:]})
    assert gate(run, new) == Exit.OK and "not in NEW" in capsys.readouterr().out


def test_a_gate_that_compared_nothing_does_not_pass(run, capsys):
    one = first_timed(run)
    hidden = one.model_copy(update={"headline": False})
    other = one.model_copy(update={"kernel": "another"})
    failed = one.model_copy(update={"status": "crashed", "time_s": None})
    for points, others, code, words in (
        ((one,), (other,), Exit.USAGE, "measure the same cases"),
        ((hidden,), (hidden,), Exit.USAGE, "--all"),
        ((), (), Exit.USAGE, "neither run holds"),
        ((one,), (failed,), Exit.CASE_FAILED, ""),
    ):
        base, new = (run.model_copy(update={"points": held}) for held in (points, others))
        assert gate(base, new) == code
        assert words in capsys.readouterr().err
    assert gate(run.model_copy(update={"points": (hidden,)}), run, everything=True) == Exit.OK


def test_no_text_of_a_run_reaches_the_terminal_as_it_is(run):
    odd = "\x1b[31mred\n"
    points = tuple(
        point.model_copy(update={"implementation": odd, "kernel": odd, "dtype": odd, "shape": {odd: 1}})
        for point in run.points[:1]
    )
    hostile = run.model_copy(update={"points": points})
    noise_ = KnownNoise(0.002, "measured", odd)
    made = compare_runs(hostile, scaled(hostile, 2.0), noise_, everything=True)
    left = LeftOut(points[0], odd, "missing")
    console = Console(width=100, file=io.StringIO(), highlight=False)
    compare_table.render(replace(made, left_out=(left,)), console, (odd,), everything=True)
    assert made.found and "\x1b" not in console.file.getvalue() and "2.000" in console.file.getvalue()


def test_skipped_on_both_sides_is_no_loss(run):
    skipped = tuple(point.model_copy(update={"status": "skipped", "time_s": None}) for point in run.points)
    both = run.model_copy(update={"points": skipped})
    assert compare_runs(both, both, QUIET).left_out == ()


def test_other_machines_and_set_ups_are_refused_unless_asked_for(run, capsys):
    other = run.model_copy(update={"machine": run.machine.model_copy(update={"id": "another"})})
    threads = run.model_copy(update={"environment": run.environment.model_copy(update={"threads": 99})})
    for new, word in ((other, "machine"), (threads, "threads 99|99 in NEW")):
        with pytest.raises(Stop, match=word) as stop:
            gate(run, new)
        assert stop.value.code == Exit.NO_DEVICE
        assert gate(run, new, across_machines=True) == Exit.OK
        assert "compared-across-machines" in capsys.readouterr().out


def test_a_changed_version_is_said(run, capsys):
    base, new = (
        run.model_copy(update={"environment": run.environment.model_copy(update={"torch": version})})
        for version in ("2.13.0", "9.9")
    )
    assert gate(base, new) == Exit.OK
    assert "torch: 2.13.0, now 9.9" in " ".join(capsys.readouterr().out.split())


def test_the_noise_is_that_of_the_machine_or_a_stated_default(run, tmp_path, monkeypatch):
    from seqroof.scripts import stored_noise

    monkeypatch.chdir(tmp_path)
    bare = run.model_copy(update={"noise": None})
    assert noise_between(bare, bare).provenance == "assumed"
    assert "doctor --aa" in noise_between(bare, bare).source
    stored_noise.store_noise(noise(run, when="2026-11-22T00:00:00", between_runs=0.004))
    stored = stored_noise.stored_noise(run)
    assert noise_between(run, bare, stored).value == 0.004  # the newest
    noted = stored_noise.with_noise(bare)
    assert noted.noise == stored and noted.observations[-1].id == "resolution"
    assert [finding.state for finding in stored_noise.resolution()] == ["ok"]
    foreign = noise(run, threads=99)
    assert noise_between(bare, bare, foreign).provenance == "assumed"


def pairs(run, *factors, states=1):
    """A point of BASE and NEW for every factor: of so many cases, `states` points each."""
    one = first_timed(run)
    for index, factor in enumerate(factors):
        old = one.model_copy(update={"shape": {"B": 1 + index // states}})
        time = old.time_s.model_copy(update={"median": factor * old.time_s.median})
        yield old, old.model_copy(update={"time_s": time})


def unmeasured(run, rate=None):
    """The run with a calibration copy of this rate, or none, on a machine whose noise nobody measured."""
    entry = Evidence(id="calibration-copy", values={"start_bytes_per_s": rate}, how="by hand")
    return run.model_copy(update={"noise": None, "evidence": (entry,) if rate else ()})


def test_runs_that_scatter_are_known_to_be_noisy(run):
    bare = unmeasured(run)
    wild = list(pairs(run, *(1.4, 0.7) * (FEWEST_POINTS // 2)))
    known = assumed(bare, bare, wild)
    assert known.provenance == "derived" and known.value > math.log(1.4)
    assert assumed(bare, bare, wild[:-1]).provenance == "assumed"  # too few points to tell
    assert assumed(bare, bare, list(pairs(run, *[1.4] * FEWEST_POINTS))).provenance == "assumed"  # all moved alike


def test_a_few_changed_kernels_do_not_make_runs_noisy(run):
    bare = unmeasured(run)
    assert assumed(bare, bare, list(pairs(run, *(1.0, 1.001, 0.999) * 20, 3.0, 2.0))).provenance == "assumed"


def test_the_noise_holds_most_ratios_of_long_tails(run):
    """One in ten moves by half: a normal law through the median deviation would hold nine tenths of them."""
    bare = unmeasured(run)
    known = assumed(bare, bare, list(pairs(run, *(*[1.0, 1.001, 0.999] * 3, 1.5) * 10)))
    assert known.provenance == "derived" and known.value >= math.log(1.5)


def test_cold_and_warm_of_a_case_count_once(run):
    bare, wild = unmeasured(run), (1.4, 0.7) * 30
    alone, doubled = (assumed(bare, bare, list(pairs(run, *wild, states=states))).freedom for states in (1, 2))
    assert alone == 20 and doubled == 10


def test_a_calibration_copy_that_moved_counts_as_noise(run):
    one = list(pairs(run, 1.5))
    known = assumed(unmeasured(run, 20e9), unmeasured(run, 30e9), one)
    assert known.provenance == "derived" and known.value == pytest.approx(math.log(1.5)) and known.freedom == 1
    assert "calibration copy" in known.source
    still = assumed(unmeasured(run, 20e9), unmeasured(run, 20.1e9), one)
    assert still.provenance == "assumed" and "without a calibration copy" not in still.source
    assert "without a calibration copy" in assumed(unmeasured(run, 20e9), unmeasured(run), one).source


def test_scatter_and_shift_add_in_squares(run):
    wild = list(pairs(run, *(1.4, 0.7) * 30))
    scatter, shift = assumed(unmeasured(run), unmeasured(run), wild).value, math.log(1.5)
    both = assumed(unmeasured(run, 20e9), unmeasured(run, 30e9), wild)
    assert both.value == pytest.approx(math.hypot(scatter, shift)) and 1 <= both.freedom < 20


def test_a_single_point_is_not_judged_by_a_noise_that_nobody_measured(run):
    bare = unmeasured(run)
    guess = noise_between(bare, bare)
    key = first_timed(run).key
    made = compare_runs(bare, scaled(bare, 3.0, lambda point: point.key == key), guess)
    assert guess.provenance == "assumed" and not made.slower
    (open_one,) = [comparison for comparison in made.found if comparison.point.key == key]
    assert open_one.verdict == "AMBIGUOUS" and "doctor --aa" in open_one.advice
    few = bare.model_copy(update={"points": (first_timed(run).model_copy(update={"headline": True}),)})
    assert compare_runs(few, scaled(few, 3.0), guess).verdict == "AMBIGUOUS"


def test_all_points_together_are_judged_beyond_a_noise_that_nobody_measured(run):
    bare = unmeasured(run)
    made = compare_runs(bare, scaled(bare, 1.5), noise_between(bare, bare), everything=True)
    assert len(made.found) >= FEWEST_POINTS and made.verdict == "SLOWER" and made.slower
    assert {comparison.verdict for comparison in made.found} == {"AMBIGUOUS"}


def test_a_noise_is_kept_for_every_device_and_number_of_threads(run, tmp_path, monkeypatch):
    from seqroof.scripts import stored_noise

    monkeypatch.chdir(tmp_path)
    bare = run.model_copy(update={"noise": None})
    for changes in ({}, {"threads": 3}, {"computer_hash": "abc"}, {"device_hash": "def"}, {"machine": "../../x"}):
        assert stored_noise.store_noise(noise(run, **changes)).parent == stored_noise.NOISE
    assert len(stored_noise.resolution()) == 5
    assert stored_noise.stored_noise(bare).threads == bare.environment.threads
    three = bare.environment.model_copy(update={"threads": 3})
    assert stored_noise.stored_noise(bare.model_copy(update={"environment": three})).threads == 3
    elsewhere = bare.environment.model_copy(update={"computer_hash": "another"})
    found = stored_noise.stored_noise(bare.model_copy(update={"environment": elsewhere}))
    assert found is not None and found.computer_hash == ""  # one that says nothing of the computer
    (tmp_path / stored_noise.NOISE / "torn.json").write_text("{")
    assert len(stored_noise.resolution()) == 5


def _on(run, **changes):
    return run.model_copy(update={"environment": run.environment.model_copy(update=changes)})


@pytest.mark.parametrize("name", ["computer_hash", "units", "memory_nodes", "caches"])
def test_another_processor_of_the_same_name_is_refused(run, capsys, name):
    with pytest.raises(Stop, match="one in BASE, other in NEW") as stop:
        gate(_on(run, **{name: "one"}), _on(run, **{name: "other"}))
    assert stop.value.code == Exit.NO_DEVICE
    assert gate(_on(run, **{name: "one"}), _on(run, **{name: "one"})) == Exit.OK
    assert gate(run, _on(run, **{name: "one"})) == Exit.OK, "an older run does not hold it"
    assert "do not tell whether they come from one computer" in " ".join(capsys.readouterr().out.split())


def test_a_known_computer_or_gpu_needs_no_note(run, capsys):
    for name in ("computer_hash", "device_hash"):
        gate(_on(run, **{name: "one"}), _on(run, **{name: "one"}))
        assert "do not tell" not in capsys.readouterr().out


def test_json_holds_every_point_and_the_band(run, capsys):
    assert gate(run, scaled(run, 1.2), as_json=True) == Exit.GATE_FAILED
    found = json.loads(capsys.readouterr().out)
    assert {entry["verdict"] for entry in found["points"]} == {"SLOWER"} and found["band"] == 0.01
    assert found["overall"]["ratio"] == pytest.approx(1.2) and found["overall"]["verdict"] == "SLOWER"
    assert found["noise"]["provenance"] == "measured" and found["not_headline"] == _hidden(run) > 0
    assert all(entry["low"] <= entry["ratio"] <= entry["high"] for entry in found["points"])


def _hidden(run):
    return sum(not point.headline for point in run.points)


@pytest.mark.parametrize(("text", "value"), [("1%", 0.01), ("0.02", 0.02), ("2.5 %", 0.025), ("0", 0.0)])
def test_a_band_is_a_share(text, value):
    assert comparing.parse_band(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["-1%", "wide", "1", "100%", "%"])
def test_a_band_that_is_none_gets_a_sentence(text):
    with pytest.raises(Stop, match="write it as 1%") as stop:
        comparing.parse_band(text)
    assert stop.value.code == Exit.USAGE


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal(run, width):
    hostile = tuple(
        point.model_copy(update={"implementation": "x" * 30 if index % 9 == 0 else point.implementation})
        for index, point in enumerate(run.points)
    )
    base = run.model_copy(update={"points": hostile})
    console = Console(width=width, file=io.StringIO(), highlight=False)
    compare_table.render(compare_runs(base, scaled(base, 1.1), QUIET), console, ("a note",), everything=True)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width and any("1.100" in line for line in lines)


def test_what_seems_unchanged_is_counted_not_listed(run, capsys):
    """1.0 and 1.5 under a noise of 60 %: both are open, and only one of them looks like news."""
    key = first_timed(run).key
    noisy = run.model_copy(update={"noise": noise(run, between_runs=0.6)})
    gate(noisy, scaled(noisy, 1.5, lambda point: point.key == key))
    told = capsys.readouterr().out
    assert ", 1 of them beyond the band so far" in told and "1.500" in told and "1.000" not in told.split("Overall")[0]
    gate(noisy, noisy, everything=True)
    assert "1.000  [" in capsys.readouterr().out


def test_the_command_compares_folders(run, tmp_path):
    for name, factor in (("base", 1.0), ("new", 1.3)):
        (tmp_path / name).mkdir()
        save(scaled(run, factor), tmp_path / name)
    assert comparing.compare(tmp_path / "base", tmp_path / "new", "1%", False, False, True) == 1
    assert comparing.compare(tmp_path / "base", tmp_path / "new", "40%", False, False, True) == 0
