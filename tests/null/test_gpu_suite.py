"""The GPU suite as far as it goes without a GPU: pieces, limits, records, and the set-up on a machine like its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from isolated import closure, offline, python_with, run, wheel_of

from seqroof.kernels import _catalog
from seqroof.profiler.claim_plan import claim_cases
from seqroof.profiler.plan import shapes_of
from seqroof.scripts import gpu_suite
from seqroof.scripts.environment import has_nvidia_gpu
from seqroof.scripts.gpu_pieces import PIECES, ROOFS, Piece
from seqroof.scripts.gpu_record import Facts, Outcome, finished, gpu_here, new_folder, recorded, write_manifest
from seqroof.scripts.gpu_suite import run_suite, seconds, table
from seqroof.scripts.sweep import parse_directions, parse_dtypes, parse_duration, parse_shape

ROOT = Path(__file__).resolve().parents[2]
FACTS = Facts(commit="abc", machine="gpu", gpu="uuid", date="2026-01-01")
CHANGED = replace(FACTS, commit="abc-changed")
FOREVER = float("inf")
# What the machine with the GPU has of ours and of our needs' needs; it has no pydantic and no package index.
THERE = ("torch", "triton", "typer", "rich", "numpy", "nvidia-ml-py", "jinja2", "hypothesis", "pytest", "setuptools")
CARRIED = ("annotated-types", "pydantic", "pydantic-core", "typing-inspection")  # brought in wheels/


def python(name: str, source: str, limit_s: float = 60) -> Piece:
    return Piece(name, "a test", limit_s, (sys.executable, "-c", source))


def gone(process: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet counts as ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_every_piece_leaves_a_status_and_a_log(tmp_path):
    pieces = (
        python("good", "print('said')"),
        python("bad", "import sys; sys.exit('went wrong')"),
        python("after", "import sys; print(sys.argv)"),
    )
    outcomes = run_suite(pieces, tmp_path, FACTS, FOREVER)
    assert [outcomes[piece.name].status for piece in pieces] == ["ok", "failed", "ok"]
    assert outcomes["bad"].exit_code == 1
    assert (tmp_path / "good.log").read_text() == "said\n"
    assert "went wrong" in (tmp_path / "bad.log").read_text()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["commit"] == "abc" and list(manifest["pieces"]) == ["good", "bad", "after"]
    assert manifest["pieces"]["bad"] | {"seconds": 0} == {
        "status": "failed",
        "seconds": 0,
        "exit_code": 1,
        "log": "bad.log",
    }


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the state of a process from /proc")
def test_a_piece_past_its_limit_takes_its_children_with_it(tmp_path):
    child = f"import subprocess as s; p = s.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(600)'])"
    hangs = python("hangs", f"{child}; print(p.pid, flush=True); p.wait()", limit_s=1.5)
    outcomes = run_suite((hangs, python("next", "pass")), tmp_path, FACTS, FOREVER)
    assert (outcomes["hangs"].status, outcomes["next"].status) == ("timed out", "ok")
    child_id = int((tmp_path / "hangs.log").read_text().split()[0])
    deadline = time.monotonic() + 20
    while not gone(child_id) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(child_id)


SUITE = """
import pathlib, sys
from seqroof.scripts import gpu_suite
from seqroof.scripts.gpu_pieces import Piece
gpu_suite.has_nvidia_gpu, gpu_suite.gpu_here = lambda: True, lambda: ("gpu", "uuid")
endless = "import time; print(__import__('os').getpid(), flush=True); time.sleep(600)"
gpu_suite.PIECES = (Piece("endless", "a test", 300, (sys.executable, "-c", endless), keeps="kept.json"),)
sys.exit(gpu_suite.main(["--commit", "abc", "--out", sys.argv[1]]))
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the state of a process from /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_suite_that_is_ended_takes_its_piece_with_it(tmp_path, number):
    suite = subprocess.Popen([sys.executable, "-c", SUITE, str(tmp_path)], stderr=subprocess.DEVNULL)
    said = tmp_path / "kept.json.part"
    deadline = time.monotonic() + 60
    while not (said.exists() and said.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.05)
    piece_id = int(said.read_text())
    suite.send_signal(number)
    suite.wait(60)
    while not gone(piece_id) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(piece_id)
    assert recorded(tmp_path, FACTS)["endless"].status == "interrupted"
    assert not (tmp_path / "kept.json").exists()


def test_a_piece_that_does_not_fit_the_budget_waits_and_a_shorter_one_runs(tmp_path):
    outcomes = run_suite((python("long", "pass", 600), python("short", "pass", 30)), tmp_path, FACTS, 60)
    assert (outcomes["long"].status, outcomes["short"].status) == ("waits", "ok")


