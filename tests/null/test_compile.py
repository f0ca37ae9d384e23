"""Every Triton configuration that is launched compiles for GPUs that are not here, without spills and with the
instructions it was written for, under the installed Triton and under the oldest one supported.

Run as a script, this file is the child process that compiles: it prints one JSON line per case. A child is needed
because an interpreted kernel cannot be compiled and because two versions of Triton cannot share a process.
"""

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from seqroof.kernels import _catalog, _triton
from seqroof.kernels._torch import DTYPES
from seqroof.profiler.compiled import Compiled, compile_case, gates
from seqroof.roofline.contract import CompileCase
from seqroof.roofline.inspection import Instruction

# A folder with an older Triton to put on PYTHONPATH, made by scripts/test.
OLD_TRITON = os.environ.get("SEQROOF_TRITON_OLD")
ORDINARY_TARGET = 90

needs_triton = pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")


def _wanted(everything: bool) -> Iterator[tuple[str, CompileCase, int]]:
    for name in _catalog.kernel_names():
        for case in _catalog.load(name).compile_cases:
            for target in case.targets:
                if everything or case.representative or (target == ORDINARY_TARGET and not case.rare):
                    yield name, case, target


def _name(kernel: str, case: CompileCase, target: int) -> str:
    return f"{kernel} {case.label} sm_{target}"


def _failures(name: str) -> dict:
    _, case, target = next(wanted for wanted in _wanted(everything=True) if _name(*wanted) == name)
    try:
        failures = gates(case, compile_case(case, target), target)
    except (ValueError, RuntimeError) as error:
        failures = [str(error)]
    return {"case": name, "failures": failures}


def _compile_all(everything: bool) -> None:
    print(json.dumps({"triton": _triton.triton.__version__}), flush=True)
    names = [_name(*wanted) for wanted in _wanted(everything)]
    # A kernel cannot be sent to another process, its name can. Each holds a PyTorch of its own, so only a few; they are
    # spawned because a fork of a process with PyTorch's threads may hang.
    with ProcessPoolExecutor(min(4, os.cpu_count() or 1), get_context("spawn")) as pool:
        for result in pool.map(_failures, names, chunksize=4):
            print(json.dumps(result))


def _run_child(long: bool, extra_path: str | None) -> tuple[str, dict[str, list[str]]]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if extra_path:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (extra_path, environment.get("PYTHONPATH"))))
    command = [sys.executable, __file__, *(["--long"] if long else [])]
    child = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert child.returncode == 0, child.stderr[-2000:]
    first, *rest = map(json.loads, child.stdout.splitlines())
    return first["triton"], {line["case"]: line["failures"] for line in rest}


@pytest.fixture(scope="module")
def compiled(request: pytest.FixtureRequest) -> dict[str, list[str]]:
    return _run_child(request.config.getoption("--long"), None)[1]


@pytest.fixture(scope="module")
def compiled_by_old(request: pytest.FixtureRequest) -> dict[str, list[str]]:
    if not OLD_TRITON:
        pytest.skip("no older Triton here: SEQROOF_TRITON_OLD names no folder (scripts/test makes one)")
    version, results = _run_child(request.config.getoption("--long"), OLD_TRITON)
    assert version != _triton.triton.__version__, f"{OLD_TRITON} holds the Triton that is installed anyway"
    return results


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case_name" in metafunc.fixturenames:
        names = [_name(*wanted) for wanted in _wanted(metafunc.config.getoption("--long"))] if _triton.AVAILABLE else []
        metafunc.parametrize("case_name", names)


@needs_triton
def test_compiles(case_name: str, compiled: dict[str, list[str]]) -> None:
    assert compiled[case_name] == []


@needs_triton
def test_compiles_with_the_oldest_triton(case_name: str, compiled_by_old: dict[str, list[str]]) -> None:
    if case_name not in compiled_by_old:
        pytest.skip("the oldest triton is not given this configuration")
    assert compiled_by_old[case_name] == []


