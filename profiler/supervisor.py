"""The parent's side of a worker process: start it, ask it, notice when it dies or hangs, end it.

Nothing here imports torch or holds a device, so whatever a kernel does to its process, the parent keeps every result.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

CATALOG = "seqroof.kernels._catalog"
# Starting Python and importing torch takes seconds on a slow disk; a minute means that it hangs.
START_DEADLINE_S = 120.0


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
    """

    def __init__(self, device: str, interpret: bool = False) -> None:
        self.device = device
        self.interpret = interpret
        self.opened: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._answers = -1
        self._buffer = b""
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
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed by stop())
        command = [sys.executable, "-m", "seqroof.profiler.worker", "--answers", str(write_end), "--catalog", CATALOG]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=(write_end,),
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which decides what to keep
        )
        os.close(write_end)
        self._answers, self._buffer = read_end, b""
        for event in self.ask("open", START_DEADLINE_S, device=self.device):
            if event["event"] == "opened":
                self.opened = event

    def stop(self) -> None:
        """End the worker and everything it started."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
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

    def ask(self, op: str, deadline_s: float, **request: Any) -> Iterator[dict[str, Any]]:
        """Send a request and yield its events until it is done.

        deadline_s : the longest silence allowed.
        Raises `Refused` or `WorkerDied`; after the latter the worker is gone and `start` makes a new one.
        """
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **request}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None
        while True:
            event = self._next(deadline_s)
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

    def _next(self, deadline_s: float) -> dict[str, Any]:
        end = time.monotonic() + deadline_s
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                self.stop()
                raise WorkerDied("hung", f"no sign of life for {deadline_s:.0f} s; ended")
            chunk = os.read(self._answers, 1 << 16)
            if not chunk:
                raise self._death()
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        return json.loads(line)

    def _death(self) -> WorkerDied:
        assert self._process is not None
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        last = f": {lines[-1][:200]}" if lines else ""
        self.stop()
        if code == -signal.SIGKILL:
            return WorkerDied("oom", "ended by the system, most likely for lack of memory; make the sizes smaller")
        if code < 0:
            return WorkerDied("crashed", f"{signal.Signals(-code).name}{last}")
        return WorkerDied("crashed", f"exit code {code}{last}")
