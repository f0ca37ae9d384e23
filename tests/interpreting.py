"""Runs checks in a child process whose Triton kernels are interpreted, for the tests that need one.

A module of such tests registers its checks in a `Checks`, and is itself the script that the child runs:
TRITON_INTERPRET must be set before triton is imported, and the kernels of such a process cannot be compiled.
"""

import itertools
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

# Lines of a failed check's traceback that are shown.
SHOWN_LINES = 12
# The interpreter works on one core.
CHILDREN = 2


class Checks(dict[str, Callable[[], None]]):
    """Checks by name: functions without arguments that raise when something is wrong."""

    def each(self, *cases: tuple[Any, ...]) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Register the decorated function once for every tuple of arguments, named after both."""

        def register(function: Callable[..., None]) -> Callable[..., None]:
            for case in cases or ((),):
                name = " ".join([function.__name__, *(getattr(part, "name", str(part)) for part in case)])
                assert name not in self, f"two checks are called {name}"
                self[name] = partial(function, *case)
            return function

        return register

    def run(self, number: int) -> None:
        """Run the checks of the child `number` and print a JSON line each: its name, and what went wrong or nothing."""
        for name, check in itertools.islice(self.items(), number, None, CHILDREN):
            try:
                check()
                fault = ""
            except Exception:  # reported as this check's failure; the others still run
                fault = "\n".join(traceback.format_exc().splitlines()[-SHOWN_LINES:])
            print(json.dumps({"check": name, "fault": fault}), flush=True)


def run_interpreted(file: str) -> dict[str, str]:
    """Run a module as interpreted children; returns what went wrong in each of its checks."""
    with ThreadPoolExecutor(CHILDREN) as pool:
        found = pool.map(partial(_child, file), range(CHILDREN))
    return {check: fault for faults in found for check, fault in faults.items()}


def _child(file: str, number: int) -> dict[str, str]:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    paths = (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    # Silenced: numpy's overflow of exp, which is how the sigmoid of a very negative number becomes zero, and its NaN.
    command = [sys.executable, "-W", "ignore::RuntimeWarning", file, str(number)]
    child = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert child.returncode == 0, child.stderr[-2000:]
    return {line["check"]: line["fault"] for line in map(json.loads, child.stdout.splitlines())}
