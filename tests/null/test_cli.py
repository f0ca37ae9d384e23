"""The command line as a user meets it: wrong input gets one sentence and the documented exit code."""

import json

import pytest
from commands import seqroof
from user_kernels import GOOD, kernel_file

WRONG_INPUT = {
    "unknown kernel": (["profile", "lstn_step"], 2, "lstm_step"),
    "unknown dtype": (["profile", "--dtype", "fp7"], 2, "bf16"),
    "unknown device": (["profile", "--device", "tpu"], 2, "cuda:N"),
    "absent device": (["profile", "--device", "cuda:0"], 4, "--device cpu"),
    "unknown suite": (["profile", "--suite", "huge"], 2, "standard"),
    "unknown direction": (["profile", "--direction", "sideways"], 2, "backward"),
    "malformed size": (["profile", "lstm_step", "--shape", "B=1:x"], 2, "B=1:64:x2"),
    "no size": (["profile", "lstm_step", "--shape", "B"], 2, "B=1:64:x2"),
    "zero size": (["profile", "lstm_step", "--shape", "B=0,I=4,H=4"], 2, "B"),
    "negative size": (["profile", "lstm_step", "--shape", "B=-1,I=4,H=4"], 2, "negative"),
    "missing size": (["profile", "lstm_step", "--shape", "B=1"], 2, "also needs"),
    "surplus size": (["profile", "lstm_step", "--shape", "B=1,I=4,H=4,Z=3"], 2, "no size Z"),
    "endless range": (["profile", "lstm_step", "--shape", "B=1:8:x1"], 2, "never ends"),
    "too many sizes": (
        ["profile", "lstm", "--shape", "B=1:256:+1,T=1:256:+1,I=64,H=64"],
        2,
        "256 values of B x 256 values of T are 65536 shapes",
    ),
    "too many predictions": (
        ["predict", "lstm", "--shape", "B=1:1000:+1,T=1:3:+1,I=64,H=64", "--on", "h200-sxm"],
        2,
        "3000 shapes",
    ),
    "too large": (
        ["profile", "lstm_step", "--shape", "B=1,I=400000,H=400000", "--dtype", "fp32", "--out", "o"],
        6,
        "GiB",
    ),
    "wrong budget": (["profile", "--budget", "soon"], 2, "60s"),
    "resume without a folder": (["profile", "--resume"], 2, "--out"),
    "resume and force": (["profile", "--resume", "--force", "--out", "o"], 2, "choose one"),
    "old and new roofs": (["profile", "--roofs", "x", "--fresh-roofs"], 2, "choose one"),
    "file that is not there": (["profile", "./absent.py"], 2, "no file"),
    "report of nothing": (["report", "absent"], 2, "no absent"),
    "unknown format": (["report", "absent", "--format", "xml"], 2, "md"),
    "unknown machine": (["predict", "lstm_step", "--shape", "B=1,I=4,H=4", "--on", "h2000"], 2, "h200-sxm"),
    "unknown class": (
        ["predict", "lstm_step", "--shape", "B=1,I=4,H=4", "--on", "h200-sxm", "--chain", "x"],
        2,
        "graph",
    ),
    "roofs never measured": (["ceilings", "--show"], 2, "seqroof ceilings"),
}


