"""The parent's side: silence ends a worker, interruption keeps results, and torch stays out of the parent."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from user_kernels import kernel_file

from seqroof.profiler.journal import read
from seqroof.profiler.supervisor import Refused, Supervisor, WorkerDied

GROUP = {"shape": {"B": 2, "N": 8}, "dtype": "fp32", "direction": "forward", "flops": 1, "seed": 0}


@pytest.fixture(scope="module")
def supervisor():
    with Supervisor("cpu") as made:
        yield made


def ask(supervisor, path, deadline_s=60.0):
    request = GROUP | {"source": str(path), "implementations": ["torch"], "options": {"time": False}}
    return list(supervisor.ask("group", deadline_s, **request))


def test_a_worker_that_says_nothing_is_ended_and_replaced(supervisor, tmp_path):
    hanging = kernel_file(tmp_path, "hanging", "time.sleep(600)")
    start = time.monotonic()
    with pytest.raises(WorkerDied) as death:
        ask(supervisor, hanging, deadline_s=2.0)
    assert death.value.status == "hung" and time.monotonic() - start < 2.0 + 5.0
    supervisor.start()
    assert any(event["event"] == "checked" for event in ask(supervisor, kernel_file(tmp_path)))


def test_an_endless_loop_that_ignores_signals_is_ended_too(supervisor, tmp_path):
    stubborn = kernel_file(
        tmp_path, "stubborn", "import signal; signal.signal(15, signal.SIG_IGN)\n    while True: pass"
    )
    with pytest.raises(WorkerDied, match="no sign of life"):
        ask(supervisor, stubborn, deadline_s=2.0)
    supervisor.start()


def test_sigkill_from_outside_counts_as_lack_of_memory(supervisor, tmp_path):
    killed = kernel_file(tmp_path, "killed", "os.kill(os.getpid(), 9)")
    with pytest.raises(WorkerDied, match="lack of memory") as death:
        ask(supervisor, killed)
    assert death.value.status == "oom"
    supervisor.start()


def test_a_refusal_leaves_the_worker_alive(supervisor, tmp_path):
    with pytest.raises(Refused, match="no file"):
        ask(supervisor, tmp_path / "absent.py")
    assert any(event["event"] == "checked" for event in ask(supervisor, kernel_file(tmp_path)))


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_it_has(tmp_path, roofs, signal_number):
    kernel_file(tmp_path, "slow", "time.sleep(0.05)")
    sizes = "B=" + "|".join(map(str, range(2, 40)))
    command = [sys.executable, "-m", "seqroof.scripts.main", "profile", "slow.py", "--shape", sizes, "--out", "o"]
    flags = ["--dtype", "fp32", "--rounds", "6", "--roofs", str(roofs)]
    process = subprocess.Popen(
        [*command, *flags], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    journal = tmp_path / "o" / "journal.jsonl"
    while not journal.exists() or journal.read_bytes().count(b'"kind":"group"') < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal_number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "interrupted: what was measured is kept" in out and (tmp_path / "o" / "report.html").exists()
    assert "Traceback" not in err and "--resume" in err
    run = json.loads((tmp_path / "o" / "run.json").read_text())
    finished = [event for event in read(tmp_path / "o") if event[0] == "group"]
    assert run["state"] == "interrupted" and len(run["points"]) == sum(len(data["points"]) for _, data in finished) > 0


def test_the_parent_imports_no_torch():
    code = "import sys, seqroof.scripts.measuring, seqroof.scripts.profile_verb; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.stdout.strip() == "False", done.stderr


def test_a_worker_beside_others_takes_its_share_of_the_cores():
    with Supervisor("cpu", threads=1) as made:
        assert made.opened["environment"]["threads"] == 1


def test_an_implementation_that_slows_down_the_others_is_not_timed(supervisor, tmp_path):
    """Deterministic algorithms would hold for every other row that is timed in turn with it."""
    choosing = kernel_file(tmp_path, "choosing", "torch.use_deterministic_algorithms(True)")
    (failed,) = [event for event in ask(supervisor, choosing) if event["event"] == "failed"]
    assert (failed["implementation"], failed["status"]) == ("torch", "invalid")
    assert "deterministic_debug_mode (from 0 to 2)" in failed["reason"]
    assert any(event["event"] == "checked" for event in ask(supervisor, kernel_file(tmp_path, "honest")))


def test_a_plan_of_two_files_of_one_name_is_refused(supervisor, tmp_path):
    (tmp_path / "new").mkdir()
    files = [str(kernel_file(folder)) for folder in (tmp_path, tmp_path / "new")]
    asked = {"suite": "quick", "axes": {}, "cases": [], "dtypes": [], "directions": ["forward"]}
    asked |= {"implementations": [], "compile": False}
    assert len(supervisor.one("plan", 60.0, "planned", kernels=files[:1], **asked)["groups"]) == 4
    with pytest.raises(Refused, match="both the kernel 'mine'"):
        supervisor.one("plan", 60.0, "planned", kernels=files, **asked)
