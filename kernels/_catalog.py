"""Finds kernel files and checks them against the contract.

A kernel is a Python file in this folder whose name does not begin with an underscore, or any file that a user names.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ..roofline.contract import CompileCase, Implementation, whole_number

FOLDER = Path(__file__).parent
SUITES = ("quick", "standard", "full")

_MEANING = {
    "Shape": "a frozen dataclass of integer sizes and options",
    "inputs": "a function inputs(shape, dtype, device, seed) that returns a dict of tensors; dtype is one of the "
    "strings fp32, tf32, fp16 and bf16",
    "work": "a function work(shape, dtype, direction) that returns a seqroof.roofline.Work",
    "IMPLEMENTATIONS": "a dict from name to seqroof.roofline.Implementation with at least one entry",
    "SHAPES": "a dict from 'quick', 'standard' and 'full' to lists of Shape",
    "reference": "a function reference(shape, **inputs) in plain PyTorch that is right in float64",
}
_REQUIRED_OF_USERS = ("Shape", "inputs", "work", "IMPLEMENTATIONS")


class ContractError(Exception):
    """A kernel file that is missing, cannot be imported or does not keep the contract. The text is for people."""


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A loaded kernel file. `source` is what the user typed to get it: a name, or a path ending in .py."""

    name: str
    source: str
    module: ModuleType

    @property
    def shape_class(self) -> Any:
        """The `Shape` dataclass."""
        return self.module.Shape

    @property
    def implementations(self) -> dict[str, Implementation]:
        """All implementations by name, `reference` first where the file has one."""
        return self.module.IMPLEMENTATIONS

    @property
    def reference(self) -> Any:
        """The reference function, or None in a user's file without one."""
        return getattr(self.module, "reference", None)

    @property
    def compile_cases(self) -> tuple[CompileCase, ...]:
        """The Triton configurations that this file launches."""
        return tuple(getattr(self.module, "COMPILE", ()))

    @property
    def equation(self) -> str:
        """The first line of the docstring."""
        return (self.module.__doc__ or "").strip().splitlines()[0] if self.module.__doc__ else ""

    def sizes(self) -> dict[str, int | None]:
        """Size names with their defaults; None marks a size that must be given. Raises `ValueError` with a sentence."""
        return {
            field.name: None if field.default is dataclasses.MISSING else whole_number(field.name, field.default)
            for field in dataclasses.fields(self.shape_class)
        }

    def suite(self, suite: str) -> list[Any]:
        """The shapes of a named suite, empty where the file has none; `odd` are small ones around tile edges."""
        if suite == "odd" and hasattr(self.module, "ODD"):
            return list(self.module.ODD)
        return list(getattr(self.module, "SHAPES", {}).get("quick" if suite == "odd" else suite, []))

    def shape(self, **sizes: int) -> Any:
        """Build a shape; raises `ContractError` with a sentence on unknown, missing or impossible sizes."""
        known = self.sizes()
        listed = ", ".join(known)
        unknown = [name for name in sizes if name not in known]
        if unknown:
            raise ContractError(f"{self.name} has no size {', '.join(unknown)}; its sizes are {listed}.")
        missing = [name for name, default in known.items() if default is None and name not in sizes]
        if missing:
            raise ContractError(f"{self.name} also needs {', '.join(missing)}; its sizes are {listed}.")
        try:
            return self.shape_class(**sizes)
        except (ValueError, TypeError) as error:
            raise ContractError(f"{self.name} refuses these sizes: {error}") from error


def kernel_names() -> list[str]:
    """Names of all kernels in this folder, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))


def compile_cases_loaded() -> list[CompileCase]:
    """The Triton configurations of all kernel files loaded so far: of a kernel, and of those that it is built from."""
    modules = [module for name, module in sys.modules.items() if name.startswith(("seqroof.kernels.", "seqroof_user_"))]
    return [case for module in modules for case in getattr(module, "COMPILE", ())]


def load(source: str) -> Kernel:
    """Load a kernel by name, or a user's file by a path that ends in .py.

    Raises `ContractError`, whose text says what is missing and how to write it.
    """
    if source.endswith(".py"):
        return _check(_load_file(Path(source)), source, own=False)
    names = kernel_names()
    if source not in names:
        raise ContractError(
            f"There is no kernel {source!r}. Kernels: {', '.join(names)}; or name a file ending in .py."
        )
    return _check(importlib.import_module(f"seqroof.kernels.{source}"), source, own=True)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ContractError(f"There is no file {path}.")
    name = f"seqroof_user_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise ContractError(f"{path} cannot be imported as Python.")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses and triton look their module up by name
    try:
        specification.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's file may raise anything, SystemExit included
        del sys.modules[name]
        raise ContractError(f"{path} raises {type(error).__name__} when imported: {error}") from error
    return module


def _check(module: ModuleType, source: str, own: bool) -> Kernel:
    required = tuple(_MEANING) if own else _REQUIRED_OF_USERS
    missing = [name for name in required if not hasattr(module, name)]
    if missing:
        lines = "; ".join(f"{name}: {_MEANING[name]}" for name in missing)
        raise ContractError(f"{source} lacks {', '.join(missing)}. Needed: {lines}.")
    if not dataclasses.is_dataclass(module.Shape):
        raise ContractError(f"{source}: Shape must be a frozen dataclass.")
    implementations = module.IMPLEMENTATIONS
    if not isinstance(implementations, dict) or not implementations:
        raise ContractError(f"{source}: IMPLEMENTATIONS must be {_MEANING['IMPLEMENTATIONS']}.")
    wrong = [name for name, entry in implementations.items() if not isinstance(entry, Implementation)]
    if wrong:
        raise ContractError(f"{source}: {', '.join(wrong)} in IMPLEMENTATIONS must be seqroof.roofline.Implementation.")
    kernel = Kernel(name=Path(source).stem, source=source, module=module)
    try:
        kernel.sizes()
    except ValueError as error:
        raise ContractError(f"{source}: {error}.") from error
    return kernel
