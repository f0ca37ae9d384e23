"""The whole quick suite through the command line: nothing is missing from record, table and journal."""

import getpass
import itertools
import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from seqroof.kernels import _catalog
from seqroof.profiler.journal import read


@pytest.fixture(scope="module")
def quick(tmp_path_factory, roofs):
    folder = tmp_path_factory.mktemp("quick")
    command = [sys.executable, "-m", "seqroof.scripts.main", "profile", "--budget", "5s", "--out", "o"]
    flags = ["--roofs", str(roofs), "--device", "cpu"]
    done = subprocess.run([*command, *flags], cwd=folder, capture_output=True, text=True, env=None)
    assert done.returncode == 0, done.stderr
    return folder / "o", done


def expected():
    for name in _catalog.kernel_names():
        kernel = _catalog.load(name)
        for shape in kernel.suite("quick"):
            for dtype in ("fp32", "bf16"):
                yield from ((name, row, vars(shape), dtype) for row in kernel.implementations)


def test_every_case_is_ok_or_skipped_with_a_reason(quick):
    points = json.loads((quick[0] / "run.json").read_text())["points"]
    for kernel, row, sizes, dtype in expected():
        found = [
            p
            for p in points
            if (p["kernel"], p["implementation"], p["dtype"]) == (kernel, row, dtype) and p["shape"] == sizes
        ]
        assert found, (kernel, row, sizes, dtype)
        assert {p["status"] for p in found} in ({"ok"}, {"skipped"}), found
        assert all(p["reason"] for p in found if p["status"] == "skipped")
        assert {p["cache"] for p in found if p["status"] == "ok"} <= {"cold", "warm"}


def test_every_case_is_in_the_output(quick):
    text = quick[1].stdout
    for kernel, row, sizes, _ in expected():
        assert kernel in text and row in text
        assert all(f"{name}={value}" in text for name, value in sizes.items())


def test_timed_points_carry_floors_fractions_and_words(quick):
    points = json.loads((quick[0] / "run.json").read_text())["points"]
    for point in points:
        if point["status"] == "ok":
            assert point["correctness"]["passed"] and point["bound"] and point["best_bound"] and point["gap"]
            assert point["best_fraction"] and point["attainable_fraction"] and point["intensity"]["compulsory"]
            timing = point["time_s"]
            assert timing["rounds"] >= 6 or "calls are slow" in timing["stop"]
            assert timing["low"] <= timing["median"] <= timing["high"]


def test_the_journal_holds_every_point_and_the_page_is_there(quick):
    folder = quick[0]
    points = json.loads((folder / "run.json").read_text())["points"]
    journalled = sum(len(data["points"]) for kind, data in read(folder) if kind == "group")
    assert journalled == len(points)
    assert (folder / "report.html").stat().st_size < 1.5e6 and (folder / "roofline.svg").exists()


def test_nothing_private_is_in_the_record(quick):
    record = json.loads((quick[0] / "run.json").read_text())
    for part in itertools.chain(record["points"], *(point["parts"] for point in record["points"])):
        part["work"] = None  # its reasons are prose of the kernel files, in which "root" is no user
    text = json.dumps(record)
    words = set(re.findall(r"[\w.-]+", text))
    assert socket.gethostname() not in words and getpass.getuser() not in words
    assert str(quick[0].parent) not in text and str(Path.home()) not in text
