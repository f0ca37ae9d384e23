"""The set-up of the GPU suite on a machine like its own: no package index, and some packages of ours missing."""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from isolated import closure, offline, python_with, run, wheel_of

from seqroof.scripts.environment import has_nvidia_gpu
from seqroof.scripts.gpu_pieces import PIECES

ROOT = Path(__file__).resolve().parents[2]
# What the machine with the GPU has of ours and of our needs' needs; it has no pydantic and no package index.
THERE = ("torch", "triton", "typer", "rich", "numpy", "nvidia-ml-py", "jinja2", "hypothesis", "pytest", "setuptools")
CARRIED = ("annotated-types", "pydantic", "pydantic-core", "typing-inspection")  # brought in wheels/


@pytest.fixture(scope="module")
def gpu_machine(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A checkout with `wheels/`, and the variables that choose a Python with exactly the GPU machine's packages."""
    pytest.importorskip("pip", reason="pip is not installed")
    try:
        packages = closure((*THERE, "pip"))
        carried = [distribution(name) for name in CARRIED]
    except PackageNotFoundError as absent:
        pytest.skip(f"{absent.name} is not installed")
    # Newer releases of what that machine has (typer) do need pydantic; its own do not.
    packages = [package for package in packages if package.name not in {one.name for one in carried}]
    root = tmp_path_factory.mktemp("gpu") / "checkout"
    for room in ("kernels", "profiler", "roofline", "scripts"):
        shutil.copytree(ROOT / room, root / room, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "constraints.txt", root / "tests")
    shutil.copy(ROOT / "pyproject.toml", root)
    for package in carried:
        wheel_of(package, root / "wheels")
    interpreter = python_with(root.parent / "python", packages)
    return root, offline(PYTHON=interpreter, NO_COLOR="1", COLUMNS="100")


@pytest.mark.skipif(has_nvidia_gpu(), reason="on a machine with a GPU this would run the whole suite")
def test_the_suite_lists_what_waits_where_there_is_no_gpu(gpu_machine):
    root, variables = gpu_machine
    outcome = run(root / "scripts" / "gpu_suite", env=variables, cwd=root)
    assert outcome.returncode == 0, outcome.stderr
    assert [line.split()[:2] for line in outcome.stdout.splitlines()[1:-2]] == [
        [piece.name, "waits"] for piece in PIECES
    ]
    assert "no NVIDIA GPU here" in outcome.stdout and "goes on with the rest" in outcome.stdout
    assert "vl-convert-python" in outcome.stderr.splitlines()[-1] and "not essential" in outcome.stderr
    assert not (root / "results").exists()


@pytest.mark.skipif(has_nvidia_gpu(), reason="on a machine with a GPU this would run the whole suite")
def test_only_what_is_missing_comes_from_the_wheels(gpu_machine):
    root, variables = gpu_machine
    run(root / "scripts" / "gpu_suite", "--list", env=variables, cwd=root)
    added = {path.name.split("-")[0] for path in (root / ".venv" / "packages").glob("*/*.dist-info")}
    assert {name.replace("_", "-") for name in added} == set(CARRIED)
    probe = "def main():\n    import pydantic, torch\n    print(pydantic.__file__, torch.__file__)\n"
    command = root / "scripts" / "main.py"
    whole = command.read_text()
    try:
        command.write_text(probe)
        found = run(root / ".venv" / "bin" / "seqroof", env=variables)
    finally:
        command.write_text(whole)
    pydantic_file, torch_file = found.stdout.split()
    assert pydantic_file.startswith(str(root / ".venv" / "packages"))
    assert torch_file.startswith(str(root.parent / "python"))


@pytest.mark.parametrize("words", [["--version"], ["list", "--json"]], ids=" ".join)
def test_the_command_runs_there(gpu_machine, words):
    root, variables = gpu_machine
    run(root / "scripts" / "gpu_suite", "--list", env=variables, cwd=root)
    outcome = run(root / ".venv" / "bin" / "seqroof", *words, env=variables, cwd=root.parent)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout
