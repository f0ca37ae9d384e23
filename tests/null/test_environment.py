"""The set-up: what it decides from which facts, and that the launchers pass arguments and exit codes through."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from isolated import offline, run

from seqroof.scripts import environment, install, pip_calls, wheels
from seqroof.scripts.environment import (
    Environment,
    Need,
    SetupFailed,
    applies,
    command,
    decide,
    missing,
    need_of,
    parse,
)

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STAND_IN = "import sys\ndef main():\n    print(sys.argv)\n    return 7\n"


def names(requirements) -> set[str]:
    return {requirement.name for requirement in requirements}


def pretend(folder: Path, **versions: str) -> list[str]:
    """A folder of packages that exist as metadata only."""
    for name, version in versions.items():
        metadata = folder / f"{name}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return [str(folder)]


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A repository with the real launchers, a command that prints its arguments, and no needs."""
    root = tmp_path / "a checkout"
    for folder in ("kernels", "profiler", "roofline", "scripts", "tests"):
        (root / folder).mkdir(parents=True)
    scripts = ("__init__.py", "environment.py", "install.py", "pip_calls.py")
    for name in (*scripts, "find_python.sh", "profile", "test", "gpu_suite"):
        shutil.copy(ROOT / "scripts" / name, root / "scripts")
    (root / "scripts" / "main.py").write_text(STAND_IN)
    (root / "tests" / "constraints.txt").write_text("")
    needs(root)
    return root


def needs(root: Path, base: str = "[]", report: str = "[]") -> None:
    """Write the project file of a checkout with the given requirements."""
    extras = f"[project.optional-dependencies]\nrun = []\nreport = {report}\ndev = []\n"
    (root / "pyproject.toml").write_text(f"[project]\nversion = '1.2'\ndependencies = {base}\n{extras}")


def launch(root: Path, script: str, *words: str, **variables: str):
    return run(
        root / "scripts" / script, *words, env=offline(**{"PYTHON": sys.executable, **variables}), cwd=root.parent
    )


@pytest.mark.parametrize(
    ("line", "version", "fits"),
    [
        ("torch>=2.11", "2.11.0+cpu", True),
        ("torch>=2.11", "2.11.0a0+git123", True),
        ("torch>=2.11", "2.9.1", False),
        ("rich>=13.7,<15", "15.0", False),
        ("rich>=13.7, <15", "14.9", True),
        ("triton==3.6.0", "3.6", True),
        ("rich", "1", True),
    ],
)
def test_versions_are_compared_by_number(line, version, fits):
    assert parse(line).accepts(version) is fits


def test_markers_of_the_platform():
    linux = "sys_platform == 'linux' and platform_machine == 'x86_64'"
    assert applies(linux, "linux", "x86_64")
    assert not applies(linux, "linux", "aarch64")
    assert not applies(linux, "darwin", "x86_64")
    with pytest.raises(SetupFailed, match="python_version"):
        applies("python_version < '3.12'")
    with pytest.raises(SetupFailed, match="not understood"):
        parse("torch @ https://example.org/torch.whl")


def test_needs_follow_the_project_file():
    profile, test, check = (need_of(what, PROJECT) for what in ("profile", "test", "check"))
    assert {"pydantic", "torch"} <= names(profile.required) and "pytest" not in names(profile.required)
    assert "vl-convert-python" in names(profile.optional)
    assert {"pytest", "hypothesis"} <= names(test.required)
    assert {"ruff", "pyright", "build"} <= names(test.optional) & names(check.required)


def test_a_package_is_missing_when_absent_or_out_of_range(tmp_path):
    paths = pretend(tmp_path, torch="2.13.0+cpu", rich="12.0", vl_convert_python="1.9")
    wanted = tuple(map(parse, ("torch>=2.11", "rich>=13.7", "pydantic>=2.7", "vl-convert-python>=1.7")))
    assert names(missing(wanted, paths)) == {"rich", "pydantic"}