@needs_triton
def test_the_oldest_triton_is_given_all_but_what_it_is_refused(
    compiled: dict[str, list[str]], compiled_by_old: dict[str, list[str]]
) -> None:
    """What an older triton is not launched with is written here once more, so that nothing else goes missing."""
    lacking = set(compiled) - set(compiled_by_old)
    assert {name for name in lacking if not re.match(r"attention .* fp32 P=256 ", name)} == set()
    assert set(compiled_by_old) <= set(compiled)


@needs_triton
def test_no_two_cases_share_a_name() -> None:
    names = [_name(*wanted) for wanted in _wanted(everything=True)]
    assert len(set(names)) == len(names)


def _dtype(case: CompileCase) -> str:
    (found,) = set(case.label.split()) & set(DTYPES)
    return found


@needs_triton
def test_every_kernel_with_a_triton_row_lists_what_it_launches() -> None:
    """Of every dtype one of its Triton functions is compiled for all targets in each run, maybe in another file."""
    reached: dict[tuple[int, str], set[int]] = {}
    for _, case, target in _wanted(everything=False):
        if case.representative:
            reached.setdefault((id(case.kernel), _dtype(case)), set()).add(target)
    for name in _catalog.kernel_names():
        kernel = _catalog.load(name)
        if any(row.startswith("triton") for row in kernel.implementations):
            assert kernel.compile_cases, name
            for dtype in {_dtype(case) for case in kernel.compile_cases}:
                functions = {id(case.kernel) for case in kernel.compile_cases if _dtype(case) == dtype}
                assert any({80, 90, 100} <= reached.get((one, dtype), set()) for one in functions), (name, dtype)


@needs_triton
@pytest.mark.skipif(_triton.older_than(3, 9), reason="an older triton is given fewer configurations")
def test_the_readme_says_how_many_configurations_are_compiled() -> None:
    def count(everything: bool, *targets: int) -> int:
        return len({(id(case.kernel), case.label) for _, case, target in _wanted(everything) if target in targets})

    counts = [count(True, 80, 90, 100), *(count(False, target) for target in (90, 80, 100))]
    readme = " ".join((Path(__file__).resolve().parents[2] / "README.md").read_text().split())
    form = r"Of the (\d+) configurations .* compiles (\d+) for sm_90, (\d+) for sm_80 and (\d+) for sm_100"
    said = re.search(form, readme)
    assert said and [int(number) for number in said.groups()] == counts, f"the README is to say {counts}"


HGMMA, HMMA = Instruction("HGMMA", "tensor", 8, 8), Instruction("HMMA", "tensor", 8, 8)
WIDE = Instruction("LDG.128", "load", 1, 0, bits=128)


def _good() -> tuple[CompileCase, Compiled]:
    case = CompileCase("made up", kernel=None, signature={}, expects=("tensor", "wide"))
    result = Compiled(
        label=case.label,
        capability=90,
        function="made_up",
        triton="3.9.0",
        registers=128,
        stack_bytes=0,
        shared_bytes=232448,
        tensor_columns=0,
        cubin_bytes=1,
        warps=4,
        dot_rows=64,
        program=(HGMMA, WIDE),
        time_s=0.5,
    )
    return case, result


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"stack_bytes": 8}, "spills"),
        ({"registers": 256}, "at most 255"),
        ({"registers": 255, "warps": 16}, "together more than 65536"),
        ({"shared_bytes": 232449}, "shared memory"),
        ({"program": (WIDE,)}, "no tensor-core instruction"),
        ({"program": (HMMA, WIDE)}, "HGMMA"),
        ({"program": (HGMMA, dataclasses.replace(WIDE, bits=64))}, "128-bit"),
    ],
)
def test_each_gate_closes(change: dict, word: str) -> None:
    case, result = _good()
    assert gates(case, result, 90) == []
    failures = gates(case, dataclasses.replace(result, **change), 90)
    assert failures and word in failures[0]


def _loop(bits: int, times: int) -> Instruction:
    return Instruction(f"LDG.{bits}", "load", times, times, bits=bits)


BULK = Instruction("UTMALDG", "load", 1, 1)


