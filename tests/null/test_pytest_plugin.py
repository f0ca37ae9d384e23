"""The plug-in inside a pytest of its own: what passes, what fails, what is left open, and what it imports."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import samples
from round_machine import ROUND, point, timing, work

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


TWICE = """
class TestOne:
    def test_same(self, seqroof):
        seqroof.no_slower(fast, [x], **quick)

class TestTwo:
    def test_same(self, seqroof):
        try:
            seqroof.no_slower(fast, [x], **quick)
        except pytest.skip.Exception:
            pass
        try:
            seqroof.no_slower(fast, [torch.ones(5)], **quick)
        except pytest.skip.Exception:
            pass
        seqroof.no_slower(fast, [x], name="again", **quick)

def test_ambiguous(seqroof):
    try:
        seqroof.no_slower(fast, [x], **quick)
    except pytest.skip.Exception:
        pass
    seqroof.no_slower(fast, [torch.zeros(4)], **quick)

def test_threads(seqroof):
    torch.set_num_threads(torch.get_num_threads() + 1)
    seqroof.no_slower(fast, [x], **quick)
"""


def run_pytest(folder, text, *arguments, conftest=""):
    """Run pytest in a folder with nothing but the plug-in; returns outcomes by test, and what was printed."""
    (folder / "test_inner.py").write_text(HEAD + text)
    (folder / "conftest.py").write_text(conftest)
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
    told = re.findall(r"^([A-Z]+) \S+?::(\S+)", done.stdout, re.M)
    outcomes = {name: outcome for outcome, name in told}
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
    assert "only 3 rounds, which give no interval: measure with rounds=24" in told and "--rounds" not in told
    assert "--seqroof-against" in told and "of the machine; 50 % was expected" in told


def test_a_saved_run_is_the_baseline_of_the_next(tmp_path):
    outcomes, told = run_pytest(tmp_path, AGAINST, "--seqroof-save", "base")
    assert "2 skipped" in told, told
    file = tmp_path / "base" / "run.json"
    run = json.loads(file.read_text())
    assert [kept["kernel"] for kept in run["points"]] == [
        "test_inner.py::test_since[a]",
        "test_inner.py::test_since[b]",
    ]
    assert run["points"][0]["shape"] == {"in0.0": 4}
    for kept, factor in zip(run["points"], (100.0, 0.01)):  # far beyond any noise: the first was slow, the second fast
        time = kept["time_s"]
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


def test_every_measurement_has_a_key_of_its_own(tmp_path):
    outcomes, told = run_pytest(tmp_path, TWICE, "--seqroof-save", "base")
    kept = [
        (entry["kernel"].removeprefix("test_inner.py::"), entry["shape"]["in0.0"])
        for entry in json.loads((tmp_path / "base" / "run.json").read_text())["points"]
    ]
    first, second = ("TestOne::test_same", 4), ("TestTwo::test_same", 4)
    assert kept == [first, second, (second[0], 5), (f"{second[0]} again", 4), ("test_ambiguous", 4)]
    assert outcomes == {"test_ambiguous": "FAILED", "test_threads": "FAILED"} and "2 skipped" in told
    assert "test_ambiguous was measured twice with inputs of the same sizes" in told and 'name="..."' in told
    assert "threads in this test" in told and "conftest.py" in told


XDIST = 'def pytest_addoption(parser): parser.addoption("--numprocesses", dest="numprocesses", type=int)'


def test_what_could_not_be_kept_is_refused_before_a_test_runs(tmp_path):
    (tmp_path / "file").write_text("")
    outcomes, told = run_pytest(tmp_path, AGAINST, "--seqroof-save", "file/base")
    assert not outcomes and "file/base cannot be written" in told and "name another folder" in told
    for option in ("--seqroof-save", "--seqroof-against"):
        outcomes, told = run_pytest(tmp_path, AGAINST, option, "base", "--numprocesses", "2", conftest=XDIST)
        assert not outcomes and "without pytest-xdist" in told and not (tmp_path / "base").exists()
    outcomes, told = run_pytest(tmp_path, AGAINST, "--numprocesses", "2", conftest=XDIST)
    assert "2 skipped" in told


def test_runs_of_several_machines_are_kept_apart(tmp_path):
    from types import SimpleNamespace

    from seqroof.scripts import pytest_plugin

    run, gpu = samples.run("cpu"), samples.run("gpu")
    environment = gpu.environment.model_copy(update={"device_hash": "abc"})
    kept = {"a": (run.points[0], run.machine, run.environment), "b": (gpu.points[0], gpu.machine, environment)}
    config = SimpleNamespace(getoption=lambda name: str(tmp_path), stash={pytest_plugin._KEPT: kept})
    pytest_plugin.pytest_sessionfinish(SimpleNamespace(config=config))
    for made, env, folder in ((run, run.environment, "sample-cpu"), (gpu, environment, "sample-gpu-abc")):
        assert pytest_plugin._folder_of(tmp_path, made.machine, env) == tmp_path / folder
        (entry,) = json.loads((tmp_path / folder / "run.json").read_text())["points"]
        assert entry["kernel"] == made.points[0].kernel


def test_a_point_below_its_floor_is_told_as_that():
    from seqroof.roofline.verdict import judge
    from seqroof.scripts.pytest_plugin import _why_no_share

    below = judge(point(timing(50.0)), ROUND)
    assert "faster than the best possible" in _why_no_share(below, "machine")
    unknown = judge(point(timing(50.0)), ROUND.model_copy(update={"ceilings": ()}))
    assert _why_no_share(unknown, "machine") == "its floor is not known"
    kept = judge(point(timing(150.0), work=work(depth=150), chain="launch"), ROUND)
    assert kept.status == "ok" and kept.attainable_fraction is None
    assert "less time than its floor" in _why_no_share(kept, "design")


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
