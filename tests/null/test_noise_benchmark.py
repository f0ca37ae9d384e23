"""The promises about verdicts, on a smaller simulation than docs/noise.md holds; and that it can find them broken."""

import re
from pathlib import Path

import pytest

from seqroof.roofline.ratio import Ratio, paired
from seqroof.roofline.stats import median_interval
from seqroof.scripts import noise_benchmark
from seqroof.scripts.noisy_machines import WEATHERS

REPETITIONS = 200
PAGE = Path(__file__).resolve().parents[2] / "docs" / "noise.md"


@pytest.fixture(scope="module")
def tallies():
    return [noise_benchmark.simulate_pairs(weather, 1.0, REPETITIONS) for weather in WEATHERS]


def in_sequence(base, new):
    """What a naive tool does: one median after the other, their intervals end against end, no pairs."""
    (low, middle, high), (new_low, new_middle, new_high) = median_interval(base), median_interval(new)
    return Ratio(new_middle / middle, new_low / high, new_high / low, len(base))


def test_identical_code_gets_no_verdict_under_any_weather(tallies):
    assert len(tallies) == 7 and {row.count for row in tallies} == {REPETITIONS}
    assert sum(row.false for row in tallies) / len(tallies) <= noise_benchmark.MOST_FALSE
    assert all(row.false <= 0.02 for row in tallies)  # four of 200, where 1 % are two


def test_intervals_cover_what_they_say(tallies):
    assert sum(row.coverage for row in tallies) / len(tallies) >= noise_benchmark.LEAST_COVERAGE
    assert all(row.coverage >= 0.91 for row in tallies)  # 94 % less twice what chance does to 200


def test_a_change_of_two_per_cent_is_called_by_narrow_intervals():
    found = noise_benchmark.simulate_pairs(WEATHERS[0], noise_benchmark.CHANGE, REPETITIONS)
    assert found.called >= noise_benchmark.LEAST_POWER and found.width <= noise_benchmark.MOST_WIDTH


def test_quiet_machines_say_same(tallies):
    assert tallies[0].called >= 0.95 and tallies[0].ambiguous <= 0.05


def test_separate_runs_are_not_taken_for_a_change():
    found = [noise_benchmark.simulate_runs(weather, 1.0, 100) for weather in WEATHERS]
    assert sum(row.false for row in found) / len(found) <= noise_benchmark.MOST_FALSE
    assert sum(row.coverage for row in found) / len(found) >= noise_benchmark.LEAST_COVERAGE
    assert noise_benchmark.simulate_runs(WEATHERS[0], noise_benchmark.APART, 100).called >= 0.8


def test_intervals_that_are_too_narrow_are_found_out():
    def overconfident(base, new):
        found = paired(base, new)
        return Ratio(found.value, found.value**0.5 * found.low**0.5, found.value**0.5 * found.high**0.5, found.rounds)

    row = noise_benchmark.simulate_pairs(WEATHERS[-1], 1.0, REPETITIONS, pairing=overconfident)
    assert row.coverage < 0.85 and row.false > noise_benchmark.MOST_FALSE
    assert any("coverage" in sentence for sentence in noise_benchmark.broken([row], row))


def test_a_comparison_without_pairs_loses_the_power():
    row = noise_benchmark.simulate_pairs(WEATHERS[1], noise_benchmark.CHANGE, REPETITIONS, pairing=in_sequence)
    assert row.called < 0.5 and row.width > noise_benchmark.MOST_WIDTH
    assert len(noise_benchmark.broken([row], row)) >= 2


def test_the_page_is_the_scripts_and_keeps_its_promises():
    page = PAGE.read_text()
    assert noise_benchmark.INTRODUCTION.format(command=noise_benchmark.COMMAND) in page
    simulated = page.split("## Measured")[0]
    rows = re.findall(r"^\| (.+?) \| (\d+) \| ([\d.]+) % \| [\d.]+ % \| [\d.]+ % \| ([\d.]+) %", simulated, re.M)
    assert len(rows) >= 30 and all(int(count) >= 1000 for _, count, _, _ in rows)
    # Shares of 1000 move by 0.75 % by chance: two of that for a row, and none for all together.
    assert all(float(false) <= 1 and float(coverage) >= 92.5 for _, _, false, coverage in rows)
    assert sum(float(coverage) for *_, coverage in rows) / len(rows) >= 94
    measured = re.search(r"^\| all \| (\d+) \| ([\d.]+) %", page.split("## Measured")[1], re.M)
    assert measured and int(measured[1]) >= 200 and float(measured[2]) <= 1


def test_printing_needs_no_measurement(capsys):
    noise_benchmark.main(["--repetitions", "20", "--pairs", "0"])
    told = capsys.readouterr().out
    assert "## Simulated" in told and "## Measured" not in told
