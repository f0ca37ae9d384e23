"""The parent's side of a worker process: start it, ask it, notice when it dies or hangs, end it.

Nothing here imports torch or holds a device, so whatever a kernel does to its process, the parent keeps every result.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import IO, Any

from . import interruption

WORKER = "seqroof.profiler.worker"
CATALOG = "seqroof.kernels._catalog"
# Starting Python and importing torch takes seconds on a slow disk; two minutes mean that it hangs.
START_DEADLINE_S = 120.0
# A device may need a moment until it can be opened again after a worker was killed on it.
START_ATTEMPTS = 3
START_PAUSE_S = 2.0
# A killed process is gone in milliseconds; one that a driver holds in the kernel may stay, and is left behind.
END_S = 5.0
# The longest line of a worker, the plan of the full suite, has a few megabytes.
MOST_LINE_BYTES = 1 << 28
# What kernels print is kept for the reason of a crash, and forgotten when it is more than that: it would fill the disk.
MOST_PRINTED_BYTES = 1 << 26
_LOOK_S = 0.5  # between two looks at what was printed
_LAST_BYTES = 1 << 14  # the end of what was printed, where the reason of a crash stands


class Refused(Exception):
    """The worker answered with a sentence instead of a result: a wrong request, not a failed measurement."""

    def __init__(self, reason: str, kind: str) -> None:
        super().__init__(reason)
        self.kind = kind


class WorkerDied(Exception):
    """The worker ended or had to be ended. `status` is `crashed`, `hung` or `oom`; the text says how."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Supervisor:
    """Owns one worker process and replaces it after it has died.

    interpret : run Triton kernels in its interpreter, for correctness on a machine without a GPU.
    threads : the most that PyTorch may take on a CPU, where other workers run beside it; None for one per core.
    code : hashes of the kernel files of the run, once it is planned; a new worker refuses to load others.
    """

    def __init__(self, device: str, interpret: bool = False, threads: int | None = None) -> None:
        self.device = device
        self.interpret = interpret
        self.threads = threads
        self.opened: dict[str, Any] = {}
        self.code: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._answers = -1
        self._buffer, self._searched = bytearray(), 0
        self._secret = ""
        self._log: Any = None

    def __enter__(self) -> Supervisor:
        """Start the worker and open the device."""
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """End the worker."""
        self.stop()

    def start(self) -> None:
        """Start a fresh worker; raises `Refused` when the device cannot be opened."""
        self.stop()
        read_end, write_end = os.pipe()
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        environment.pop("TRITON_INTERPRET", None)
        if self.interpret:
            environment["TRITON_INTERPRET"] = "1"
        self._log = open_log()
        command = [sys.executable, "-m", WORKER, "--answers", str(write_end), "--catalog", CATALOG]
        self._process = subprocess.Popen(
            [*command, "--parent", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=(write_end,),
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which decides what to keep
        )
        interruption.workers.add(self._process.pid)
        os.close(write_end)
        self._answers, self._buffer, self._searched = read_end, bytearray(), 0
        # The worker writes it before every answer, so that what a kernel writes there is known for what it is.
        self._secret = os.urandom(8).hex()
        share = {"threads": self.threads} if self.threads else {}
        for event in self.ask("open", START_DEADLINE_S, device=self.device, **share):
            if event["event"] == "opened":
                self.opened = event

    def restart(self) -> None:
        """Start a fresh worker after a death, and try again when that fails, or when the device needs a moment yet.

        Raises `WorkerDied` or `Refused` after the last try.
        """
        for attempt in range(START_ATTEMPTS):
            try:
                return self.start()
            except (WorkerDied, Refused):
                if attempt + 1 == START_ATTEMPTS:
                    raise
                time.sleep(START_PAUSE_S)

    def stop(self) -> None:
        """End the worker and everything it started."""
        if self._process is None:
            return
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        interruption.workers.discard(self._process.pid)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        os.close(self._answers)
        self._log.close()
        self._process = None

    def kill(self) -> None:
        """Kill the worker from another thread than the one that waits for it, which then finds it dead."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def ask(self, op: str, deadline_s: float, most_s: float | None = None, **request: Any) -> Iterator[dict[str, Any]]:
        """Send a request and yield its events until it is done.

        deadline_s : the longest time without news; an event that was said before is none. most_s : the longest time
        for the whole request. Raises `Refused` or `WorkerDied`; after the latter `start` makes a new worker.
        """
        assert self._process is not None and self._process.stdin is not None
        try:
            asked = json.dumps({"op": op, "secret": self._secret, "code": self.code, **request})
            self._process.stdin.write(asked.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None
        latest = float("inf") if most_s is None else time.monotonic() + most_s
        news, said = time.monotonic() + deadline_s, set()
        while True:
            line = self._next(news, latest, deadline_s, most_s or 0.0)
            if hash(line) not in said:
                news = time.monotonic() + deadline_s
                said.add(hash(line))
            elif time.monotonic() > news:
                raise self._ended("hung", f"no sign of life for {deadline_s:.0f} s; ended")
            if time.monotonic() > latest:
                raise self._ended("hung", f"still at it after {most_s or 0:.0f} s; ended")
            event = self._parsed(line)
            if event["event"] == "done":
                return
            if event["event"] == "refused":
                raise Refused(event["reason"], event["kind"])
            yield event

    def one(self, op: str, deadline_s: float, wanted: str, **request: Any) -> dict[str, Any]:
        """Send a request and return its event named `wanted`, ignoring the others."""
        answer: dict[str, Any] = {}
        for event in self.ask(op, deadline_s, **request):
            if event["event"] == wanted:
                answer = event
        return answer

    def _next(self, news: float, latest: float, deadline_s: float, most_s: float) -> bytes:
        """The next line of the worker; ends it when the time for that is over."""
        while (end := self._buffer.find(b"\n", self._searched)) < 0:
            self._searched = len(self._buffer)
            left_s = min(news, latest) - time.monotonic()
            ready, _, _ = select.select([self._answers], [], [], max(0.0, min(left_s, _LOOK_S)))
            if not ready and left_s <= 0 and latest < news:
                raise self._ended("hung", f"still at it after {most_s:.0f} s; ended")
            if not ready and left_s <= 0:
                raise self._ended("hung", f"no sign of life for {deadline_s:.0f} s; ended")
            trim(self._log)
            if not ready:
                continue
            chunk = os.read(self._answers, 1 << 16)
            if not chunk:
                raise self._death()
            self._buffer += chunk
            if len(self._buffer) > MOST_LINE_BYTES:
                raise self._ended("crashed", "wrote without end where only answers belong; ended")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return line

    def _parsed(self, line: bytes) -> dict[str, Any]:
        """The event of a line; a line without the secret was written by a kernel, and nothing after it can be read."""
        try:
            secret, text = line.decode().split(" ", 1)
            if secret == self._secret:
                return json.loads(text)
        except ValueError:  # not UTF-8, no blank, no JSON
            pass
        raise self._ended("crashed", "wrote where only the worker's answers belong; ended")

    def _ended(self, status: str, reason: str) -> WorkerDied:
        self.stop()
        return WorkerDied(status, reason)

    def _death(self) -> WorkerDied:
        """Say how a worker died that closed the descriptor of its answers."""
        assert self._process is not None
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            return self._ended("crashed", "closed the descriptor of the worker's answers; ended")
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - _LAST_BYTES))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        last = f": {lines[-1][:200]}" if lines else ""
        self.stop()
        if code == -signal.SIGKILL:
            return WorkerDied("oom", "ended by the system, most likely for lack of memory; make the sizes smaller")
        if code < 0:
            return WorkerDied("crashed", f"{_signal_name(-code)}{last}")
        return WorkerDied("crashed", f"exit code {code}{last}")


def open_log() -> IO[bytes]:
    """A file without a name for what a worker prints, written at its end wherever that is."""
    log = tempfile.TemporaryFile()  # noqa: SIM115  (closed by stop())
    fcntl.fcntl(log.fileno(), fcntl.F_SETFL, fcntl.fcntl(log.fileno(), fcntl.F_GETFL) | os.O_APPEND)
    return log


def trim(log: IO[bytes]) -> None:
    """Forget what was printed when it is too much."""
    if os.fstat(log.fileno()).st_size > MOST_PRINTED_BYTES:
        os.ftruncate(log.fileno(), 0)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no name
        return f"signal {number}"
