"""Which Python runs seqroof and what it still lacks: the decision behind `scripts/profile`, `scripts/test` and others.

Standard library only, since it runs before anything is installed. There are three answers, tried in this order:

active   the Python that was found has every package: it is used as it is;
overlay  it has torch in range but lacks smaller packages: those alone go into a folder of `.venv/`, ahead on its path;
venv     anything else: `.venv/` becomes an environment of its own.

`install.py` carries the answer out and is not even imported when an earlier run left everything ready. Versions are
read from package metadata; torch is never imported here, so a second start takes a fraction of a second.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("kernels", "profiler", "roofline", "scripts")
WHATS = ("profile", "test", "check", "gpu_suite")
RUNNER = (
    "hypothesis",
    "pytest",
)  # of the extra `dev`, what the tests cannot start without; the rest skips a test or two
# `-P` keeps the folder the user stands in off the path, where a `kernels` or `triton` of theirs would be picked up.
SEQROOF = ("-P", "-c", "import sys; sys.argv[0] = 'seqroof'; from seqroof.scripts.main import main; sys.exit(main())")
LAUNCHER = "SEQROOF_LAUNCHER"  # the variable that says how `seqroof` is called where scripts/profile has started it
SETUP_FAILED = 4  # the documented exit code for a precondition that is not met


class SetupFailed(Exception):
    """The environment cannot be made. The text says why and what to do."""


@dataclass(frozen=True)
class Requirement:
    """One line of `pyproject.toml`, such as `triton>=3.6`, whose marker holds on this machine."""

    name: str
    text: str
    ranges: tuple[tuple[str, tuple[int, ...]], ...]

    def accepts(self, version: str) -> bool:
        """Whether an installed version lies in range. Local and pre-release parts are ignored: 2.11.0a0+x is 2.11."""
        tests = {
            ">=": lambda have, bound: have >= bound,
            "<": lambda have, bound: have < bound,
            "==": lambda have, bound: have == bound,
            "!=": lambda have, bound: have != bound,
        }
        return all(tests[operator](_release(version), bound) for operator, bound in self.ranges)


@dataclass(frozen=True)
class Need:
    """What one of the commands has to have, and what it can do without (`optional`)."""

    required: tuple[Requirement, ...]
    optional: tuple[Requirement, ...]


@dataclass(frozen=True)
class Environment:
    """A Python that is ready: its path, the folders that go ahead on its path, and what could not be had."""

    python: str
    paths: tuple[str, ...]
    absent: tuple[str, ...] = ()


def _release(version: str) -> tuple[int, ...]:
    """The release numbers of a version, without trailing zeros, so that 2.11 and 2.11.0 are equal."""
    numbers = [int(part) for part in re.split(r"[^\d.]", version)[0].split(".") if part]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def applies(marker: str, system: str = sys.platform, machine: str | None = None) -> bool:
    """Whether a marker holds: `name == 'value'` tests of the platform joined by `and`, all that pyproject.toml uses.

    Raises `SetupFailed` for any other marker.
    """
    facts = {"sys_platform": system, "platform_machine": machine or platform.machine()}
    for test in filter(None, (part.strip() for part in marker.split(" and "))):
        match = re.fullmatch(r"(\w+)\s*==\s*['\"]([^'\"]*)['\"]", test)
        if match is None or match[1] not in facts:
            raise SetupFailed(
                f"The marker {test!r} in pyproject.toml is not understood; expected sys_platform == 'linux'."
            )
        if facts[match[1]] != match[2]:
            return False
    return True


def parse(line: str) -> Requirement | None:
    """One requirement line as a `Requirement`; None when its marker excludes this machine."""
    text, _, marker = (part.strip() for part in line.partition(";"))
    match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*((?:(?:>=|<|==|!=)\s*[\d.]+\s*,?\s*)*)", text)
    if match is None:
        raise SetupFailed(
            f"The requirement {line!r} in pyproject.toml is not understood; expected a line like torch>=2.11."
        )
    if not applies(marker):
        return None
    ranges = tuple((operator, _release(bound)) for operator, bound in re.findall(r"(>=|<|==|!=)\s*([\d.]+)", match[2]))
    return Requirement(match[1].lower(), text, ranges)


def need_of(what: str, project: dict) -> Need:
    """What a command needs, from the `[project]` table of pyproject.toml."""

    def group(lines: list[str]) -> tuple[Requirement, ...]:
        return tuple(requirement for requirement in map(parse, lines) if requirement)

    extras = project["optional-dependencies"]
    required = group(project["dependencies"] + extras["run"])
    optional = group(extras["report"])
    dev = group(extras["dev"])
    if what == "check":
        return Need(required + dev, optional)
    if what in ("test", "gpu_suite"):
        runner = tuple(requirement for requirement in dev if requirement.name in RUNNER)
        rest = tuple(requirement for requirement in dev if requirement.name not in RUNNER)
        return Need(required + runner, optional + (rest if what == "test" else ()))
    return Need(required, optional)


def _version(name: str, paths: list[str]) -> str | None:
    # Nightly builds of torch bring triton under another name.
    for known in (name, f"pytorch-{name}") if name == "triton" else (name,):
        found = next(iter(Distribution.discover(name=known, path=paths)), None)
        if found is not None:
            return found.version
    return None


def has_cpu_torch(paths: list[str]) -> bool:
    """Whether the torch on `paths` is a build without CUDA, as PyTorch's own index names it."""
    return (_version("torch", paths) or "").endswith("+cpu")


