"""The plug-in inside a pytest of its own: what passes, what fails, what is left open, and what it imports."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAD = """
import time, pytest, torch
from seqroof.roofline import Work
from seqroof.roofline.machine import Machine
from seqroof.roofline.work import terms
from seqroof.roofline.machine import Ceiling

x = torch.ones(4)
quick = {"rounds": 8, "budget_s": 0.05}
work = Work(terms=terms("read_bytes", ("x", 16, "once")))
roof = Ceiling(quantity="bandwidth", level="dram", value=1e12, unit="B/s", provenance="measured", how="by hand",
               pattern="read")
machine = Machine(id="m", name="m", machine_class="cpu", device="cpu", ceilings=(roof,))

def slow(x):
    time.sleep(0.006)

def fast(x):
    time.sleep(0.001)
"""
TESTS = """
def test_faster_passes(seqroof):
    assert seqroof.no_slower(fast, [x], slow, **quick).value < 1

def test_slower_fails(seqroof):
    seqroof.no_slower(slow, [x], fast, **quick)

def test_too_few_rounds_skip(seqroof):
    seqroof.no_slower(fast, [x], fast, rounds=3, budget_s=0.01)

def test_too_few_rounds_fail_where_asked(seqroof):
    seqroof.no_slower(fast, [x], fast, rounds=3, budget_s=0.01, ambiguous="fail")

def test_no_baseline_skips(seqroof):
    seqroof.no_slower(fast, [x], **quick)

def test_share_fails(seqroof):
    seqroof.at_least(0.5, fast, [x], work, machine=machine, budget_s=0.05)

def test_share_passes(seqroof):
    assert seqroof.at_least(0.0, fast, [x], work, machine=machine, budget_s=0.05).time_s.median > 0
"""
AGAINST = """
@pytest.mark.parametrize("kind", ["a", "b"])
def test_since(seqroof, kind):
    seqroof.no_slower(fast, [x], **quick)
"""


def run_pytest(folder, text, *arguments):
    """Run pytest in a folder with nothing but the plug-in; returns outcomes by test, and what was printed."""
    (folder / "test_inner.py").write_text(HEAD + text)
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    words = ["-p", "seqroof.scripts.pytest_plugin", "-p", "no:cacheprovider", "-rA", "-q", "--rootdir", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, *map(str, arguments), "test_inner.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [line.split("::") for line in done.stdout.splitlines() if "::" in line and line.split()[0].isupper()]
    outcomes = {name.split(" - ")[0]: head.split()[0] for head, name in lines}
    return outcomes, " ".join((done.stdout + done.stderr).split())


def test_assertions_pass_fail_and_skip(tmp_path):
    outcomes, told = run_pytest(tmp_path, TESTS)
    assert outcomes == {
        "test_faster_passes": "PASSED",
        "test_slower_fails": "FAILED",
        "test_too_few_rounds_fail_where_asked": "FAILED",
        "test_share_fails": "FAILED",
        "test_share_passes": "PASSED",
    }
    assert "2 passed" in told and "3 failed" in told and "2 skipped" in told, told
    assert "times as long as fast" in told and "up to 1.01 was allowed" in told
    assert "only 3 rounds, which give no interval: measure with --rounds" in told
    assert "--seqroof-against" in told and "of the machine; 50 % was expected" in told


def test_a_saved_run_is_the_baseline_of_the_next(tmp_path):
    outcomes, told = run_pytest(tmp_path, AGAINST, "--seqroof-save", "base")
    assert "2 skipped" in told, told
    file = tmp_path / "base" / "run.json"
    run = json.loads(file.read_text())
    assert [point["kernel"] for point in run["points"]] == ["test_since[a]", "test_since[b]"]
    for point, factor in zip(run["points"], (100.0, 0.01)):  # far beyond any noise: the first was slow, the second fast
        time = point["time_s"]
        time |= {name: factor * time[name] for name in ("median", "low", "high", "min", "p95")}
        time["rounds_s"] = [factor * value for value in time["rounds_s"]]
    file.write_text(json.dumps(run))
    outcomes, told = run_pytest(tmp_path, AGAINST, "--seqroof-against", "base")
    assert outcomes == {"test_since[a]": "PASSED", "test_since[b]": "FAILED"} and "the baseline" in told
    run["points"] = run["points"][:1]
    run["environment"]["threads"] += 1
    file.write_text(json.dumps(run))
    outcomes, told = run_pytest(tmp_path, AGAINST, "--seqroof-against", "base")
    assert set(outcomes.values()) == {"FAILED"} and "another machine or set-up (threads" in told


def test_loading_it_imports_neither_torch_nor_the_tool():
    code = "import seqroof.scripts.pytest_plugin, sys; print([n for n in sys.modules if n in ('torch', 'pydantic')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_it_is_found_where_seqroof_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"seqroof": "seqroof.scripts.pytest_plugin"}


def test_an_undecided_measurement_is_open_unless_it_must_be_proven():
    from seqroof.scripts.pytest_plugin import DEFAULT_AMBIGUOUS, _undecided

    with pytest.raises(pytest.skip.Exception, match="AMBIGUOUS: so so"):
        _undecided("so so", DEFAULT_AMBIGUOUS)
    with pytest.raises(pytest.fail.Exception, match="AMBIGUOUS: so so"):
        _undecided("so so", "fail")
