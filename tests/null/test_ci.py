"""What continuous integration does passes only where the oldest triton was tested, if there is one for the machine."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parents[2] / ".ci" / "run"


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("machine", "has_oldest", "code"),
    [("Linux x86_64", False, 1), ("Linux x86_64", True, 0), ("Linux aarch64", False, 0)],
)
def test_tests_without_the_oldest_triton_are_no_success(tmp_path, machine, has_oldest, code):
    (tmp_path / ".ci").mkdir()
    shutil.copy(RUN, tmp_path / ".ci" / "run")
    for name in ("test", "profile"):
        program(tmp_path / "scripts" / name, f"echo {name} ran")
    for name in ("chromium", "chromedriver"):
        program(tmp_path / "bin" / name, "")
    program(tmp_path / "bin" / "uname", f"echo {machine}")
    if has_oldest:
        (tmp_path / ".venv" / "triton-old" / "python3.12" / "triton").mkdir(parents=True)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([tmp_path / ".ci" / "run"], env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert ("profile ran" in done.stdout) == (code == 0) and "test ran" in done.stdout
    assert ("could not install the oldest triton" in done.stdout) == bool(code)