def test_what_is_recorded_for_the_commit_and_the_gpu_is_finished(tmp_path):
    folder = tmp_path / "gpu-2026-01-01"
    run_suite((python("good", "pass"), python("bad", "1/0")), folder, FACTS, FOREVER)
    assert finished(folder, FACTS) == {"good"}
    assert finished(folder, replace(FACTS, commit="abd")) == set()
    assert finished(folder, replace(FACTS, gpu="another card of the same name")) == set()
    assert finished(tmp_path, FACTS) == set()


@pytest.mark.parametrize("facts", [CHANGED, replace(FACTS, commit="unknown"), replace(FACTS, gpu="")])
def test_what_cannot_be_told_apart_is_never_finished(tmp_path, facts):
    run_suite((python("good", "pass"),), tmp_path, facts, FOREVER)
    assert finished(tmp_path, facts) == set()


def test_a_later_run_keeps_what_an_earlier_one_recorded(tmp_path):
    run_suite((python("first", "pass"),), tmp_path, FACTS, FOREVER)
    run_suite((python("second", "pass"),), tmp_path, FACTS, FOREVER)
    assert finished(tmp_path, FACTS) == {"first", "second"}


def test_a_run_goes_on_in_its_folder_on_another_day_too(tmp_path):
    folder = new_folder(tmp_path, FACTS)
    assert folder.name == "gpu-2026-01-01"
    run_suite((python("good", "pass"),), folder, FACTS, FOREVER)
    assert new_folder(tmp_path, FACTS) == new_folder(tmp_path, replace(FACTS, date="2026-01-02")) == folder


@pytest.mark.parametrize("other", [replace(FACTS, commit="abd"), replace(FACTS, gpu="another card of the same name")])
def test_another_commit_or_gpu_on_the_same_day_gets_its_own_folder(tmp_path, other):
    run_suite((python("good", "pass"),), new_folder(tmp_path, FACTS), FACTS, FOREVER)
    assert new_folder(tmp_path, other).name == "gpu-2026-01-01-2"


def test_a_changed_tree_goes_on_on_the_same_day_only(tmp_path):
    run_suite((python("good", "pass"),), new_folder(tmp_path, CHANGED), CHANGED, FOREVER)
    assert new_folder(tmp_path, CHANGED).name == "gpu-2026-01-01"
    assert new_folder(tmp_path, replace(CHANGED, date="2026-01-02")).name == "gpu-2026-01-02"


def test_a_damaged_manifest_counts_as_nothing(tmp_path, capsys):
    (tmp_path / "manifest.json").write_text("{")
    assert finished(tmp_path, FACTS) == set()
    assert "damaged" in capsys.readouterr().err


def test_a_named_folder_of_another_gpu_is_refused(tmp_path, monkeypatch, capsys):
    run_suite((python("good", "pass"),), tmp_path, FACTS, FOREVER)
    monkeypatch.setattr(gpu_suite, "has_nvidia_gpu", lambda: True)
    monkeypatch.setattr(gpu_suite, "gpu_here", lambda: ("gpu", "another"))
    with pytest.raises(SystemExit) as end:
        gpu_suite.main(["--commit", "abc", "--out", str(tmp_path)])
    assert end.value.code == 2 and "another commit or GPU" in capsys.readouterr().err


