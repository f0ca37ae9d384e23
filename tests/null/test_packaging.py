"""What is built holds every file of the rooms, runs in an empty environment, and hides nobody else's packages."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from isolated import closure, offline, python_with, run

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("kernels", "profiler", "roofline", "scripts")
BASE = ("pydantic", "rich", "typer")
DATA = {".py", ".json", ".toml", ".j2", ".js", ".css", ".LICENSE", ".typed"}


def room_files() -> set[str]:
    """What a wheel has to hold: the Python and data files of the rooms, as paths in the wheel."""
    paths = [path for room in ROOMS for path in (ROOT / room).iterdir()]
    return {f"seqroof/{path.parent.name}/{path.name}" for path in paths if path.is_file() and path.suffix in DATA}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist and the wheel that is built from it."""
    try:
        tools = closure(("build", "setuptools", "wheel"))
    except PackageNotFoundError as absent:
        pytest.skip(f"{absent.name} is not installed")
    copy = tmp_path_factory.mktemp("copy")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for room in ROOMS:
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    python = python_with(copy / "builder", tools)
    outcome = run(python, "-P", "-m", "build", "--no-isolation", "--outdir", copy / "dist", copy, env=offline())
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    return copy / "dist"


def test_the_wheel_holds_every_file_of_the_rooms(built):
    names = set(zipfile.ZipFile(next(built.glob("*.whl"))).namelist())
    assert {name for name in names if ".dist-info/" not in name} == room_files()
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_holds_what_the_wheel_needs(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {name.removeprefix("seqroof/") for name in room_files()} | {"LICENSE", "README.md"} <= names


def test_the_wheel_runs_with_the_base_packages_alone(built, tmp_path):
    pytest.importorskip("pip")
    python = python_with(tmp_path / "empty", closure((*BASE, "pip")))
    wheel = next(built.glob("*.whl"))
    installed = run(python, "-m", "pip", "install", "--no-deps", wheel, env=offline(), cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr
    checked = run(python, "-m", "pip", "check", env=offline(), cwd=tmp_path)
    assert "seqroof" not in checked.stdout, checked.stdout
    command = Path(python).parent / "seqroof"
    version = run(command, "--version", env=offline(), cwd=tmp_path)
    assert version.stdout.strip() == f"seqroof {wheel.name.split('-')[1]}", version.stderr
    assert "profile" in run(command, "--help", env=offline(), cwd=tmp_path).stdout


@pytest.mark.parametrize("folder", [ROOT, ROOT.parent], ids=["in the repository", "elsewhere"])
def test_the_package_named_kernels_stays_importable(folder, tmp_path):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("def get_kernel(): return 'theirs'\n")
    both = "import kernels, seqroof.kernels; print(kernels.get_kernel(), *seqroof.kernels.__path__)"
    python = python_with(tmp_path / "venv", [])
    (tmp_path / "overlay").mkdir()
    (tmp_path / "overlay" / "seqroof").symlink_to(ROOT)
    paths = f"{tmp_path}:{tmp_path / 'overlay'}"
    answer = run(python, "-c", both, env=offline(PYTHONPATH=paths), cwd=folder)
    assert answer.stdout.startswith("theirs") and "kernels" in answer.stdout, answer.stderr