def test_triton_of_a_nightly_torch_counts(tmp_path):
    assert missing((parse("triton>=3.6"),), pretend(tmp_path, pytorch_triton="3.9.0+git1")) == ()


@pytest.mark.parametrize(
    ("lacking", "optional", "has_pip", "answer"),
    [
        ((), (), True, "active"),
        ((), (), False, "active"),
        ((), ("vl-convert-python",), False, "active"),
        ((), ("vl-convert-python",), True, "overlay"),
        (("pydantic",), (), True, "overlay"),
        (("pydantic",), (), False, "venv"),
        (("torch", "triton"), (), True, "venv"),
        (("torch",), ("jinja2",), False, "venv"),
    ],
)
def test_the_decision(lacking, optional, has_pip, answer):
    assert decide(tuple(map(parse, lacking)), tuple(map(parse, optional)), has_pip) == answer


def test_an_environment_is_remembered_until_something_changes(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "has_nvidia_gpu", lambda: False)
    site = tmp_path / "site"
    paths = pretend(site, pydantic="2.9")
    need = Need((parse("pydantic>=2.7"),), ())
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "seqroof").touch()
    known = Environment("/bin/sh", tuple(paths), ("jinja2",))
    assert environment.recall("profile", need, checkout) is None
    environment.remember("profile", known, checkout)
    assert environment.recall("profile", need, checkout) == known
    assert environment.recall("test", need, checkout) is None
    assert environment.recall("profile", Need((parse("pydantic>=3"),), ()), checkout) is None
    stamp = (checkout / ".venv" / "profile.json").read_text()
    (checkout / ".venv" / "profile.json").write_text(stamp[:20])
    assert environment.recall("profile", need, checkout) is None
    (checkout / ".venv" / "profile.json").write_text(stamp)
    assert environment.recall("profile", need, checkout) == known
    with monkeypatch.context() as later:
        later.setattr(environment, "has_nvidia_gpu", lambda: True)
        assert environment.recall("profile", need, checkout) is None, "a GPU came later"
    (checkout / "wheels").mkdir()
    (checkout / "wheels" / "new-1-py3-none-any.whl").touch()
    assert environment.recall("profile", need, checkout) is None


def test_commands_keep_their_arguments():
    here = Environment("python", ())
    assert command("profile", here, ["a b", ""])[-3:] == ["profile", "a b", ""]
    assert command("test", here, ["-k", "x y"], parallel=True)[-4:] == ["-m", "pytest", "-k", "x y"]
    assert command("test", here, [], parallel=True)[-4:] == ["-n", "auto", "--dist", "loadfile"]
    assert command("test", here, ["--durations=9"], parallel=True)[-3:] == ["--dist", "loadfile", "--durations=9"]
    assert command("test", here, [])[-1] == "pytest"
    assert command("gpu_suite", here, ["--list"])[-2:] == ["seqroof.scripts.gpu_suite", "--list"]


@pytest.fixture
def pip_called(monkeypatch) -> list[tuple[str, ...]]:
    """What pip is called with; each call succeeds at once."""
    calls = []

    def pip(python, *words, **_):
        calls.append(words)
        return run("true")

    for module in (install, pip_calls):
        monkeypatch.setattr(module, "pip", pip)
    return calls


def test_a_machine_without_a_gpu_is_offered_the_cpu_build_first(monkeypatch, tmp_path):
    calls = []

    def pip(python, *words, **_):
        calls.append(words)
        return run("false" if len(calls) == 1 else "true")

    monkeypatch.setattr(pip_calls, "pip", pip)
    pip_calls.add_cpu_torch("python", "# pins\ntorch==2.13.0\n", tmp_path)
    assert [words[-1] for words in calls] == ["torch==2.13.0+cpu"] * 2
    assert pip_calls.CPU_INDEX in calls[1] and "--no-deps" in calls[1]


def test_the_needs_of_the_cpu_build_are_installed_too(monkeypatch, checkout, pip_called):
    # The CPU build is fetched alone, so that its index is asked for nothing else; then pip has to see torch once more.
    monkeypatch.setattr(install, "has_nvidia_gpu", lambda: False)
    monkeypatch.setattr(sys, "platform", "linux")
    (checkout / "tests" / "constraints.txt").write_text("torch==2.13.0\n")
    install._fill_venv(str(checkout / ".venv" / "bin" / "python"), Need((parse("torch>=2.11"),), ()), checkout)
    assert [("--no-deps" in words, words[-1]) for words in pip_called] == [
        (True, "torch==2.13.0+cpu"),
        (False, "torch>=2.11"),
    ]


@pytest.mark.parametrize(
    ("version", "first"), [("2.13.0+cpu", (True, "torch==2.13.0")), ("2.13.0", (False, "torch>=2.11"))]
)
def test_a_cpu_build_where_a_gpu_is_makes_room_for_one_with_cuda(monkeypatch, checkout, pip_called, version, first):
    monkeypatch.setattr(install, "has_nvidia_gpu", lambda: True)
    (checkout / "tests" / "constraints.txt").write_text("torch==2.13.0\n")
    pretend(checkout / ".venv" / "lib" / "python3.12" / "site-packages", torch=version)
    install._fill_venv(str(checkout / ".venv" / "bin" / "python"), Need((parse("torch>=2.11"),), ()), checkout)
    # pip takes both builds for the same version, and leaves the one that it finds.
    assert ("--force-reinstall" in pip_called[0], pip_called[0][-1]) == first
    assert pip_called[-1][-1] == "torch>=2.11"


def test_a_python_whose_torch_cannot_use_the_gpu_is_left_for_an_environment(monkeypatch, checkout, tmp_path):
    for module in (environment, install):
        monkeypatch.setattr(module, "has_nvidia_gpu", lambda: True)
    monkeypatch.setattr(sys, "path", pretend(tmp_path / "site", torch="2.13.0+cpu", pip="25.0"))
    need, own = Need((parse("torch>=2.11"),), ()), Environment("/bin/sh", ())
    monkeypatch.setattr(install, "_own", lambda need, root: own)
    assert install.prepare("profile", need, checkout) == own

    def refused(need, root):
        raise SetupFailed("no network")

    monkeypatch.setattr(install, "_own", refused)
    (checkout / ".venv" / "profile.json").unlink()
    assert install.prepare("profile", need, checkout).python == sys.executable


def test_a_file_system_without_locks_is_set_up_all_the_same(monkeypatch, checkout):
    def refused(*arguments):
        raise OSError(errno.EBADF, "Bad file descriptor")  # what NFS says of a file that is only read

    monkeypatch.setattr(install.fcntl, "flock", refused)
    monkeypatch.setattr(install, "has_nvidia_gpu", lambda: False)
    assert install.prepare("profile", Need((), ()), checkout).python == sys.executable


def test_wheels_leave_the_large_and_the_needless_out():
    lines = wheels.wanted(PROJECT, with_report=False)
    bare = {parse(line).name for line in lines}
    assert {"pydantic", "hypothesis", "jsonschema"} <= bare
    assert not bare & {"torch", "triton", "ruff", "pyright", "vl-convert-python"}
    line = wheels.pip_line(lines, "3.12", "x86_64", Path("wheels"))
    assert line[line.index("--python-version") + 1] == "3.12" and "manylinux_2_17_x86_64" in line


def test_a_launcher_passes_arguments_and_exit_code_through(checkout):
    words = ["a b", "", "*", "--x=$HOME", "it's"]
    first = launch(checkout, "profile", *words)
    assert (first.returncode, first.stdout) == (7, f"{['seqroof', 'profile', *words]}\n"), first.stderr
    again = launch(checkout, "profile", *words)
    assert (again.returncode, again.stdout, again.stderr) == (7, first.stdout, "")
    command = run(checkout / ".venv" / "bin" / "seqroof", "list", *words, env=offline(), cwd="/")
    assert (command.returncode, command.stdout) == (7, f"{['seqroof', 'list', *words]}\n"), command.stderr


