"""Makes Pythons that hold exactly the packages a test names, out of what is installed here and without a network."""

from __future__ import annotations

import os
import re
import subprocess
import venv
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path


def closure(names: tuple[str, ...]) -> list[Distribution]:
    """The named distributions and all they need, as far as it is installed. Raises for a named one that is not."""
    found, waiting = {}, [distribution(name) for name in names]
    while waiting:
        one = waiting.pop()
        if one.name in found:
            continue
        found[one.name] = one
        for line in one.requires or ():
            if re.search(r";.*\bextra\b", line):
                continue
            try:
                waiting.append(distribution(re.split(r"[^\w.-]", line)[0]))
            except PackageNotFoundError:
                continue  # its marker excludes this machine
    return list(found.values())


def python_with(folder: Path, packages: list[Distribution]) -> str:
    """A virtual environment without pip whose packages are links to the given ones; returns its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python3*/site-packages"))
    for package in packages:
        for top in {path.parts[0] for path in package.files or ()} - {"..", "__pycache__"}:
            link = site / top
            if not link.exists():
                link.symlink_to(Path(str(package.locate_file(top))).resolve())
    return str(folder / "bin" / "python")


def wheel_of(package: Distribution, folder: Path) -> Path:
    """Pack an installed distribution back into a wheel."""
    tags = re.findall(r"^Tag: (\S+)-(\S+)-(\S+)", package.read_text("WHEEL") or "", re.MULTILINE)
    tag = "-".join(".".join(dict.fromkeys(column)) for column in zip(*tags))
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{re.sub(r'[-_.]+', '_', package.name)}-{package.version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in package.files or ():
            if ".." not in path.parts and path.suffix != ".pyc":
                archive.write(str(package.locate_file(path)), str(path))
    return wheel


def offline(**changes: str) -> dict[str, str]:
    """The environment variables of this process without Python's or pip's settings, and with no package index."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PIP_", "SEQROOF_"))}
    return {**kept, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", **changes}


def run(*words: str | Path, **options) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it prints."""
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)