@pytest.mark.parametrize(("arguments", "code", "says"), WRONG_INPUT.values(), ids=WRONG_INPUT.keys())
def test_wrong_input_gets_a_sentence(tmp_path, roofs, arguments, code, says):
    more = ["--roofs", roofs] if "GiB" in says else []
    done = seqroof(*arguments, *more, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr + done.stdout


@pytest.fixture
def profiled(tmp_path, roofs):
    """Profile a user's file with a fault; returns the process and the points by implementation, B and cache."""

    def run(fault, *more):
        kernel_file(tmp_path, "mine", fault)
        flags = ["--dtype", "fp32", "--rounds", "6", "--budget", "1s", "--out", "o", "--json", "--roofs", roofs]
        done = seqroof("profile", "mine.py", *flags, *more, cwd=tmp_path)
        points = json.loads(done.stdout)["points"] if done.stdout else []
        return done, {(p["implementation"], p["shape"]["B"], p["cache"]): p for p in points}

    return run


@pytest.mark.parametrize(
    ("fault", "status", "code", "says"),
    [
        ("return (x * 3,)", "wrong", 3, "largest error"),
        ("return (x[:1] * 2,)", "wrong", 3, "shape"),
        ("return x * 2", "wrong", 3, "tuple"),
        ("y = x * 2; x.zero_(); return (y,)", "wrong", 3, "overwrites its input x"),
        ("return (torch.empty_like(x),)", "wrong", 3, "largest error"),
        ("raise RuntimeError('no such luck')", "crashed", 6, "no such luck"),
        ("os._exit(3)", "crashed", 6, "exit code 3"),
        ("os.kill(os.getpid(), 11)", "crashed", 6, "SIGSEGV"),
        ("raise MemoryError('all gone')", "oom", 6, "all gone"),
        ('print(\'{"event": "point"}\'); sys.stdout.flush()', "ok", 0, ""),
    ],
)
def test_a_faulty_implementation_costs_only_itself(tmp_path, profiled, fault, status, code, says):
    done, points = profiled(fault)
    assert done.returncode == code, done.stderr
    faulty = [p for (name, _, _), p in points.items() if name == "torch"]
    assert faulty and {p["status"] for p in faulty} == {status}
    assert all(says in p["reason"] for p in faulty)
    sound = [p for (name, _, _), p in points.items() if name == "reference"]
    assert len(sound) == 4 and all(p["status"] == "ok" and p["time_s"]["median"] > 0 for p in sound)


def test_a_death_while_timing_is_blamed_on_the_guilty_one(tmp_path, profiled):
    """It survives its check and dies at the 30th call, while others are timed in turn with it."""
    fault = "global calls; calls = globals().get('calls', 0) + 1\n    if calls > 30: os._exit(7)"
    done, points = profiled(fault)
    assert done.returncode == 6, done.stderr
    assert {p["status"] for (name, _, _), p in points.items() if name == "torch"} == {"crashed"}
    assert {p["status"] for (name, _, _), p in points.items() if name == "reference"} == {"ok"}


def test_a_result_that_changes_after_the_check_is_invalid(tmp_path, profiled):
    fault = "global calls; calls = globals().get('calls', 0) + 1\n    if calls > 3: return (x * 0,)"
    done, points = profiled(fault, "--shape", "B=2")
    assert done.returncode == 5, done.stderr
    timed = [p for (name, _, _), p in points.items() if name == "torch"]
    assert all(p["status"] == "invalid" and p["best_fraction"] is None for p in timed)
    assert any(w["id"] == "output-changed-after-timing" for p in timed for w in p["warnings"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("raise OSError('broken')", "OSError when imported: broken"),
        ("import sys; sys.exit(1)", "SystemExit when imported"),
        ("def broken(:", "SyntaxError when imported"),
        ("x = 1", "lacks Shape, inputs, work, IMPLEMENTATIONS"),
        (GOOD.replace("{fault}", "pass") + "IMPLEMENTATIONS = {'torch': 3}", "must be seqroof.roofline.Implementation"),
    ],
)
def test_a_broken_file_gets_a_sentence(tmp_path, text, says):
    kernel_file(tmp_path, "broken", text=text)
    done = seqroof("profile", "./broken.py", "--shape", "B=1", "--out", "o", cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr, done.stderr


def test_an_existing_run_is_never_overwritten_unasked(tmp_path, profiled):
    done, _ = profiled("pass")
    assert done.returncode == 0, done.stderr
    before = (tmp_path / "o" / "run.json").read_bytes()
    again, _ = profiled("pass")
    assert again.returncode == 2 and "--force" in again.stderr and "--resume" in again.stderr
    assert (tmp_path / "o" / "run.json").read_bytes() == before


def test_resume_repeats_nothing_that_is_finished(tmp_path, profiled):
    done, first = profiled("pass")
    assert done.returncode == 0
    journal = tmp_path / "o" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    groups = [index for index, line in enumerate(lines) if b'"kind":"group"' in line]
    journal.write_bytes(
        b"".join(lines[: groups[1]]) + lines[groups[1]][:40]
    )  # killed while the second group was written
    (tmp_path / "o" / "run.json").unlink()
    done, second = profiled("pass", "--resume")
    assert done.returncode == 0, done.stderr
    assert first.keys() == second.keys()
    same = [key for key in first if first[key]["time_s"] == second[key]["time_s"]]
    assert {key[1] for key in same} == {2} and len(same) == 4


def test_resume_refuses_another_machine_and_another_request(tmp_path, profiled):
    profiled("pass")
    done, _ = profiled("pass", "--resume", "--seed", "1")
    assert done.returncode == 2 and "other cases" in done.stderr
    journal = tmp_path / "o" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"machine":{"id":"', b'"machine":{"id":"other-', 1))
    done, _ = profiled("pass", "--resume")
    assert done.returncode == 4 and "another machine" in done.stderr


def test_an_unwritable_folder_is_found_before_measuring(tmp_path):
    (tmp_path / "file").write_text("")
    kernel_file(tmp_path)
    done = seqroof("profile", "mine.py", "--out", "file", cwd=tmp_path)
    assert done.returncode == 2 and "is a file" in done.stderr
    done = seqroof("profile", "mine.py", "--out", "file/below", cwd=tmp_path)
    assert done.returncode == 2 and "cannot be written" in done.stderr
    done = seqroof("profile", "mine.py", "--out", "/proc/seqroof", cwd=tmp_path)
    assert done.returncode == 2 and "cannot be written" in done.stderr


def test_a_plan_runs_nothing(tmp_path):
    done = seqroof("profile", "--dry-run", "--json", cwd=tmp_path)
    groups = json.loads(done.stdout)["groups"]
    assert done.returncode == 0 and {g["kernel"] for g in groups} >= {"attention", "gated_conv", "lstm_step"}
    assert not (tmp_path / "seqroof-runs").exists()
    assert "nothing was run" in seqroof("profile", "--dry-run", cwd=tmp_path).stdout


def test_json_is_exactly_one_document_and_no_colour_reaches_a_pipe(tmp_path, profiled):
    done, _ = profiled("pass")
    json.loads(done.stdout)
    assert "\x1b" not in done.stdout + done.stderr
    report = seqroof("report", "o", cwd=tmp_path)
    assert report.returncode == 0 and "\x1b" not in report.stdout and "mine" in report.stdout


def test_a_file_that_is_edited_while_it_is_measured_ends_its_run(tmp_path, profiled):
    """A new worker would load the new text, and the record would hold times of both."""
    done, points = profiled("open('mine.py', 'a').write('# edited'); os._exit(3)")
    assert done.returncode == 130, done.stderr
    assert "could not go on with a new worker (mine.py changed since this run began" in done.stderr
    assert {name: point["status"] for (name, _, _), point in points.items()} == {"torch": "crashed"}
    done, _ = profiled("pass", "--resume")
    assert done.returncode == 4 and "mine.py changed since" in done.stderr