@pytest.mark.parametrize(
    ("expected", "program", "word"),
    [
        ("warp group", (HMMA,), "HMMA instead of"),
        ("warp group", (HGMMA, HMMA), "HMMA instead of"),
        ("warp group", (), "no product instead of"),
        ("wide loops", (_loop(128, 4), _loop(16, 22)), "41% of what loops load"),
        ("wide loops", (WIDE, _loop(32, 1)), "100% of what loops load"),
        ("wide loops", (_loop(64, 4),), "no 128-bit load"),
    ],
)
def test_one_good_instruction_does_not_excuse_the_others(expected: str, program: tuple, word: str) -> None:
    case, result = _good()
    case, result = dataclasses.replace(case, expects=(expected,)), dataclasses.replace(result, dot_rows=32)
    (failure,) = gates(case, dataclasses.replace(result, program=program), 90)
    assert word in failure


@pytest.mark.parametrize(
    ("expected", "program", "target"),
    [
        ("warp group", (HGMMA,), 90),
        ("warp group", (HMMA,), 100),
        ("wide loops", (_loop(128, 4), _loop(16, 21)), 90),
        ("wide loops", (_loop(128, 4), Instruction("LDG.16", "load", 100, 0, bits=16)), 90),
        ("wide loops", (WIDE, Instruction("LDG.32", "load", 1, 0, bits=32)), 90),
        ("wide loops", (BULK,), 90),
    ],
)
def test_what_is_expected_passes(expected: str, program: tuple, target: int) -> None:
    case, result = _good()
    result = dataclasses.replace(result, program=program, shared_bytes=0)
    assert gates(dataclasses.replace(case, expects=(expected,)), result, target) == []


def test_an_expectation_that_nobody_looks_for_is_refused() -> None:
    with pytest.raises(ValueError, match="made up: expects names warp groups; known are tensor, warp group, wide"):
        CompileCase("made up", kernel=None, signature={}, expects=("warp groups",))


def test_limits_belong_to_the_target() -> None:
    case, result = _good()
    assert "sm_80 has 166912" in gates(case, dataclasses.replace(result, program=(HMMA, WIDE)), 80)[0]
    with pytest.raises(ValueError, match="70 are not known"):
        gates(case, result, 70)


@needs_triton
@pytest.mark.skipif(_triton.interpreted(), reason="TRITON_INTERPRET=1: an interpreted kernel cannot be compiled")
@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"options": {"num_wraps": 4}}, "options names num_wraps"),
        ({"divisible": ("nothing",)}, "divisible names nothing"),
        ({"signature": {}}, "signature lacks x"),
    ],
)
def test_wrong_names_are_refused(change: dict, word: str) -> None:
    case = _catalog.load("lstm_step").compile_cases[0]
    with pytest.raises(ValueError, match=word):
        compile_case(dataclasses.replace(case, **change), 90)


@needs_triton
@pytest.mark.skipif(_triton.interpreted(), reason="TRITON_INTERPRET=1: an interpreted kernel cannot be compiled")
def test_without_the_divisibility_hint_the_wide_gate_fails() -> None:
    case = next(case for case in _catalog.load("lstm_step").compile_cases if case.representative)
    blind = dataclasses.replace(case, divisible=())
    result = compile_case(blind, 90)
    assert any("128-bit" in failure for failure in gates(blind, result, 90))
    assert result.wide == {} and {entry.bits for entry in result.program if entry.group == "load"} == {16}


@needs_triton
@pytest.mark.skipif(_triton.interpreted(), reason="TRITON_INTERPRET=1: an interpreted kernel cannot be compiled")
def test_one_operand_of_unknown_alignment_fails_the_gate_of_loops() -> None:
    """The inputs of a convolution, loaded element by element, beside weights that come by 128 bits."""
    cases = _catalog.load("transposed_conv").compile_cases
    case = next(case for case in cases if case.label.startswith("bf16 phases, ") and case.representative)
    half_blind = dataclasses.replace(case, divisible=tuple(name for name in case.divisible if name != "x_step"))
    result = compile_case(half_blind, 90)
    assert result.wide
    assert any("of what loops load" in failure for failure in gates(half_blind, result, 90))


if __name__ == "__main__":
    _compile_all("--long" in sys.argv)
