"""`seqroof inspect`: what would be launched is found without a GPU, compiled, and told as the assembler tells it."""

import inspect
import itertools
import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from commands import seqroof
from user_kernels import GOOD, kernel_file

from seqroof.kernels import _catalog, _triton
from seqroof.profiler.compiled import build, compile_case
from seqroof.roofline.occupancy import TARGETS

pytestmark = [
    pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here"),
    pytest.mark.skipif(_triton.interpreted(), reason="TRITON_INTERPRET=1: an interpreted kernel cannot be compiled"),
]

ROOT = Path(__file__).resolve().parents[2]
MULTIPROCESSORS = {80: 108, 90: 132, 100: 148}
DTYPES = ("bf16", "fp32", "fp16", "tf32")
# Of these test_recurrent_plan looks up every launch.
PLANNED = {"encoder_decoder", "gru", "lstm", "rnn"}
TRITON_ROWS = [
    (name, row)
    for name in _catalog.kernel_names()
    for row in _catalog.load(name).implementations
    if row.startswith("triton")
]

# A product of 64 x 64 numbers without tensor cores, which do not fit into the registers of four warps.
SPILLS = """
import triton
import triton.language as tl

@triton.jit
def product(x, y, N: tl.constexpr):
    place = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    a = tl.load(x + place)
    tl.store(y + place, tl.dot(a, a, input_precision="ieee"))

def launch(shape, x):
    {fault}
    y = torch.empty_like(x)
    product[(shape.B, 2)](x, y, N=64, num_warps=4)
    return (y,)

IMPLEMENTATIONS["triton"] = Implementation(launch)
"""


def would_launch(name, row, shape, dtype="bf16", direction="forward", capability=90):
    from seqroof.profiler import launches

    kernel, target = _catalog.load(name), TARGETS[capability]
    with launches.pretended(target, MULTIPROCESSORS[capability]) as device:
        run = kernel.implementations[row].run
        return launches.would_launch(kernel.module, run, shape, dtype, direction, target, device)


def user_file(folder, fault="pass"):
    return kernel_file(folder, "mine", fault, GOOD.replace("{fault}", "pass") + SPILLS)


