"""The arrows between the rooms, read off the import statements: kernels -> roofline <- profiler; scripts see all."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_SEE = {
    "roofline": {"roofline"},
    "kernels": {"kernels", "roofline"},
    "profiler": {"profiler", "roofline"},
    "scripts": {"scripts", "kernels", "profiler", "roofline"},
}


def imports(source: str, room: str) -> tuple[set[str], set[str]]:
    """The rooms and the other top-level packages that a file of `room` imports, also inside functions."""
    rooms, packages = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            dotted = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ["seqroof", room][: 3 - node.level]
            dotted = [".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names]
        else:
            continue
        for name in dotted:
            first, *rest = name.split(".")
            rooms.update(rest[:1] if first == "seqroof" else [])
            packages.update([first] if first != "seqroof" else [])
    return rooms, packages


def files(room: str) -> list[Path]:
    """The Python files of a room."""
    return sorted((ROOT / room).glob("*.py"))


def test_the_reader_of_imports_sees_every_form():
    inside = "def f():\n    from ..kernels import _torch"
    source = f"import torch.nn\n{inside}\nfrom seqroof.profiler.clock import Clock\nfrom . import work"
    assert imports(source, "roofline") == ({"kernels", "profiler", "roofline"}, {"torch"})


@pytest.mark.parametrize("room", MAY_SEE)
def test_a_room_imports_only_what_it_may_see(room):
    for path in files(room):
        rooms, _ = imports(path.read_text(), room)
        assert rooms <= MAY_SEE[room], f"{path.relative_to(ROOT)} may import {MAY_SEE[room]} and imports {rooms}"


def test_roofline_imports_neither_torch_nor_triton():
    for path in files("roofline"):
        _, packages = imports(path.read_text(), "roofline")
        assert not packages & {"torch", "triton"}, f"{path.name} imports {packages & {'torch', 'triton'}}"


def test_the_set_up_needs_only_the_standard_library():
    for name in ("environment.py", "install.py", "pip_calls.py", "wheels.py"):
        rooms, packages = imports((ROOT / "scripts" / name).read_text(), "scripts")
        assert rooms <= {"scripts"}, name
        assert packages - {"scripts"} <= sys.stdlib_module_names, name


def test_no_script_is_named_like_a_standard_module():
    names = {path.stem for path in files("scripts")}
    assert not names & sys.stdlib_module_names


@pytest.mark.parametrize("room", MAY_SEE)
def test_rooms_are_flat(room):
    # An editable install sees a sub-folder of a room, the wheel leaves it out without a word.
    nested = [path for path in (ROOT / room).glob("*/**/*.py") if "__pycache__" not in path.parts]
    assert nested == []


def test_kernels_has_no_init():
    # With one, the folder would hide the package `kernels` on PyPI from everybody who starts Python in the repository.
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert all((ROOT / room / "__init__.py").exists() for room in ("profiler", "roofline", "scripts"))
