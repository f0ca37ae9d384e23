"""What must start without torch does: torch and triton are blocked, and the verbs that read results still work."""

import os
import subprocess
import sys

import pytest
import samples

from seqroof.roofline.store import save

TIMES = ("median", "low", "high", "min", "p95")
BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "triton", "numpy"):
            raise ImportError(f"{name} is blocked by this test")
sys.meta_path.insert(0, Block())
from seqroof.scripts.main import main
main()
"""


def without_torch(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-c", BLOCK, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def folder(tmp_path):
    for name in ("base", "new"):
        (tmp_path / name).mkdir()
        save(samples.run(), tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["report", "base"],
        ["report", "base", "--format", "csv"],
        ["report", "base", "--format", "json"],
        ["report", "base", "--format", "md"],
        ["compare", "base", "new"],
        ["report", "base", "--html", "page.html"],
    ],
)
def test_reading_needs_no_torch(folder, arguments):
    done = without_torch(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("factor", "code"), [(1.0, 141), (2.0, 141)])
@pytest.mark.parametrize("arguments", [["--all"], ["--json"], []])
def test_a_reader_that_has_gone_is_neither_success_nor_a_failed_gate(folder, arguments, factor, code):
    slower = tuple(
        point.model_copy(
            update={"time_s": point.time_s.model_copy(update={n: factor * getattr(point.time_s, n) for n in TIMES})}
        )
        if point.time_s
        else point
        for point in samples.run().points
    )
    save(samples.run(points=slower), folder / "new")
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "seqroof.scripts.main", "compare", "base", "new", *arguments]
    done = subprocess.run(command, cwd=folder, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert done.returncode == code and done.stderr == ""


def test_what_needs_torch_says_so(folder):
    done = without_torch("list", cwd=folder)
    assert (
        done.returncode == 4
        and "pip install '.[run]' from a checkout" in done.stderr
        and "Traceback" not in done.stderr
    )


def test_a_fault_of_its_own_is_no_regression():
    code = "from seqroof.scripts.exits import run; run(lambda: {}['no such key'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 70, "1 would say that something became slower"
    sentence, _, rest = done.stderr.partition("\n")
    assert "fault of seqroof itself" in sentence and "report" in sentence
    assert rest.startswith("Traceback") and "no such key" in rest
