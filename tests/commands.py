"""Runs the command line as a user does, in a process of its own."""

import os
import subprocess
import sys

COMMAND = [sys.executable, "-m", "seqroof.scripts.main"]


def seqroof(*arguments, cwd):
    """Run `seqroof` with these arguments in a folder; returns the finished process, which left no traceback."""
    # Without the report extra a run takes half as long; the page has tests of its own.
    (cwd / "hidden").mkdir(exist_ok=True)
    (cwd / "hidden" / "vl_convert.py").write_text("raise ImportError('hidden by this test')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(cwd / "hidden"), os.environ.get("PYTHONPATH", "")])}
    command = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done
