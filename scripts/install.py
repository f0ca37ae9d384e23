"""Makes the environment that `environment.py` decided on. Standard library only.

Whatever the decision, `seqroof` itself is never installed: `.venv/overlay/seqroof/` holds links to the four rooms, so
an edited file is the running file. What is installed comes from `wheels/` where it is there, else from the index.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

from .environment import (
    ROOMS,
    SEQROOF,
    Environment,
    Need,
    Requirement,
    SetupFailed,
    decide,
    has_cpu_torch,
    has_nvidia_gpu,
    missing,
    old_triton_folder,
    parse,
    recall,
    remember,
    site_folders,
)
from .pip_calls import add_cpu_torch, pip, replace_cpu_torch, say, sources

Requirements = tuple[Requirement, ...]
Attempt = Callable[[Requirements, list[str]], subprocess.CompletedProcess[str]]  # of packages, from one source

OLD_TRITON = "triton==3.6.0"  # the oldest that must work; torch 2.11 brings it
PIP = Requirement("pip", "pip>=23.0", ((">=", (23,)),))  # the first whose `--report` is stable
LARGE = {  # download sizes worth a warning, rounded from the wheels of 2026
    "torch": "about 200 MB for a CPU build, 3 GB with CUDA",
    "triton": "about 200 MB",
    "vl-convert-python": "about 30 MB",
}
TAIL = 8  # lines of pip's output that a failure shows: its last error with some context


def prepare(what: str, need: Need, root: Path) -> Environment:
    """Make the environment for `what` and remember it. Raises `SetupFailed`. Two at a time wait for each other."""
    with (root / "pyproject.toml").open() as lock:
        # Some network file systems have no locks, or none for a file that is only read: then nobody waits.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        known = recall(what, need, root)
        if known is not None:
            return known
        try:
            environment = _make(what, need, root)
            remember(what, environment, root)
        except OSError as error:
            raise SetupFailed(f"{root / '.venv'} cannot be written: {error}. Make it writable or remove it.") from error
    return environment


def _make(what: str, need: Need, root: Path) -> Environment:
    packages = _packages_folder(root)
    here = [str(packages), *sys.path]
    lacking, optional = missing(need.required, here), missing(need.optional, here)
    kind = decide(lacking, optional, has_pip=not missing((PIP,), sys.path))
    environment = _with_cuda(need, root) if kind != "venv" and has_cpu_torch(here) and has_nvidia_gpu() else None
    if kind == "venv":
        environment = _own(need, root)
    elif environment is None:
        absent = tuple(requirement.name for requirement in optional)
        if kind == "overlay":
            absent = _fill_packages(lacking, optional, packages, root)
        ahead = [str(link_rooms(root)), *([str(packages)] if packages.exists() else [])]
        environment = Environment(sys.executable, tuple(ahead), absent)
    write_launcher(environment, root)
    if environment.absent:
        say(f"not to be had here, and not essential: {', '.join(environment.absent)}")
    if what in ("test", "check"):
        _add_old_triton(environment.python, root)
    return environment


def _own(need: Need, root: Path) -> Environment:
    """The environment in `.venv/`, made where it is not there yet. Raises `SetupFailed`."""
    python = _make_venv(root)
    overlay = link_rooms(root)
    (Path(site_folders(python)[0]) / "seqroof.pth").write_text(f"{overlay}\n")
    return Environment(python, (str(overlay),), _fill_venv(python, need, root))


def _with_cuda(need: Need, root: Path) -> Environment | None:
    """An environment of its own for a GPU that the torch of this Python cannot use; None where it cannot be had."""
    say(f"an NVIDIA GPU is here, and the torch of {sys.executable} is a build without CUDA: {root / '.venv'} gets one")
    try:
        return _own(need, root)
    except SetupFailed as failure:
        say(f"going on without the GPU. {failure}")
        return None


def link_rooms(root: Path) -> Path:
    """Make the four folders importable as `seqroof.<room>`, with the metadata that holds the version."""
    overlay = root / ".venv" / "overlay"
    (overlay / "seqroof").mkdir(parents=True, exist_ok=True)
    for room in ROOMS:
        link = overlay / "seqroof" / room
        if not link.is_symlink():
            link.symlink_to(Path("..") / ".." / ".." / room)
    for stale in overlay.glob("seqroof-*.dist-info"):
        shutil.rmtree(stale)
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    metadata = overlay / f"seqroof-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: seqroof\nVersion: {version}\n")
    return overlay


def write_launcher(environment: Environment, root: Path) -> None:
    """Write `.venv/bin/seqroof`, which runs the command from any folder without `activate`."""
    launcher = root / ".venv" / "bin" / "seqroof"
    launcher.parent.mkdir(parents=True, exist_ok=True)
    paths = shlex.quote(os.pathsep.join(environment.paths))
    fresh = launcher.with_suffix(".new")
    fresh.write_text(
        "#!/bin/sh\n"
        "# seqroof from this checkout, with the Python that scripts/install.py found or made.\n"
        f"PYTHONPATH={paths}${{PYTHONPATH:+:$PYTHONPATH}}\n"
        "export PYTHONPATH\n"
        f'exec {shlex.join([environment.python, *SEQROOF])} "$@"\n'
    )
    fresh.chmod(0o755)
    fresh.replace(launcher)


def _packages_folder(root: Path) -> Path:
    """Packages that one Python lacks. Each Python has its own folder: another may hold them in other versions."""
    prefix = hashlib.sha256(sys.prefix.encode()).hexdigest()[:8]
    return root / ".venv" / "packages" / f"python{sys.version_info.major}.{sys.version_info.minor}-{prefix}"


def _describe(requirements: Requirements) -> str:
    sizes = {requirement.name: LARGE.get(requirement.name) for requirement in requirements}
    return ", ".join(f"{name} ({size})" if size else name for name, size in sizes.items())


def _failure(requirements: Requirements, attempt: subprocess.CompletedProcess[str], root: Path) -> SetupFailed:
    names = ", ".join(requirement.text for requirement in requirements)
    tail = "\n  ".join((attempt.stderr or attempt.stdout).strip().splitlines()[-TAIL:])
    return SetupFailed(
        f"pip could not install {names}. Without a network, put their wheels into {root / 'wheels'} "
        f"(scripts/wheels fills it on a machine that has one). pip said:\n  {tail}"
    )


def _require(attempt: Attempt, wanted: Requirements, root: Path) -> None:
    """Install packages that there is no going on without. Raises `SetupFailed`."""
    if not wanted:
        return
    say(f"installing {_describe(wanted)}")
    outcomes = []
    for source in sources(root):
        outcomes.append(attempt(wanted, source))
        if outcomes[-1].returncode == 0:
            return
    raise _failure(wanted, outcomes[-1], root)


def _try(attempt: Attempt, wanted: Requirements, root: Path) -> tuple[str, ...]:
    """Install packages that it goes without as well, and return the names of those that cannot be had."""
    if not wanted:
        return ()
    say(f"installing {_describe(wanted)}")

    # Where wheels were brought there is hardly an index: one that does not answer is not waited for.
    hasty = ["--retries", "0", "--timeout", "5"] if len(sources(root)) > 1 else []

    def had(group: Requirements) -> bool:
        return any(attempt(group, [*hasty, *source]).returncode == 0 for source in sources(root))

    if had(wanted):
        return ()
    # One that cannot be had fails the whole call, so each then gets its own.
    return tuple(one.name for one in wanted if len(wanted) == 1 or not had((one,)))


def _fill_packages(lacking: Requirements, optional: Requirements, packages: Path, root: Path) -> tuple[str, ...]:
    """Put what the active Python lacks into `packages`, and nothing that it has."""

    def attempt(requirements: Requirements, source: list[str]) -> subprocess.CompletedProcess[str]:
        # pip's `--target` ignores what is installed and would bring a second torch; so it is asked first, with the
        # installed packages in view, what is missing, and then told to fetch exactly that.
        texts = [requirement.text for requirement in requirements]
        ask = ["--quiet", "--dry-run", "--report", "-", *source, *texts]
        plan = pip(sys.executable, "install", *ask, ahead=packages)
        if plan.returncode:
            return plan
        parts = [part["metadata"] for part in json.loads(plan.stdout)["install"]]
        exact = [f"{part['name']}=={part['version']}" for part in parts]
        into = ["--quiet", "--no-deps", "--upgrade", "--target", str(packages)]
        return pip(sys.executable, "install", *into, *source, *exact) if exact else plan

    say(f"using {sys.executable} with its torch; what it lacks goes to {packages}")
    _require(attempt, lacking, root)
    return _try(attempt, optional, root)


def _make_venv(root: Path) -> str:
    """Create `.venv/`, or keep the one that is there if it is of the active Python's version and runs."""
    folder = root / ".venv"
    python = str(folder / "bin" / "python")
    probe = [python, "-c", "import sys; print(*sys.version_info[:2]); import pip"]
    if Path(python).exists():
        answer = subprocess.run(probe, capture_output=True, text=True)
        if answer.returncode == 0 and answer.stdout.split() == [str(part) for part in sys.version_info[:2]]:
            return python
    say(f"making {folder} with Python {sys.version.split()[0]}")
    # `--clear` only over an environment of another Python: the first time, `.venv/` may hold an overlay to keep.
    clear = ["--clear"] if Path(python).exists() else []
    made = subprocess.run([sys.executable, "-m", "venv", *clear, str(folder)], capture_output=True, text=True)
    if made.returncode:
        tail = "\n  ".join((made.stdout + made.stderr).strip().splitlines()[-TAIL:])
        raise SetupFailed(
            f"{sys.executable} cannot make a virtual environment. On Debian and Ubuntu install python3-venv, "
            f"or name another Python: PYTHON=/path/to/python3 scripts/profile. It said:\n  {tail}"
        )
    return python


