"""One command with every way of going wrong among its cases: each costs itself and is named, all others are kept."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from user_kernels import GOOD

from seqroof.profiler import supervisor
from seqroof.profiler.journal import Journal, read
from seqroof.profiler.supervisor import Supervisor, WorkerDied
from seqroof.roofline.store import RunFileError, load
from seqroof.scripts.exits import Exit, Stop
from seqroof.scripts.run_folder import claimed

# What `torch` does at a batch size, and the status and the words of the reason that this must get.
FAULTS = {
    2: ("os.kill(os.getpid(), 11)", "crashed", "SIGSEGV"),
    5: ("os._exit(3)", "crashed", "exit code 3"),
    7: ("while True: pass", "hung", "no sign of life for 30 s"),
    11: ("bytearray(1 << 62)", "oom", "MemoryError"),
    13: ('print(\'{"event": "done"}\'); sys.stdout.flush(); os.write(2, bytes(range(256)))', "ok", ""),
    14: ('scribble(b\'0 {"event": "done"}\\n\\xff\\xfe garbage\\n\')', "crashed", "only the worker's answers belong"),
    17: ("if os.environ.get('WRONG'): return (x * 3,)", "wrong", "largest error"),
}
HELP = '''
def scribble(text):
    """Write to every descriptor that takes it."""
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, text)
        except OSError:
            pass
'''
CASES = 20


def profile(folder, wrong, *more):
    sizes = "B=" + "|".join(str(batch) for batch in range(1, CASES + 1))
    command = [sys.executable, "-m", "seqroof.scripts.main", "profile", "faulty.py", "--shape", sizes, "--out", "o"]
    flags = ["--dtype", "fp32", "--implementation", "torch", "--rounds", "6", "--deadline", "30s", "--json", *more]
    environment = os.environ | {"WRONG": wrong}
    done = subprocess.run([*command, *flags], cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
    points = json.loads(done.stdout)["points"] if done.stdout else []
    return done, {p["shape"]["B"]: p for p in points if p["implementation"] == "torch" and p["headline"]}


def test_twenty_cases_with_everything_that_can_go_wrong(tmp_path, roofs):
    faults = "".join(f"\n    if shape.B == {batch}:\n        {fault}" for batch, (fault, _, _) in FAULTS.items())
    (tmp_path / "faulty.py").write_text(GOOD.replace("{fault}", faults.strip()) + HELP)
    done, points = profile(tmp_path, "yes", "--roofs", str(roofs))
    assert done.returncode == 3, done.stderr
    assert len(points) == CASES
    for batch, point in points.items():
        _, status, says = FAULTS.get(batch, ("", "ok", ""))
        assert point["status"] == status and says in point["reason"], point
        assert (point["time_s"] is not None) == (status == "ok")
    assert sum(point["status"] == "ok" for point in points.values()) == 14
    forget(tmp_path / "o" / "journal.jsonl", batch=17)
    done, again = profile(tmp_path, "", "--roofs", str(roofs), "--resume")
    assert done.returncode == 6, done.stderr  # the failed ones are finished, and only the forgotten one ran again
    assert again.pop(17)["status"] == "ok"
    assert {batch: point["time_s"] for batch, point in again.items()} == {
        batch: point["time_s"] for batch, point in points.items() if batch != 17
    }
    assert sum(kind == "group" for kind, _ in read(tmp_path / "o")) == CASES


def forget(journal, batch):
    """Take the group of a batch size out of a journal, as if it had not run."""
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(line for line in lines if f'"key":"faulty.py B={batch},'.encode() not in line))


CHATTER = """
    frame = sys._getframe()
    while "emit" not in frame.f_locals:
        frame = frame.f_back
    for count in range(10**9):
        frame.f_locals["emit"]("progress", text={text})
