"""The GPU suite as far as it goes without a GPU: pieces, limits, records, and the set-up on a machine like its own."""

from __future__ import annotations

import json
import shutil
import sys
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from isolated import closure, offline, python_with, run, wheel_of

from seqroof.kernels import _catalog
from seqroof.profiler.claim_plan import claim_cases
from seqroof.profiler.plan import shapes_of
from seqroof.scripts import gpu_suite
from seqroof.scripts.environment import has_nvidia_gpu
from seqroof.scripts.gpu_pieces import PIECES, Piece
from seqroof.scripts.gpu_suite import Outcome, finished, new_folder, run_suite, seconds, table
from seqroof.scripts.sweep import parse_directions, parse_dtypes, parse_duration, parse_shape

ROOT = Path(__file__).resolve().parents[2]
FACTS = {"commit": "abc", "machine": "gpu", "date": "2026-01-01"}
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


def test_a_piece_that_does_not_fit_the_budget_waits_and_a_shorter_one_runs(tmp_path):
    outcomes = run_suite((python("long", "pass", 600), python("short", "pass", 30)), tmp_path, FACTS, 60)
    assert (outcomes["long"].status, outcomes["short"].status) == ("waits", "ok")


def test_what_is_recorded_for_the_commit_is_finished(tmp_path):
    folder = tmp_path / "gpu-2026-01-01"
    run_suite((python("good", "pass"), python("bad", "1/0")), folder, FACTS, FOREVER)
    assert finished([folder], "abc") == {"good"}
    assert finished([folder], "abd") == set()
    assert finished([tmp_path], "abc") == set()


def test_a_changed_tree_is_never_finished(tmp_path):
    run_suite((python("good", "pass"),), tmp_path, {**FACTS, "commit": "abc-changed"}, FOREVER)
    assert finished([tmp_path], "abc-changed") == set()


def test_a_later_run_keeps_what_an_earlier_one_recorded(tmp_path):
    run_suite((python("first", "pass"),), tmp_path, FACTS, FOREVER)
    run_suite((python("second", "pass"),), tmp_path, FACTS, FOREVER)
    assert finished([tmp_path], "abc") == {"first", "second"}


def test_another_commit_on_the_same_day_gets_its_own_folder(tmp_path):
    folder = new_folder(tmp_path, "gpu", "2026-01-01", "abc")
    run_suite((python("good", "pass"),), folder, FACTS, FOREVER)
    assert new_folder(tmp_path, "gpu", "2026-01-01", "abc") == folder
    assert new_folder(tmp_path, "gpu", "2026-01-01", "abd").name == "gpu-2026-01-01-2"


def test_a_damaged_manifest_counts_as_nothing(tmp_path, capsys):
    (tmp_path / "manifest.json").write_text("{")
    assert finished([tmp_path], "abc") == set()
    assert "damaged" in capsys.readouterr().err


def test_what_a_piece_prints_is_kept_apart_from_its_log_when_it_went_well(tmp_path):
    source = "import sys; print('{}'); print('said', file=sys.stderr); sys.exit(len(sys.argv) - 1)"
    good = Piece("good", "a test", 60, (sys.executable, "-c", source), keeps="good.json")
    bad = Piece("bad", "a test", 60, (sys.executable, "-c", source, "1"), keeps="bad.json")
    run_suite((good, bad), tmp_path, FACTS, FOREVER)
    assert (tmp_path / "good.json").read_text() == "{}\n"
    assert (tmp_path / "good.log").read_text() == (tmp_path / "bad.log").read_text() == "said\n"
    assert not (tmp_path / "bad.json").exists()


def test_roofs_are_used_once_they_are_measured(tmp_path):
    words = ("-c", "import sys; print(*sys.argv[1:])", "--roofs", "{out}/roofs.json", "last")
    shown = Piece("shown", "a test", 60, (sys.executable, *words))
    run_suite((shown,), tmp_path, FACTS, FOREVER)
    assert (tmp_path / "shown.log").read_text() == "last\n"
    (tmp_path / "roofs.json").write_text("{}")
    run_suite((shown,), tmp_path, FACTS, FOREVER)
    assert (tmp_path / "shown.log").read_text() == f"--roofs {tmp_path}/roofs.json last\n"


@pytest.mark.parametrize(
    ("status", "commit", "word"),
    [
        ("timed out", "abc", "--resume"),
        ("interrupted", "abc", "--resume"),
        ("failed", "abc", "--resume"),
        ("ok", "abc", "--force"),
        ("ok, with failed cases", "abc", "--force"),
        ("waits", "abc", "--force"),
        ("timed out", "abc-changed", "--force"),
        ("timed out", "unknown", "--force"),
        ("", "abc", "--force"),
    ],
)
def test_only_what_this_very_commit_was_cut_off_from_is_finished(tmp_path, status, commit, word):
    """Everything else is measured anew: what an ended piece has in its journal may be of another tree."""
    words = ("-c", "import sys; print(sys.argv[-1])", "profile", "--out", "{out}/shown")
    shown = Piece("shown", "a test", 60, (sys.executable, *words))
    facts = FACTS | {"commit": commit}
    pieces = {"shown": {"status": status}} if status else {}
    (tmp_path / "manifest.json").write_text(json.dumps(facts | {"pieces": pieces}))
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "journal.jsonl").write_text("")
    run_suite((shown,), tmp_path, facts, FOREVER)
    assert (tmp_path / "shown.log").read_text() == f"{word}\n"


def test_a_piece_counts_as_interrupted_until_it_has_ended(tmp_path):
    source = f"print(open({str(tmp_path / 'manifest.json')!r}).read())"
    outcomes = run_suite((python("reader", source),), tmp_path, FACTS, FOREVER)
    seen = json.loads((tmp_path / "reader.log").read_text())
    assert seen["pieces"]["reader"]["status"] == "interrupted" and outcomes["reader"].status == "ok"


def test_a_piece_whose_packages_are_missing_is_skipped_with_their_names(tmp_path):
    absent = Piece("absent", "a test", 60, (sys.executable, "-c", "1/0"), needs=("no_such_package", "nor_this"))
    present = Piece("present", "a test", 60, (sys.executable, "-c", "pass"), needs=("no_such_package", "json"))
    outcomes = run_suite((absent, present), tmp_path, FACTS, FOREVER)
    assert (outcomes["absent"].status, outcomes["present"].status) == ("skipped", "ok")
    assert "none of no_such_package, nor_this is installed" in table((absent, present), outcomes)
    assert finished([tmp_path], "abc") == {"present"}


def test_all_pieces_fit_into_half_an_hour_and_each_into_ten_minutes():
    assert sum(piece.limit_s for piece in PIECES if not piece.needs) <= 1800
    assert all(piece.limit_s <= 600 for piece in PIECES)
    assert len({piece.name for piece in PIECES}) == len(PIECES)


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
    assert [line.split()[:2] for line in outcome.stdout.splitlines()[1:-1]] == [
        [piece.name, "waits"] for piece in PIECES
    ]
    assert "no NVIDIA GPU here" in outcome.stdout
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
