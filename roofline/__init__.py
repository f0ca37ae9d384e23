"""What the numbers mean: work, machines, floors, verdicts, tables and charts. Imports neither torch nor triton."""

from .contract import CompileCase, Implementation, PartCall
from .work import Term, Work

__all__ = ["CompileCase", "Implementation", "PartCall", "Term", "Work"]
