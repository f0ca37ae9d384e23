"""kill -9 of the parent at random points: nothing finished is lost or repeated, and no worker stays behind."""

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import stand_in_worker
from user_kernels import kernel_file

from seqroof.profiler.journal import read

KILLS = 50
SIGNALS = 4  # of each kind
SEED = 5  # of the moments; printed, so that a failure can be repeated
GONE_S = 20.0  # a worker that was starting ends when it has imported torch
# The real command, with the module of the worker as its first argument.
COMMAND = """
import sys, seqroof.profiler.supervisor, seqroof.scripts.main
seqroof.profiler.supervisor.WORKER = sys.argv.pop(1)
seqroof.scripts.main.main()
"""


class Runs:
    """Starts the command again and again on one folder, kills it, and looks at what is left."""

    def __init__(self, folder: Path, worker: str, *arguments: str) -> None:
        self.folder, self.log = folder / "o", folder / "requests"
        self.log.touch()
        self.ended = False
        self.command = [sys.executable, "-c", COMMAND, worker, "profile", *arguments, "--out", "o"]
        added = {"STAND_IN_LOG": str(self.log), "PYTHONPATH": str(Path(stand_in_worker.__file__).parent)}
        self.environment = os.environ | added

    def start(self) -> subprocess.Popen:
        again = ["--resume"] if (self.folder / "journal.jsonl").exists() else []
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([*self.command, *again], cwd=self.folder.parent, env=self.environment, **quiet)

    def finish(self) -> float:
        """Let it run to its end; returns how long that took."""
        start, process = time.monotonic(), self.start()
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        return time.monotonic() - start

    def kill_after(self, seconds: float) -> bool:
        """Start, kill; False when it ended before. No worker survives, and what is on the disk can be read."""
        process = self.start()
        try:
            process.communicate(timeout=seconds)
            assert process.returncode == 0
            self.ended = True
            return False
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        wait_until_gone({entry["pid"] for entry in self.requests()})
        if (self.folder / "run.json").exists():
            json.loads((self.folder / "run.json").read_text())
        return True

    def lines(self) -> bytes:
        """The whole lines of the journal."""
        with contextlib.suppress(FileNotFoundError):
            content = (self.folder / "journal.jsonl").read_bytes()
            return content[: content.rfind(b"\n") + 1]
        return b""

    def requests(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not yet asked for its exit code does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(pids: set[int]) -> None:
    end = time.monotonic() + GONE_S
    while left := {pid for pid in pids if alive(pid)}:
        assert time.monotonic() < end, f"workers {left} have survived their parent"
        time.sleep(0.02)


def chain(folder: Path, moments: list[float], *command: str) -> int:
    """Kill and resume one run at these moments until it ends by itself; returns how many kills it took."""
    folder.mkdir()
    runs, kills, before, since = Runs(folder, *command), 0, b"", 0
    ended = False
    while not ended:
        killed = bool(moments) and runs.kill_after(moments.pop())
        kills += killed
        if not killed and not runs.ended:
            runs.finish()
        ended = not killed
        after = runs.lines()
        assert after.startswith(before), "a finished line was lost"
        check_asked_once(before, runs.requests()[since:])
        before, since = after, len(runs.requests())
    check_complete(runs)
    return kills


def check_asked_once(known: bytes, requests: list[dict]) -> None:
    """What a journal holds is not asked for again: neither its groups nor its roofs."""
    events = [json.loads(line) for line in known.splitlines()]
    finished = [e["data"]["points"][0]["shape"] for e in events if e["kind"] == "group"]
    assert [e for e in requests if e["op"] == "group" and e["shape"] in finished] == []
    assert not any(e["kind"] == "ceilings" for e in events) or "ceilings" not in {e["op"] for e in requests}


def check_complete(runs: Runs, *states: str) -> None:
    """Every group stands once in the journal, and the record holds exactly these points."""
    groups = [data for kind, data in read(runs.folder) if kind == "group"]
    run = json.loads((runs.folder / "run.json").read_text())
    assert len({data["key"] for data in groups}) == len(groups) and run["state"] in (states or ("complete",))
    written = [point["time_s"] for data in groups for point in data["points"]]
    assert written and [point["time_s"] for point in run["points"]] == written
    assert not list(runs.folder.glob(".*")), "temporary files are left"


def test_fifty_kills_lose_and_repeat_nothing(tmp_path):
    """The moments are uniform over the whole run: start, roofs, groups, record, page."""
    (tmp_path / "whole").mkdir()
    whole = Runs(tmp_path / "whole", "stand_in_worker")
    whole_s, dice, kills = whole.finish(), random.Random(SEED), 0
    check_complete(whole)
    folders = (tmp_path / f"chain{number}" for number in itertools.count())
    while kills < KILLS:
        moments = [dice.uniform(0, whole_s) for _ in range(KILLS - kills)]
        kills += chain(next(folders), moments, "stand_in_worker")
    print(f"{kills} kills with seed {SEED}, uniform over {whole_s:.1f} s")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment_keeps_what_was_measured(tmp_path, number):
    dice = random.Random(SEED + number)
    (tmp_path / "whole").mkdir()
    whole_s = Runs(tmp_path / "whole", "stand_in_worker").finish()
    for turn in range(SIGNALS):
        folder = tmp_path / f"turn{turn}"
        folder.mkdir()
        runs = Runs(folder, "stand_in_worker")
        process = runs.start()
        time.sleep(dice.uniform(0, whole_s))
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
        wait_until_gone({entry["pid"] for entry in runs.requests()})
        kinds = [json.loads(line)["kind"] for line in runs.lines().splitlines()]
        if "group" in kinds:
            # 0 when all was done before; then Python also takes its handlers away, and the signal ends what is left.
            assert process.returncode in ((130, 0, -number) if "Next: " in said else (130, 0)), said
            all_done = kinds.count("group") == stand_in_worker.GROUPS  # then only roofs were still to be looked at
            check_complete(runs, *(("complete", "interrupted") if all_done else ("interrupted",)))
            assert (runs.folder / "report.html").exists() and kinds[-1] == "end" and "Traceback" not in said


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.long)])
def test_a_killed_run_of_the_real_worker_can_be_finished(tmp_path, roofs, kills):
    kernel_file(tmp_path, "mine")
    sizes = "B=" + "|".join(map(str, range(2, 8)))
    words = ["../mine.py", "--shape", sizes, "--dtype", "fp32", "--rounds", "6", "--roofs", str(roofs)]
    command, dice, done = ("seqroof.profiler.worker", *words), random.Random(SEED), 0
    (tmp_path / "whole").mkdir()
    whole_s = Runs(tmp_path / "whole", *command).finish()
    folders = (tmp_path / f"chain{number}" for number in itertools.count())
    while done < kills:
        moments = [dice.uniform(0, whole_s) for _ in range(kills - done)]
        done += chain(next(folders), moments, *command)


@pytest.mark.parametrize("deep", ["time.sleep(600)", "while True: pass"])
def test_a_worker_deep_in_a_kernel_ends_with_its_parent(tmp_path, roofs, deep):
    kernel_file(tmp_path, "deep", f"open('pid', 'w').write(str(os.getpid()))\n    {deep}")
    words = ["deep.py", "--shape", "B=2", "--dtype", "fp32", "--roofs", str(roofs)]
    process = Runs(tmp_path, "seqroof.profiler.worker", *words).start()
    file = tmp_path / "pid"
    while not file.exists() or not file.read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.kill()
    process.communicate()
    wait_until_gone({int(file.read_text())})
