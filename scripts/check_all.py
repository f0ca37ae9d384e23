"""Everything that has to be clean before a commit: lint, format, types, tests, and the size of the files.

Every step runs, whatever the one before it said; arguments go to the tests. Exit code 1 if any step failed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from seqroof.scripts.environment import ROOMS, ROOT

MOST_LINES = {"kernels": 600}  # a kernel file holds mathematics, cost, kernels and launcher
MOST_LINES_ELSEWHERE = 300  # a file that one reads in one go


def steps(arguments: list[str]) -> dict[str, list[str]]:
    """The commands, by the name they are reported under."""
    python = [sys.executable, "-P", "-m"]
    return {
        "lint": [*python, "ruff", "check", *ROOMS, "tests"],
        "format": [*python, "ruff", "format", "--check", *ROOMS, "tests"],
        "types": [*python, "pyright", "--pythonpath", sys.executable],
        "tests": [str(ROOT / "scripts" / "test"), *arguments],
    }


def line_counts(root: Path) -> tuple[str, list[str]]:
    """Lines by folder as one printed line, and the files that are longer than they should be."""
    counts, long = [], []
    for folder in (*ROOMS, "tests"):
        sizes = {path: len(path.read_text().splitlines()) for path in sorted((root / folder).rglob("*.py"))}
        counts.append(f"{folder} {sum(sizes.values())} in {len(sizes)} files")
        most = MOST_LINES.get(folder, MOST_LINES_ELSEWHERE)
        long += [
            f"{path.relative_to(root)}: {size} lines, wanted: {most}" for path, size in sizes.items() if size > most
        ]
    return ", ".join(counts), long


def main() -> int:
    """Run the steps in the repository root and say which failed."""
    failed = []
    for name, command in steps(sys.argv[1:]).items():
        print(f"== {name}", flush=True)
        if subprocess.run(command, cwd=ROOT).returncode:
            failed.append(name)
    counts, long = line_counts(ROOT)
    print(f"== lines\n{counts}", *long, sep="\n")
    print(f"failed: {', '.join(failed)}" if failed else "all clean")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
