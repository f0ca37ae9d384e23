"""The promises about verdicts, on a smaller simulation than docs/noise.md holds; and that it can find them broken."""

import math
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from seqroof.roofline.ratio import Ratio, paired
from seqroof.roofline.stats import median_interval, student
from seqroof.scripts import noise_benchmark
from seqroof.scripts import noise_simulation as simulation
from seqroof.scripts.noisy_machines import WEATHERS

REPETITIONS = 200
PAGE = Path(__file__).resolve().parents[2] / "docs" / "noise.md"
STEPS = WEATHERS[2]


@pytest.fixture(scope="module")
def tallies():
    return [simulation.simulate_pairs(weather, 1.0, REPETITIONS) for weather in WEATHERS]


@pytest.fixture(scope="module")
def together():
    return [simulation.simulate_overall(weather, 1.0, 100) for weather in WEATHERS]


def mean(rows, name):
    return sum(getattr(row, name) for row in rows) / len(rows)


def in_sequence(base, new):
    """What a naive tool does: one median after the other, their intervals end against end, no pairs."""
    (low, middle, high), (new_low, new_middle, new_high) = median_interval(base), median_interval(new)
    return Ratio(new_middle / middle, new_low / high, new_high / low, len(base))


def as_if_independent(ratios):
    """Own parts that average out, and no noise between runs: what all points in one storm do not do."""
    logs = [math.log(ratio.value) for ratio in ratios]
    own = [math.sqrt(max(0.0, math.log(ratio.high / ratio.value) ** 2 - ratio.fixed**2)) for ratio in ratios]
    half = math.sqrt(sum(value**2 for value in own)) / len(own)
    middle = sum(logs) / len(logs)
    return Ratio(math.exp(middle), math.exp(middle - half), math.exp(middle + half), ratios[0].rounds)


def test_identical_code_gets_no_verdict_under_any_weather(tallies):
    assert len(tallies) == 7 and {row.count for row in tallies} == {REPETITIONS}
    assert mean(tallies, "false") <= simulation.MOST_FALSE
    assert all(row.false <= 0.02 for row in tallies)  # four of 200, where 1 % are two


def test_intervals_cover_what_they_say(tallies):
    assert mean(tallies, "coverage") >= simulation.LEAST_COVERAGE
    assert all(row.coverage >= simulation.least_coverage(row.count) for row in tallies)


def test_a_change_of_two_per_cent_is_called_by_narrow_intervals():
    found = simulation.simulate_pairs(WEATHERS[0], simulation.CHANGE, REPETITIONS)
    assert found.called >= simulation.LEAST_POWER and found.width <= simulation.MOST_WIDTH


def test_quiet_machines_say_same(tallies):
    assert tallies[0].called >= 0.95 and tallies[0].ambiguous <= 0.05


def test_separate_runs_are_not_taken_for_a_change():
    found = [simulation.simulate_runs(weather, 1.0, 100) for weather in WEATHERS]
    assert mean(found, "false") <= simulation.MOST_FALSE
    assert mean(found, "coverage") >= simulation.LEAST_COVERAGE
    assert simulation.simulate_runs(WEATHERS[0], simulation.APART, 100).called >= 0.6  # five processes tell little


def test_all_points_together_are_not_taken_for_a_change(together):
    """A drift or a step reaches all points of a run, and so does the level of the machine."""
    assert mean(together, "false") <= simulation.MOST_FALSE
    assert mean(together, "coverage") >= simulation.LEAST_COVERAGE
    assert all(row.coverage >= simulation.least_coverage(row.count) for row in together)


def test_points_that_are_taken_for_independent_are_found_out(together):
    row = simulation.simulate_overall(STEPS, 1.0, 100, together=as_if_independent)
    assert row.coverage < 0.7 and row.false > 0.05
    assert len(simulation.broken([row], [], row)) > len(simulation.broken([together[2]], [], row))


def test_a_self_test_whose_subjects_share_a_level_covers_runs():
    """Two medians of identical code lie within the noise that it finds in 95 %, though a process has one level only."""
    weather = replace(WEATHERS[0], level_noise=0.03)
    source = random.Random(9)
    inside, narrower, count = 0, 0, 600
    for _ in range(count):
        noise = simulation.self_tested(weather, source)
        apart = abs(source.gauss(0, weather.level_noise) - source.gauss(0, weather.level_noise))
        inside += apart <= noise
        narrower += apart <= noise * student(16, 0.975) / student(4, 0.975)  # every subject as a run of its own
    assert inside / count >= simulation.least_coverage(count)
    assert narrower / count < simulation.least_coverage(count)


