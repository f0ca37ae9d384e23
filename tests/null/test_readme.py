"""The commands of the README are executed as they stand there, in a folder that holds what they name.

What would measure for minutes is planned instead of timed (`--dry-run`), or run without `--measure`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import COMMAND
from user_kernels import GOOD

ROOT = Path(__file__).resolve().parents[2]
# Each is the whole of a verb that only measures, and is run to its end by a test of its own.
ELSEWHERE = {"seqroof verify", "seqroof ceilings", "seqroof doctor --aa"}
# The recorded run that stands for a user's own ones.
RUN = ROOT / "results" / "amd-epyc-2026-11-21" / "lstm_walk"
WRITTEN = re.compile(r"\w+\.(?:html|png|svg)")


def lines():
    """The README's command lines, without what is said of them."""
    blocks = re.findall(r"^```\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    found = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in found if line.startswith("seqroof ") and line not in ELSEWHERE]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A folder with the runs and the kernel that the README names."""
    place = tmp_path_factory.mktemp("readme")
    (place / "my_kernel.py").write_text(GOOD)
    (place / "results").symlink_to(ROOT / "results")
    for name in ("seqroof-runs/RUN", "BASE", "NEW"):
        shutil.copytree(RUN, place / name)
    return place


@pytest.mark.parametrize("line", lines())
def test_a_command_of_the_readme_runs(line, house):
    arguments = shlex.split(line)[1:]
    if arguments[0] == "profile":
        arguments.append("--dry-run")
    arguments = [argument for argument in arguments if argument != "--measure"]
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=house, env=os.environ | {"COLUMNS": "80"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() or WRITTEN.search(line)
    for name in WRITTEN.findall(line):
        assert (house / name).stat().st_size > 1000


def test_the_readme_has_commands_of_every_kind():
    verbs = {line.split()[1] for line in lines()}
    assert {"profile", "predict", "what-if", "map", "claims", "compare", "report", "inspect"} <= verbs