def document(folder, *arguments):
    done = seqroof("inspect", *arguments, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def spread(name, capability):
    """The first shape in bf16, then all small ones in one dtype each, another one for every target."""
    kernel = _catalog.load(name)
    yield kernel.suite("quick")[0], "bf16"
    if name not in PLANNED:
        turns = itertools.islice(itertools.cycle(DTYPES), list(MULTIPROCESSORS).index(capability), None)
        yield from zip(kernel.suite("odd"), turns)


@pytest.mark.parametrize("capability", MULTIPROCESSORS)
@pytest.mark.parametrize(("name", "row"), TRITON_ROWS)
def test_all_that_is_launched_is_in_the_list_of_what_is_compiled(name, row, capability):
    """Function, types, compile-time values, alignment, options and target: all that `CompileCase` says of a launch."""
    from seqroof.profiler.launches import same_configuration

    implementation = _catalog.load(name).implementations[row]
    known = [case for case in _catalog.compile_cases_loaded() if capability in case.targets]
    taken = [each for each in spread(name, capability) if not implementation.supports(*each, "cuda")]
    if not taken:
        pytest.skip("the row takes none of these shapes")
    missing = []
    for (shape, dtype), direction in itertools.product(taken, ("forward", "both")[: 1 + implementation.grad]):
        found = would_launch(name, row, shape, dtype, direction, capability)
        assert found and all(launch.programs > 0 and launch.count > 0 for launch in found)
        missing += [
            (shape, dtype, launch.case)
            for launch in found
            if not any(same_configuration(launch.case, case) for case in known)
        ]
    assert missing == []


def test_grid_and_number_of_launches_are_those_of_the_shape():
    step = _catalog.load("lstm_step").shape(B=64, I=512, H=512)
    (launch,) = would_launch("lstm_step", "triton", step)
    assert launch.grid == (2, 64, 1) and launch.count == 1 and launch.case.constexprs["BATCH"] == 32
    (odd,) = would_launch("lstm_step", "triton", _catalog.load("lstm_step").shape(B=3, I=37, H=130))
    assert odd.case.divisible == () and launch.case.divisible != ()
    stack = _catalog.load("lstm").shape(B=16, T=20, I=64, H=256)
    assert [launch.count for launch in would_launch("lstm", "triton_step", stack)] == [20]
    assert [launch.count for launch in would_launch("lstm", "triton_resident", stack, direction="both")] == [1, 1]
    assert len(would_launch("lstm", "triton_resident", stack, direction="backward")) == 1


def test_the_target_decides_what_is_launched_and_leaves_no_trace():
    """A launch that keeps its weights takes narrow batches on sm_80, whose programs may have less shared memory."""
    before = torch.cuda.is_available, torch.cuda.get_device_properties, torch.backends.cuda.matmul.allow_tf32
    stack = _catalog.load("lstm").shape(B=512, T=4, I=64, H=512)
    batches = {
        capability: would_launch("lstm", "triton_resident", stack, capability=capability)[0].case.constexprs["BATCH"]
        for capability in (90, 80, 90, 100)
    }
    assert batches == {80: 16, 90: 32, 100: 32}
    after = torch.cuda.is_available, torch.cuda.get_device_properties, torch.backends.cuda.matmul.allow_tf32
    assert after == before


@pytest.mark.parametrize(("dtype", "precision"), [("tf32", "tf32"), ("fp32", "ieee")])
def test_the_switch_of_tf32_is_set_as_the_dtype_asks(dtype, precision):
    (launch,) = would_launch("lstm_step", "triton", _catalog.load("lstm_step").shape(B=1, I=64, H=64), dtype)
    assert launch.case.constexprs["PRECISION"] == precision


def ptxas(folder, case, capability):
    """Registers, stack, and spilled bytes as `ptxas -v` tells them of the PTX that Triton emits for a case."""
    from triton.backends.nvidia import compiler

    (folder / "kernel.ptx").write_text(build(case, capability).asm["ptx"])
    command = [compiler.get_ptxas(capability).path, "-v", f"--gpu-name=sm_{capability}a"]
    # The one option of Triton's own call that changes registers; older versions do not give it.
    command += ["--regAllocOptLevel=2"] if "--regAllocOptLevel=2" in inspect.getsource(compiler) else []
    done = subprocess.run([*command, "kernel.ptx", "-o", "o"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = done.stderr + done.stdout
    registers, stack, spilled = (
        int(re.findall(pattern, told)[-1])
        for pattern in (r"Used (\d+) registers", r"(\d+) bytes stack frame", r"(\d+) bytes spill stores")
    )
    return registers, stack, spilled


@pytest.mark.parametrize("capability", [90, 100])
def test_registers_and_stack_are_those_that_the_assembler_tells(tmp_path, capability):
    shape = _catalog.load("lstm_step").shape(B=64, I=512, H=512)
    (launch,) = would_launch("lstm_step", "triton", shape, capability=capability)
    found = compile_case(launch.case, capability)
    assert (found.registers, found.stack_bytes, 0) == ptxas(tmp_path, launch.case, capability)
    assert not [entry for entry in found.program if entry.group == "local"]


def test_a_kernel_that_spills_is_told_to(tmp_path):
    mine = user_file(tmp_path)
    kernel = _catalog.load(str(mine))
    (launch,) = would_launch(str(mine), "triton", kernel.shape(B=3), "fp32")
    _, stack, spilled = ptxas(tmp_path, launch.case, 90)
    (program,) = document(tmp_path, "mine.py", "--dtype", "fp32")["programs"]
    assert program["spills"] and program["stack_bytes"] == stack > 0 < spilled
    assert program["launch"]["grid"] == [3, 2, 1]
    local = [entry["name"].split(".")[0] for entry in program["instructions"] if entry["group"] == "local"]
    assert set(local) == {"LDL", "STL"}
    text = seqroof("inspect", "mine.py", "--dtype", "fp32", cwd=tmp_path).stdout
    assert f"SPILLS {stack} B per thread" in text and "spills" in text.splitlines()[-1] + text.splitlines()[-2]


def test_two_targets_stand_side_by_side(tmp_path):
    made = document(tmp_path, "lstm_step", "--target", "sm_90,sm_100", "--shape", "B=64,I=2048,H=2048")
    assert [program["target"] for program in made["programs"]] == ["sm_90", "sm_100"]
    kinds = [[i["kind"] for i in program["instructions"] if i["group"] == "tensor"] for program in made["programs"]]
    assert kinds == [["wgmma"], ["tcgen05"]]
    assert [model["machine"]["id"] for model in made["models"]] == ["h200-sxm", "b200-sxm"]
    assert all(model["floors_s"]["dram"] > 0 and model["bound"] for model in made["models"])
    assert made["remark"].endswith(".") and made["refused"] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["lstn_step"], "lstm_step"),
        (["lstm_step", "--target", "sm_70"], "sm_100"),
        (["lstm_step", "--shape", "B=0,I=4,H=4"], "B"),
        (["lstm_step", "--implementation", "cuda"], "it has reference"),
        (["lstm_step", "--implementation", "torch"], "launches no Triton kernel"),
        (["lstm_step", "--direction", "backward"], "no gradients"),
        (["lstm", "--implementation", "triton_resident", "--shape", "B=1,T=2,I=8,H=4096"], "do not fit on 132"),
        (["lstm_step", "--all", "--filter", "nothing like it"], "labels are such as"),
        (["lstm_step", "--all", "--shape", "B=1,I=4,H=4"], "leave the others out"),
        (["plain.py"], "begins with triton"),
        (["values.py"], "without a GPU: the launcher ends with RuntimeError"),
    ],
)
def test_wrong_input_gets_a_sentence(tmp_path, arguments, says):
    kernel_file(tmp_path, "plain")
    (tmp_path / "values.py").write_text(user_file(tmp_path, "x.sum().item()").read_text())
    done = seqroof("inspect", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr and done.stdout == "", done.stderr


def test_interpreted_kernels_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    done = seqroof("inspect", "lstm_step", cwd=tmp_path)
    assert done.returncode == 4 and "unset it" in done.stderr


@pytest.mark.parametrize("width", [80, 120])
def test_tables_keep_to_the_width_and_need_no_colour(tmp_path, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    cases = ["--shape", "B=1|64,I=512,H=512", "--target", "sm_90,sm_100"]
    done = seqroof("inspect", "lstm_step", *cases, cwd=tmp_path)
    assert done.returncode == 0 and max(map(len, done.stdout.splitlines())) <= width and "\x1b" not in done.stdout
    for name in ("registers", "programs/SM", "products", "launch", "DRAM", "best possible", "sm_100 B=64", "<- bound"):
        assert name in done.stdout


def test_every_listed_configuration_can_be_asked_for(tmp_path):
    made = document(tmp_path, "lstm_step", "--all", "--dtype", "bf16", "--filter", "bf16 16 units", "--target", "sm_90")
    labels = [program["label"] for program in made["programs"]]
    assert labels == [f"bf16 16 units x {batch} aligned" for batch in (16, 32, 64, 128)]
    assert all(program["launch"] is None for program in made["programs"])


def test_the_example_of_the_documentation_is_what_the_command_prints(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    page = (ROOT / "docs" / "inspect.md").read_text()
    command, shown = re.search(r"^```\n\$ seqroof ([^\n]*)\n(.*?)^```", page, re.DOTALL | re.MULTILINE).groups()  # type: ignore[union-attr]
    done = seqroof(*command.split(), cwd=tmp_path)
    printed = "\n".join(line.rstrip() for line in done.stdout.splitlines())
    version = re.search(r"Triton ([0-9.]+);", shown)[1]  # type: ignore[index]
    if f"Triton {version};" not in printed:
        pytest.skip(f"the example was compiled by Triton {version}; another compiler gives other numbers")
    assert shown.strip() == printed.strip()