def test_two_cards_of_one_name_are_told_apart(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = []
    for uuid in ("GPU-1", "GPU-2"):
        tool.write_text(f"#!/bin/sh\necho 'NVIDIA H200, {uuid}'\n")
        tool.chmod(0o755)
        found.append(gpu_here())
    assert [machine for machine, _ in found] == ["nvidia-h200"] * 2
    assert found[0][1] != found[1][1] and "GPU" not in found[0][1]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert gpu_here() == ("gpu", "")


def test_what_a_piece_prints_is_kept_apart_from_its_log_when_it_went_well(tmp_path):
    source = "import sys; print('{}'); print('said', file=sys.stderr); sys.exit(len(sys.argv) - 1)"
    good = Piece("good", "a test", 60, (sys.executable, "-c", source), keeps="good.json")
    bad = Piece("bad", "a test", 60, (sys.executable, "-c", source, "1"), keeps="bad.json")
    run_suite((good, bad), tmp_path, FACTS, FOREVER)
    assert (tmp_path / "good.json").read_text() == "{}\n"
    assert (tmp_path / "good.log").read_text() == (tmp_path / "bad.log").read_text() == "said\n"
    assert not (tmp_path / "bad.json").exists()


def test_a_piece_that_is_held_to_roofs_waits_for_them_and_takes_the_best(tmp_path, capsys):
    words = ("-c", "import sys; print(*sys.argv[1:])", "--roofs", "{roofs}", "last")
    shown = Piece("shown", "a test", 60, (sys.executable, *words))
    assert run_suite((shown,), tmp_path, FACTS, FOREVER)["shown"].status == "waits"
    assert "wait for roofs" in capsys.readouterr().err
    for name in reversed(ROOFS):
        (tmp_path / name).write_text("{}")
        run_suite((shown,), tmp_path, FACTS, FOREVER)
        assert (tmp_path / "shown.log").read_text() == f"--roofs {tmp_path}/{name} last\n"


def test_brief_roofs_stand_in_where_the_whole_ones_failed(tmp_path):
    whole = Piece("whole", "a test", 60, (sys.executable, "-c", "1/0"), keeps=ROOFS[0])
    brief = replace(python("brief", "print('{}')"), keeps=ROOFS[1], unless=ROOFS[0])
    held = Piece("held", "a test", 60, (sys.executable, "-c", "pass", "--roofs", "{roofs}"))
    outcomes = run_suite((whole, held, brief), tmp_path, FACTS, FOREVER)
    assert [outcomes[name].status for name in ("whole", "brief", "held")] == ["failed", "ok", "ok"]
    measured = replace(whole, command=(sys.executable, "-c", "print('{}')"))
    outcomes = run_suite((measured, brief), tmp_path / "other", FACTS, FOREVER)
    assert [outcomes[name].status for name in ("whole", "brief")] == ["ok", "skipped"]
    assert f"{ROOFS[0]} is there" in table((measured, brief), outcomes)


def test_what_was_never_tried_comes_before_what_failed(tmp_path):
    pieces = tuple(python(name, source) for name, source in (("bad", "1/0"), ("good", "pass"), ("fresh", "pass")))
    run_suite(pieces[:2], tmp_path, FACTS, FOREVER)
    order = list(json.loads((tmp_path / "manifest.json").read_text())["pieces"])
    assert order == ["bad", "good"]
    source = "import sys, time; open(sys.argv[1], 'a').write(sys.argv[2] + ' ')"
    noted = tuple(
        Piece(piece.name, "a test", 60, (sys.executable, "-c", source, str(tmp_path / "order"), piece.name))
        for piece in pieces
    )
    run_suite(noted, tmp_path, FACTS, FOREVER)
    assert (tmp_path / "order").read_text().split() == ["fresh", "bad", "good"]


def test_a_failure_stays_on_record_while_it_waits(tmp_path):
    run_suite((python("bad", "1/0"),), tmp_path, FACTS, FOREVER)
    outcomes = run_suite((python("bad", "1/0", 600),), tmp_path, FACTS, 60)
    assert outcomes["bad"].status == "failed" and outcomes["bad"].exit_code == 1


PROFILE = """
import sys, pathlib
words = sys.argv
folder = pathlib.Path(words[words.index("--out") + 1])
folder.mkdir(exist_ok=True)
(folder / "journal.jsonl").write_text("{}")
print(words[-1])
sys.exit(4 if words[-1] == "--resume" and "refuse" in words else 0)
"""


def profile(*words: str) -> Piece:
    """A piece that is called as a profile is, and says whether it was told to resume."""
    return Piece("cut", "a test", 60, (sys.executable, "-c", PROFILE, "profile", "--out", "{out}/cut", *words))


@pytest.mark.parametrize(
    ("facts", "status", "word"),
    [
        (FACTS, "timed out", "--resume"),
        (FACTS, "interrupted", "--resume"),
        (FACTS, "ok", "--force"),  # --only: runs it even if recorded
        (FACTS, "failed", "--force"),
        (CHANGED, "timed out", "--force"),
    ],
)
def test_only_what_was_cut_off_is_resumed(tmp_path, facts, status, word):
    run_suite((profile(),), tmp_path, facts, FOREVER)
    write_manifest(tmp_path, facts, {"cut": Outcome(status, 1.0, 0, "cut.log")})
    run_suite((profile(),), tmp_path, facts, FOREVER)
    assert (tmp_path / "cut.log").read_text() == f"{word}\n"


def test_what_cannot_be_resumed_is_begun_anew(tmp_path):
    run_suite((profile("refuse"),), tmp_path, FACTS, FOREVER)
    write_manifest(tmp_path, FACTS, {"cut": Outcome("timed out", 1.0, -9, "cut.log")})
    assert run_suite((profile("refuse"),), tmp_path, FACTS, FOREVER)["cut"].status == "ok"
    assert (tmp_path / "cut.log").read_text() == "--force\n"


def test_pieces_are_told_the_commit_of_a_copy_without_git(tmp_path):
    run_suite((python("told", "import os; print(os.environ['SEQROOF_COMMIT'])"),), tmp_path, FACTS, FOREVER)
    assert (tmp_path / "told.log").read_text() == "abc\n"


def test_a_piece_whose_packages_are_missing_is_skipped_with_their_names(tmp_path):
    absent = Piece("absent", "a test", 60, (sys.executable, "-c", "1/0"), needs=("no_such_package", "nor_this"))
    present = Piece("present", "a test", 60, (sys.executable, "-c", "pass"), needs=("no_such_package", "json"))
    outcomes = run_suite((absent, present), tmp_path, FACTS, FOREVER)
    assert (outcomes["absent"].status, outcomes["present"].status) == ("skipped", "ok")
    assert "none of no_such_package, nor_this is installed" in table((absent, present), outcomes)
    assert finished(tmp_path, FACTS) == {"present"}


def test_the_telling_pieces_fit_into_half_an_hour_all_into_forty_minutes_and_each_into_ten():
    limits = {piece.name: piece.limit_s for piece in PIECES if not (piece.needs or piece.unless)}
    telling = list(limits)[: list(limits).index("lstm_sizes") + 1]
    assert sum(limits[name] for name in telling) <= 1800
    assert sum(limits.values()) <= 2400
    assert all(piece.limit_s <= 600 for piece in PIECES)
    assert len({piece.name for piece in PIECES}) == len(PIECES)


def test_roofs_come_first_and_a_launch_that_hangs_shows_within_the_limit_of_its_piece():
    assert PIECES[0].keeps == ROOFS[0] and PIECES[1].keeps == ROOFS[1] and PIECES[1].unless == ROOFS[0]
    for piece in PIECES:
        if "profile" in piece.command:
            words = piece.command
            assert words[words.index("--roofs") + 1] == "{roofs}"
            assert parse_duration(words[words.index("--deadline") + 1]) <= piece.limit_s / 2


@pytest.mark.parametrize(
    "piece", [piece for piece in PIECES if "profile" in piece.command], ids=lambda piece: piece.name
)
def test_what_is_profiled_exists(piece):
    """Kernels, sizes, dtypes and rows of a piece are known: a spelling error would be noticed on a GPU only."""
    # A switch takes no value.
    words = [word for word in piece.command[piece.command.index("profile") + 1 :] if word != "--counters"]
    names = [words[0]] if not words[0].startswith("--") else []
    options = dict(zip(words[len(names) :: 2], words[len(names) + 1 :: 2], strict=True))
    assert parse_duration(options["--budget"]) < piece.limit_s
    assert options["--out"] == f"{{out}}/{piece.name}"
    parse_dtypes([options.get("--dtype", "")])
    parse_directions([options.get("--direction", "")])
    if "--suite" in options:
        assert options["--suite"] == "claims" and claim_cases("cuda", names, _catalog.load)
    for name in names:
        kernel = _catalog.load(name)
        assert shapes_of(kernel, "quick", parse_shape([text for text in [options.get("--shape")] if text]))
        rows = [row for row in options.get("--implementation", "").split(",") if row]
        assert set(rows) <= set(kernel.implementations)


def test_no_test_on_a_gpu_measures_the_whole_roofs_for_itself():
    """A size that is named is measured at length, roofs first: more than a minute that its piece does not have."""
    for file in (ROOT / "tests" / "gpu").glob("test_*.py"):
        text = file.read_text()
        assert "--shape" not in text or "--roofs" in text, file.name


def test_timed_tests_run_alone():
    by_name = {piece.name: piece.command for piece in PIECES}
    for name in ("clock", "telemetry", "ceilings", "noise", "exploits"):
        file = f"tests/gpu/test_{name}.py"
        assert file in by_name["clocks"] and f"--ignore={file}" in by_name["tests"]
        assert (ROOT / file).exists()


def test_durations_and_wrong_names():
    assert [seconds(text) for text in ("90", "90s", "25m", "1.5h")] == [90, 90, 1500, 5400]
    for words in (["--budget", "soon"], ["--only", "tests,nonsense"], ["--only", ""]):
        with pytest.raises(SystemExit) as end:
            gpu_suite.main(words)
        assert end.value.code == 2


def test_the_table_names_the_log_of_what_failed():
    first, second = (piece.name for piece in PIECES[:2])
    outcomes = {first: Outcome("failed", 12.3, 1, f"{first}.log"), second: Outcome("ok", 3)}
    lines = table(PIECES, outcomes).splitlines()
    assert lines[1].split() == [first, "failed", "12", "s", f"{first}.log"]
    assert lines[2].startswith(second) and " ok " in lines[2]
    assert all(" waits " in line for line in lines[3:])


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
