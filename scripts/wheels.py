"""Fills `wheels/` with the packages that a machine without a package index may lack. Standard library only.

    scripts/wheels --python 3.12                  # everything but torch, triton and the page renderer
    scripts/wheels --python 3.12 --with-report    # the page renderer too, about 30 MB

Copy the folder into the checkout on that machine: `scripts/profile` and `scripts/test` take from it what is missing
there, and leave the rest of it alone. torch and triton are never fetched: such a machine has its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("pyright", "ruff")  # read the source only: nothing that runs on the other machine needs them
# pip matches a platform tag by its exact number, so every glibc that wheels are commonly built for is named.
GLIBC = ("2_39", "2_35", "2_34", "2_31", "2_28", "2_27", "2_24", "2_17", "2_12", "2_5")


def wanted(project: dict, with_report: bool) -> list[str]:
    """Requirement lines to fetch, from the `[project]` table: the base, the small run packages, the tests, the page."""
    extras = project["optional-dependencies"]
    small = [line for line in extras["run"] if line.startswith("nvidia-ml-py")]
    tests = [line for line in extras["dev"] if not line.startswith(TOOLS)]
    report = [line for line in extras["report"] if with_report or not line.startswith("vl-convert")]
    return [*project["dependencies"], *small, *report, *tests]


def pip_line(lines: list[str], python: str, machine: str, folder: Path) -> list[str]:
    """The `pip download` command for another Python (such as 3.12) on glibc Linux and `machine` (such as x86_64)."""
    platforms = [f"manylinux_{version}_{machine}" for version in GLIBC] + [f"manylinux2014_{machine}"]
    target = ["--python-version", python, "--implementation", "cp"]
    target += [word for platform in platforms for word in ("--platform", platform)]
    pins = ["--constraint", str(ROOT / "tests" / "constraints.txt")]
    fetch = ["download", "--quiet", "--quiet", "--only-binary=:all:", "--dest", str(folder)]
    return [sys.executable, "-P", "-m", "pip", *fetch, *target, *pins, *lines]


def main() -> int:
    """Fetch the wheels and say what is there now."""
    parser = argparse.ArgumentParser(prog="scripts/wheels", description="Fill wheels/ for a machine without an index.")
    parser.add_argument("--python", required=True, metavar="X.Y", help="the Python of that machine, such as 3.12")
    parser.add_argument("--machine", default="x86_64", help="its processor, as `uname -m` prints it (x86_64)")
    parser.add_argument("--with-report", action="store_true", help="also fetch what draws the page (about 30 MB)")
    choices = parser.parse_args()
    folder = ROOT / "wheels"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    line = pip_line(wanted(project, choices.with_report), choices.python, choices.machine, folder)
    outcome = subprocess.run(line)
    if outcome.returncode:
        print("seqroof: pip could not fetch the wheels; its last lines above say which one and why.", file=sys.stderr)
        return 4
    wheels = sorted(folder.glob("*.whl"))
    size_mb = sum(wheel.stat().st_size for wheel in wheels) / 1e6
    print(f"{len(wheels)} wheels, {size_mb:.0f} MB, in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