def _fill_venv(python: str, need: Need, root: Path) -> tuple[str, ...]:
    """Install everything into `.venv/`, pinned by tests/constraints.txt; torch as a CPU build where there is no GPU."""
    constraints = root / "tests" / "constraints.txt"

    def attempt(requirements: Requirements, source: list[str]) -> subprocess.CompletedProcess[str]:
        texts = [requirement.text for requirement in requirements]
        return pip(python, "install", "--quiet", "--constraint", str(constraints), *source, *texts)

    site = site_folders(python)
    lacks_torch = "torch" in {requirement.name for requirement in missing(need.required, site)}
    if lacks_torch and sys.platform == "linux" and not has_nvidia_gpu():
        add_cpu_torch(python, constraints.read_text(), root)
    elif has_cpu_torch(site) and has_nvidia_gpu():
        replace_cpu_torch(python, constraints.read_text(), root)
    # All of them, not only what is missing: pip then also brings what the CPU build of torch itself needs.
    _require(attempt, need.required, root)
    return _try(attempt, missing(need.optional, site), root)


def _add_old_triton(python: str, root: Path) -> None:
    """The oldest supported triton, apart from the one in use, for the tests that compile with both."""
    folder = old_triton_folder(root)
    wanted = parse(f"{OLD_TRITON}; sys_platform == 'linux' and platform_machine == 'x86_64'")
    if wanted is None or not missing((wanted,), [str(folder)]):
        return
    say(f"installing {OLD_TRITON} beside it ({LARGE['triton']})")
    for source in sources(root):
        if (
            pip(
                python,
                "install",
                "--quiet",
                "--no-deps",
                "--retries",
                "1",
                "--target",
                str(folder),
                *source,
                OLD_TRITON,
            ).returncode
            == 0
        ):
            return
    say(f"{OLD_TRITON} cannot be had here: the tests that compile with it are skipped")
