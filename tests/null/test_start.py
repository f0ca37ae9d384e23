"""What must start without torch does: torch and triton are blocked, and the verbs that read results still work."""

import subprocess
import sys

import pytest
import samples

from seqroof.roofline.store import save

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


def test_what_needs_torch_says_so(folder):
    done = without_torch("list", cwd=folder)
    assert done.returncode == 4 and "seqroof[run]" in done.stderr and "Traceback" not in done.stderr