def missing(requirements: tuple[Requirement, ...], paths: list[str]) -> tuple[Requirement, ...]:
    """The requirements that no installed package on `paths` meets, by package metadata alone."""

    found = {requirement: _version(requirement.name, paths) for requirement in requirements}
    return tuple(requirement for requirement, have in found.items() if have is None or not requirement.accepts(have))


def decide(lacking: tuple[Requirement, ...], lacking_optional: tuple[Requirement, ...], has_pip: bool) -> str:
    """`active`, `overlay` or `venv`, from what the active Python lacks and whether it can install anything."""
    if not lacking and not (lacking_optional and has_pip):
        return "active"
    if has_pip and "torch" not in {requirement.name for requirement in lacking}:
        return "overlay"
    return "venv"


@cache
def has_nvidia_gpu() -> bool:
    """Whether an NVIDIA GPU answers here: a device file, or an `nvidia-smi` that lists one."""
    if glob.glob("/dev/nvidia[0-9]*"):
        return True
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listing.returncode == 0 and "GPU" in listing.stdout


def old_triton_folder(root: Path) -> Path:
    """Where the older triton for the compile tests lies; its wheels fit one version of Python."""
    return root / ".venv" / "triton-old" / f"python{sys.version_info.major}.{sys.version_info.minor}"


def site_folders(python: str) -> list[str]:
    """Where the packages of a Python lie: this process's own path, or the folders of the environment in `.venv/`."""
    if python == sys.executable:
        return sys.path
    return glob.glob(str(Path(python).parent.parent / "lib" / "python3*" / "site-packages"))