"""


@pytest.mark.parametrize(
    ("text", "says", "deadline_s", "most_s"),
    [("'alive'", "no sign of life for 4 s", 4.0, 300.0), ("str(count)", "still at it after 3 s", 300.0, 3.0)],
)
def test_a_worker_that_never_falls_silent_is_ended(tmp_path, text, says, deadline_s, most_s):
    path = tmp_path / "chatty.py"
    path.write_text(GOOD.replace("{fault}", CHATTER.replace("{text}", text).strip()))
    request = {"shape": {"B": 2, "N": 8}, "dtype": "fp32", "direction": "forward", "flops": 1, "seed": 0}
    request |= {"source": str(path), "implementations": ["torch"], "options": {"time": False}}
    with Supervisor("cpu") as asked, pytest.raises(WorkerDied, match=says) as death:
        for _ in asked.ask("group", deadline_s, most_s, **request):
            pass
    assert death.value.status == "hung"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("os.closerange(3, 64)\n    while True: pass", "closed the descriptor"),
        ("print(repr(sys.stdin.read())); os._exit(9)", "exit code 9: ''"),
    ],
)
def test_what_a_kernel_does_to_descriptors_ends_its_worker(tmp_path, fault, says):
    path = tmp_path / "meddling.py"
    path.write_text(GOOD.replace("{fault}", fault))
    request = {"shape": {"B": 2, "N": 8}, "dtype": "fp32", "direction": "forward", "flops": 1, "seed": 0}
    request |= {"source": str(path), "implementations": ["torch"], "options": {"time": False}}
    with Supervisor("cpu") as asked, pytest.raises(WorkerDied, match=says) as death:
        for _ in asked.ask("group", 60.0, **request):
            pass
    assert death.value.status == "crashed"


def test_only_what_carries_the_secret_is_an_answer():
    asked = Supervisor("cpu")
    asked._secret = "ab"
    assert asked._parsed(b'ab {"event": "done"}') == {"event": "done"}
    for line in (b'{"event": "done"}', b'0 {"event": "done"}', b"ab", b"ab garbage", b"ab \xff", b""):
        with pytest.raises(WorkerDied, match="only the worker's answers belong"):
            asked._parsed(line)


def test_what_a_kernel_prints_does_not_fill_the_disk(monkeypatch):
    monkeypatch.setattr(supervisor, "MOST_PRINTED_BYTES", 1000)
    with supervisor.open_log() as log:
        printing = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log)
        assert printing.stdin is not None
        for text, left in ((b"x" * 900, 900), (b"x" * 900, 0), (b"end", 3)):
            before = os.fstat(log.fileno()).st_size
            os.write(printing.stdin.fileno(), text)
            while os.fstat(log.fileno()).st_size < before + len(text):
                time.sleep(0.01)
            supervisor.trim(log)
            assert os.fstat(log.fileno()).st_size == left
        printing.stdin.close()
        assert printing.wait(60) == 0


def test_a_folder_with_only_a_journal_says_how_to_finish_it(tmp_path):
    journal = Journal(tmp_path)
    with pytest.raises(RunFileError, match="seqroof profile --out"):
        load(tmp_path)  # it ended before its header
    journal.write("header", {"command": "seqroof profile lstm --shape 'B=1|2'\x1b[31m"})
    with pytest.raises(RunFileError, match=r"seqroof profile lstm --shape 'B=1\|2'\?\[31m --out .* --resume"):
        load(tmp_path)
    (tmp_path / "fleet.json").write_text("{}")
    with pytest.raises(RunFileError, match="--merge"):
        load(tmp_path)
    with pytest.raises(Stop, match="Another process") as refused:
        claimed(tmp_path, resume=True)
    assert refused.value.code == Exit.NO_DEVICE
    journal.close()
    with pytest.raises(Stop, match="leave out --resume"):
        claimed(tmp_path / "elsewhere", resume=True)


INTERRUPTED = """
import os, signal, sys, time
from seqroof.profiler import interruption as i
i.install()
def send(number=signal.SIGINT): os.kill(os.getpid(), number)
try:
    {body}
except KeyboardInterrupt:
    print("interrupted")
print("end")
"""


@pytest.mark.parametrize(
    ("body", "printed", "code"),
    [
        ("send(); print('never')", "interrupted end", 0),
        ("send(signal.SIGTERM); print('never')", "interrupted end", 0),
        ("with i.shielded():\n        send(); print('kept')\n    print('never')", "kept interrupted end", 0),
        ("i.hold(); send(); print('written', i.pending())", "written True end", 0),
        ("i.hold(); send(); print('written', flush=True); send(); print('never')", "written", 130),
        ("with i.shielded():\n        send(); send(); print('never')", "", 130),
        ("i.grant(60); send(15); print('case'); i.stop_if_asked(); print('never')", "case interrupted end", 0),
        ("i.grant(0.2); send(15); time.sleep(30); print('never')", "interrupted end", 0),
        ("i.grant(60); send(15); send(15); print('never')", "interrupted end", 0),
        ("i.grant(60); i.stop_if_asked(); print('nobody asked')", "nobody asked end", 0),
    ],
)
def test_a_signal_waits_for_what_must_be_written(body, printed, code):
    command = [sys.executable, "-c", INTERRUPTED.replace("{body}", body)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.returncode) == (printed.split(), code), done.stderr


def test_the_second_signal_ends_the_workers_too():
    body = (
        "import subprocess\n    "
        "p = subprocess.Popen(['sleep', '600'], start_new_session=True); i.workers.add(p.pid)\n    "
        "print(p.pid, flush=True); i.hold(); send(); send()"
    )
    done = subprocess.run([sys.executable, "-c", INTERRUPTED.replace("{body}", body)], capture_output=True, text=True)
    assert done.returncode == 130 and "ended at once" in done.stderr
    for _ in range(100):
        try:
            os.kill(int(done.stdout), 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(int(done.stdout), signal.SIGKILL)
    pytest.fail("the worker has survived")