def test_an_edited_file_is_the_running_file(checkout):
    launch(checkout, "profile")
    (checkout / "scripts" / "main.py").write_text(STAND_IN.replace("sys.argv", "'edited since'"))
    assert launch(checkout, "profile").stdout == "edited since\n"


def test_the_command_knows_how_it_can_be_typed_again(checkout):
    source = "import os\ndef main():\n    print(os.environ['SEQROOF_LAUNCHER'])\n"
    (checkout / "scripts" / "main.py").write_text(source)
    assert launch(checkout, "profile").stdout == "a checkout/.venv/bin/seqroof\n"


def test_the_overlay_knows_the_version(checkout):
    source = "from importlib.metadata import version\ndef main():\n    print(version('seqroof'))\n"
    (checkout / "scripts" / "main.py").write_text(source)
    assert launch(checkout, "profile").stdout == "1.2\n"


@pytest.mark.parametrize(("lines", "sources"), [(["b>=1"], 2), (["b>=1", "c>=1"], 6)])
def test_what_cannot_be_had_beside_wheels_is_asked_for_once_and_briefly(tmp_path, lines, sources):
    asked = []

    def refuse(wanted, source):
        asked.append(source)
        return subprocess.CompletedProcess([], 1)

    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "a-1-py3-none-any.whl").touch()
    wanted = tuple(parse(line) for line in lines)
    assert install._try(refuse, wanted, tmp_path) == tuple(one.name for one in wanted)
    assert len(asked) == sources and all(source[:4] == ["--retries", "0", "--timeout", "5"] for source in asked)
    asked.clear()
    install._try(refuse, wanted, tmp_path / "without")
    assert asked and not any(asked), "an ordinary machine waits for its index as pip does"


def test_a_required_package_that_cannot_be_had_ends_with_a_sentence(checkout):
    pytest.importorskip("pip")
    needs(checkout, base="['seqroof-needs-this>=1']")
    outcome = launch(checkout, "profile")
    assert outcome.returncode == environment.SETUP_FAILED
    assert "could not install seqroof-needs-this>=1" in outcome.stderr and "wheels" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_an_optional_package_that_cannot_be_had_is_a_sentence_once(checkout):
    pytest.importorskip("pip")
    needs(checkout, report="['seqroof-likes-this>=1']")
    first, second = launch(checkout, "profile"), launch(checkout, "profile")
    assert (first.returncode, second.returncode) == (7, 7), first.stderr
    assert "not essential: seqroof-likes-this" in first.stderr
    assert second.stderr == ""


def test_old_pythons_end_with_a_sentence(checkout, tmp_path):
    old = tmp_path / "bin"
    old.mkdir()
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        (old / name).write_text("#!/bin/sh\nexit 1\n")
        (old / name).chmod(0o755)
    outcome = launch(checkout, "profile", PATH=f"{old}:{os.environ['PATH']}", PYTHON=str(old / "python3"))
    assert outcome.returncode == environment.SETUP_FAILED
    assert "needs Python 3.11 or newer" in outcome.stderr


def test_a_python_that_does_not_run_is_passed_over(checkout, tmp_path):
    shims = tmp_path / "bin"
    shims.mkdir()
    (shims / "python3").write_text("#!/bin/sh\necho 'no version is set' >&2\nexit 127\n")
    (shims / "python3.13").symlink_to(sys.executable)
    (shims / "python3").chmod(0o755)
    outcome = launch(checkout, "profile", "x", PATH=f"{shims}:{os.environ['PATH']}", PYTHON="/no/such/python")
    assert outcome.returncode == 7, outcome.stderr
    assert "PYTHON=/no/such/python is no working Python" in outcome.stderr