def test_intervals_that_are_too_narrow_are_found_out():
    def overconfident(base, new):
        found = paired(base, new)
        return Ratio(found.value, found.value**0.5 * found.low**0.5, found.value**0.5 * found.high**0.5, found.rounds)

    row = simulation.simulate_pairs(WEATHERS[-1], 1.0, REPETITIONS, pairing=overconfident)
    assert row.coverage < 0.85 and row.false > simulation.MOST_FALSE
    assert any("coverage" in sentence for sentence in simulation.broken([row], [], row))


def test_a_comparison_without_pairs_loses_the_power():
    row = simulation.simulate_pairs(WEATHERS[1], simulation.CHANGE, REPETITIONS, pairing=in_sequence)
    assert row.called < 0.5 and row.width > simulation.MOST_WIDTH
    assert len(simulation.broken([row], [], row)) >= 2


def test_rows_of_changed_code_are_judged_too(tallies):
    good = tallies[0]
    bad = replace(good, name="too narrow", coverage=0.5)
    assert simulation.broken([good], [good], replace(good, width=0.005)) == []
    assert any("too narrow" in text for text in simulation.broken([good], [bad], replace(good, width=0.005)))


def test_a_machine_that_decides_nothing_is_no_proof(tallies):
    good = tallies[0]
    assert noise_benchmark.broken_here(good, good.count) == [] == noise_benchmark.caveat(good.ambiguous)
    for changes, word in (
        ({"ambiguous": 1.0}, "proves nothing"),
        ({"coverage": 0.6}, "coverage"),
        ({"false": 0.03}, "false verdicts"),
        ({"count": good.count - 1}, "--minutes"),
    ):
        (sentence,) = noise_benchmark.broken_here(replace(good, **changes), good.count)
        assert word in sentence


def test_no_ratio_at_all_is_undecided_and_no_error():
    nothing = simulation.tally("all", [], 1.0)
    assert (nothing.count, nothing.ambiguous, nothing.coverage) == (0, 1.0, 0.0)
    assert noise_benchmark.broken_here(nothing, 200)
    few = simulation.tally("all", [Ratio(1.0, None, None, 3)], 1.0)
    assert (few.count, few.ambiguous) == (1, 1.0)


def shares(page):
    """Rows of the tables on a page: name, comparisons, false, called, AMBIGUOUS and coverage in percent."""
    found = re.findall(r"^\| (.+?) \| (\d+) " + r"\| ([\d.]+) % " * 4, page, re.M)
    return [(name, *map(float, values)) for name, *values in found]


def test_the_page_is_the_scripts_and_keeps_its_promises():
    page = PAGE.read_text()
    assert noise_benchmark.INTRODUCTION.format(command=noise_benchmark.COMMAND) in page
    simulated = page.split("## Measured")[0]
    rows = shares(simulated)
    assert len(rows) == 38 and all(count >= 1000 for _, count, *_ in rows) and "overall, identical code" in simulated
    # Shares of 1000 move by 0.75 % by chance: two of that for a row, and none for all together.
    assert all(false <= 1 and coverage >= 92.5 for _, _, false, _, _, coverage in rows)
    assert sum(row[-1] for row in rows) / len(rows) >= 94


def test_what_was_measured_on_the_page_proves_something_or_says_that_it_does_not():
    measured = PAGE.read_text().split("## Measured")[1]
    _, count, false, _, ambiguous, coverage = next(row for row in shares(measured) if row[0] == "all")
    assert count >= 200 and false <= 1 and coverage >= 100 * simulation.least_coverage(int(count))
    assert ("This proves nothing" in measured) == (ambiguous > 100 * simulation.MOST_AMBIGUOUS)


def test_printing_needs_no_measurement(capsys):
    noise_benchmark.main(["--repetitions", "20", "--pairs", "0"])
    told = capsys.readouterr()
    assert "## Simulated" in told.out and "## Measured" not in told.out
    assert "the simulated part took" in told.err