def fingerprint(what: str, root: Path = ROOT) -> str:
    """Changes whenever an environment made earlier may no longer fit: the stamp that a second run compares."""
    wheels = sorted(path.name for path in (root / "wheels").glob("*.whl"))
    # A GPU that came later wants another build of torch.
    facts = [what, sys.version, sys.executable, str(root), "GPU" if has_nvidia_gpu() else "", *wheels]
    scripts = [root / "scripts" / name for name in ("install.py", "pip_calls.py")]
    files = [root / "pyproject.toml", root / "tests" / "constraints.txt", *scripts]
    parts = [*(fact.encode() for fact in facts), *(path.read_bytes() for path in files)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def recall(what: str, need: Need, root: Path = ROOT) -> Environment | None:
    """The environment that an earlier run made ready, or None when there is none or it has lost a package since."""
    try:
        stamp = json.loads((root / ".venv" / f"{what}.json").read_text())
        known = Environment(stamp["python"], tuple(stamp["paths"]), tuple(stamp["absent"]))
        fits = stamp["fingerprint"] == fingerprint(what, root)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no stamp, or a damaged one: set up again
    whole = fits and Path(known.python).exists() and (root / ".venv" / "bin" / "seqroof").exists()
    return known if whole and not missing(need.required, [*known.paths, *site_folders(known.python)]) else None


def remember(what: str, environment: Environment, root: Path = ROOT) -> None:
    """Leave the stamp that `recall` reads."""
    stamp = {
        "fingerprint": fingerprint(what, root),
        "python": environment.python,
        "paths": environment.paths,
        "absent": environment.absent,
    }
    (root / ".venv" / f"{what}.json").write_text(json.dumps(stamp, indent=1) + "\n")


def variables(environment: Environment, root: Path, inherited: dict[str, str]) -> dict[str, str]:
    """The environment variables of the command: the overlay ahead on the path, and the older triton for the tests."""
    paths = [*environment.paths, *filter(None, [inherited.get("PYTHONPATH")])]
    changed = {**inherited, "PYTHONPATH": os.pathsep.join(paths)}
    if (old_triton_folder(root) / "triton").is_dir():
        changed["SEQROOF_TRITON_OLD"] = str(old_triton_folder(root))
    return changed


def launcher_from(folder: Path, root: Path) -> str:
    """The path of the launcher that the set-up has written, as short as it can be typed in a folder."""
    launcher = root / ".venv" / "bin" / "seqroof"
    return str(launcher.relative_to(folder) if launcher.is_relative_to(folder) else launcher)


def command(what: str, environment: Environment, arguments: list[str], parallel: bool = False) -> list[str]:
    """The command line to become. `parallel` spreads the whole test suite over the cores (not on a GPU: one device)."""
    python = environment.python
    if what == "profile":
        return [python, *SEQROOF, "profile", *arguments]
    if what == "test":
        whole = all(word.startswith("--") for word in arguments)  # neither a choice of tests nor of workers
        # A file's tests stay together: what they share, such as an interpreted process, is made once.
        spread = ["-n", "auto", "--dist", "loadfile"] if parallel and whole else []
        return [python, "-P", "-m", "pytest", *spread, *arguments]
    return [python, "-P", "-m", f"seqroof.scripts.{'check_all' if what == 'check' else what}", *arguments]


def main(words: list[str]) -> int:
    """Become the command `words[0]` with the arguments after it; returns only when the set-up failed."""
    what, arguments = words[0], words[1:]
    try:
        need = need_of(what, tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])
        environment = recall(what, need)
        if environment is None:
            from .install import prepare

            environment = prepare(what, need, ROOT)
    except SetupFailed as failure:
        print(f"seqroof: {failure}", file=sys.stderr)
        return SETUP_FAILED
    parallel = what == "test" and "pytest-xdist" not in environment.absent and not has_nvidia_gpu()
    line = command(what, environment, arguments, parallel)
    changed = variables(environment, ROOT, dict(os.environ))
    if what == "profile":
        changed[LAUNCHER] = launcher_from(Path.cwd(), ROOT)
    if what in ("test", "check"):
        os.chdir(ROOT)  # pytest, ruff and pyright find their settings there
    os.execve(line[0], line, changed)


if __name__ == "__main__":
    # Run as a file, Python puts scripts/ itself on the path; the repository takes its place, so that these are modules
    # of a package and no name in scripts/ can stand in for one of the standard library.
    sys.path[0] = str(ROOT)
    from scripts.environment import main as become

    sys.exit(become(sys.argv[1:]))
