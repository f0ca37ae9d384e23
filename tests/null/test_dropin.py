"""One file adds a kernel: dropped into the folder, it appears everywhere with nothing else edited."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from user_kernels import kernel_file

from seqroof.kernels import _catalog

ROOMS = ("kernels", "profiler", "roofline", "scripts")


@pytest.fixture
def house(tmp_path):
    """A copy of the four rooms as a package of their own, with one more kernel file."""
    for room in ROOMS:
        shutil.copytree(
            _catalog.FOLDER.parent / room, tmp_path / "seqroof" / room, ignore=shutil.ignore_patterns("__pycache__")
        )
    kernel_file(tmp_path / "seqroof" / "kernels", "newcomer")
    return tmp_path


def seqroof(house, *arguments):
    # What stands on PYTHONPATH comes before an installed seqroof, in the worker processes too.
    command = [sys.executable, "-m", "seqroof.scripts.main", *arguments]
    environment = os.environ | {"PYTHONPATH": str(house)}
    done = subprocess.run(command, cwd=house, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_dropped_file_is_listed_planned(house):
    assert "newcomer" in {kernel["name"] for kernel in seqroof(house, "list", "--json")["kernels"]}
    planned = seqroof(house, "profile", "--dry-run", "--json")["groups"]
    assert {group["kernel"] for group in planned} > {"newcomer", "lstm_step"}


def test_a_dropped_file_is_verified(house):
    points = seqroof(house, "verify", "newcomer", "--json")["points"]
    assert {point["implementation"] for point in points} == {"reference", "torch"}
    without_gradient = [(p["implementation"], p["direction"]) for p in points if p["status"] != "ok"]
    assert set(without_gradient) == {("torch", "backward")}


def test_the_tests_walk_the_folder(house, monkeypatch):
    monkeypatch.setattr(_catalog, "FOLDER", house / "seqroof" / "kernels")
    assert "newcomer" in _catalog.kernel_names()
