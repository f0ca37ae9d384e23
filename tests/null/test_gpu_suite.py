"""The GPU suite as far as it goes without a GPU: what runs when, what is cut off, and what is left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from scripted_pieces import CHANGED, FACTS, FOREVER, python

from seqroof.scripts import gpu_suite
from seqroof.scripts.gpu_pieces import PIECES, ROOFS, Piece
from seqroof.scripts.gpu_record import Outcome, recorded, write_manifest
from seqroof.scripts.gpu_suite import run_suite, seconds, table


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


def test_roofs_of_which_some_are_missing_are_better_than_none(tmp_path):
    """A barrier that hangs costs its own roof; without any, no profile would ever start."""
    source = "import sys; print('partial'); sys.exit(6)"
    lame = Piece("lame", "a test", 60, (sys.executable, "-c", source), keeps=ROOFS[0])
    other = replace(lame, name="other", keeps="noise.json")
    held = Piece("held", "a test", 60, (sys.executable, "-c", "import sys; print(sys.argv[-1])", "--roofs", "{roofs}"))
    outcomes = run_suite((lame, other, held), tmp_path, FACTS, FOREVER)
    assert [outcomes[name].status for name in ("lame", "other", "held")] == ["failed", "failed", "ok"]
    assert (tmp_path / "held.log").read_text() == f"{tmp_path}/partial-{ROOFS[0]}\n"
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["manifest.json", f"partial-{ROOFS[0]}"]
    for name in reversed(ROOFS[:2]):
        (tmp_path / name).write_text("{}")
        assert gpu_suite.roofs_in(tmp_path) == tmp_path / name


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
    assert recorded(tmp_path, FACTS)["absent"].status == "skipped"


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
