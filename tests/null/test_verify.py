"""What `seqroof verify` covers: shapes, directions, patience with the interpreter, and how it says what it left out."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import stand_in_worker
import typer
from round_machine import point
from user_kernels import GOOD, kernel_file

from seqroof.kernels import _catalog
from seqroof.profiler.group_runs import COMPILE_SILENCE_S, INTERPRETED_SILENCE_S, SILENCE_S
from seqroof.profiler.plan import shapes_of
from seqroof.profiler.request import Request
from seqroof.profiler.session import Session
from seqroof.profiler.supervisor import Refused, Supervisor
from seqroof.profiler.verification import Verification
from seqroof.scripts import main, profile_verb, verifying
from seqroof.scripts.exits import Stop
from seqroof.scripts.progress import Reporter
from seqroof.scripts.sweep import parse_part

ODD = "\nODD = [Shape(2), Shape(5, 7)]\nODD_LONG = [Shape(6, 11)]\nSHAPES['standard'] = [Shape(9, 9)]\n"


@pytest.mark.parametrize(
    ("suite", "expected"),
    [
        ("checked", [(2, 64), (3, 50), (5, 7)]),
        ("checked-long", [(2, 64), (3, 50), (9, 9), (5, 7), (6, 11)]),
        ("interpreted", [(2, 64), (5, 7)]),
        ("interpreted-long", [(2, 64), (5, 7), (6, 11)]),
        ("standard", [(9, 9)]),
    ],
)
def test_every_shape_is_checked_once(tmp_path, suite, expected):
    kernel = _catalog.load(str(kernel_file(tmp_path, text=GOOD + ODD)))
    assert [(shape.B, shape.N) for shape in shapes_of(kernel, suite, {})] == expected


def test_a_file_without_odd_shapes_is_interpreted_on_its_quick_ones(tmp_path):
    kernel = _catalog.load(str(kernel_file(tmp_path)))
    assert [shape.B for shape in shapes_of(kernel, "interpreted", {})] == [2, 3]


HEADS = {32, 64, 80, 128, 256}
CHANNELS, TAPS, DILATIONS, LENGTHS = {1, 200}, {1, 31}, {1, 64}, {1, 1031}
EXTREMES = {
    "attention": {"S": LENGTHS, "K": LENGTHS, "N": {1, 6}, "P": HEADS},
    "attention_decode": {"K": LENGTHS, "N": {1, 6}, "P": HEADS},
    "hierarchical_attention": {"T": LENGTHS, "P": HEADS},
    "memory_attention": {"M": {1, 257}, "T": {1, 64}, "P": {1, 80}},
    "gated_conv": {"T": LENGTHS, "C": CHANNELS, "W": TAPS, "dilation": DILATIONS},
    "dilated_conv": {"T": LENGTHS, "C": CHANNELS, "W": TAPS, "first": DILATIONS},
    "separable_conv": {"T": LENGTHS, "C": CHANNELS, "W": TAPS, "dilation": DILATIONS},
    "transposed_conv": {"T": LENGTHS, "C": CHANNELS, "W": TAPS, "dilation": DILATIONS},
    "gated_conv_block": {"T": LENGTHS, "C": {2, 200}, "W": TAPS, "dilation": DILATIONS},
    "transformer_block": {"T": LENGTHS, "N": {1, 6}},
}


@pytest.mark.parametrize("name", EXTREMES)
def test_the_odd_shapes_hold_every_extreme(name):
    shapes = _catalog.load(name).suite("odd")
    for size, wanted in EXTREMES[name].items():
        assert wanted <= {getattr(shape, size) for shape in shapes}, size


def test_all_dtypes_are_verified_unless_some_are_named(monkeypatch):
    asked = []

    def verify(request, long, part):
        asked.append(request.dtypes)
        return verifying.Checked([], "cpu")

    monkeypatch.setattr(verifying, "verify", verify)
    for named in ([], ["fp16"]):
        with pytest.raises(typer.Exit):
            profile_verb.run_verify(Request(dtypes=named), long=False, part=(1, 1), as_json=False)
    assert asked == [["fp32", "tf32", "fp16", "bf16"], ["fp16"]]


@pytest.mark.parametrize(
    ("interpret", "names", "patience_s"),
    [
        (True, ["triton"], INTERPRETED_SILENCE_S),
        (False, ["torch", "compile"], COMPILE_SILENCE_S),
        (False, ["torch"], SILENCE_S),
    ],
)
def test_the_interpreter_may_be_silent_for_longer(interpret, names, patience_s):
    asked = []

    def ask(operation, silence_s, most_s, **request):
        asked.append((operation, silence_s, request["implementations"]))
        return iter(())

    supervisor = SimpleNamespace(interpret=interpret, ask=ask)
    session = Session(Request(), supervisor, SimpleNamespace())  # type: ignore[arg-type]
    group = stand_in_worker.group(1)
    assert list(session.runs.ask(0, group, names, {})) == []
    ((operation, silence_s, asked_for),) = asked
    assert (operation, asked_for) == ("group", names) and INTERPRETED_SILENCE_S > SILENCE_S
    assert silence_s == pytest.approx(patience_s, abs=0.1), "the work of this group takes next to nothing"


def test_a_deadline_reaches_the_check(monkeypatch):
    asked = []
    monkeypatch.setattr(profile_verb, "run_verify", lambda request, *rest, **more: asked.append(request.deadline_s))
    main.verify(deadline="25s")
    main.verify()
    assert asked == [25.0, None]


def verify(folder, *arguments):
    command = [sys.executable, "-m", "seqroof.scripts.main", "verify", "./mine.py", "--dtype", "fp32", *arguments]
    done = subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_both_directions_are_checked_and_what_has_no_gradient_is_one_line(tmp_path):
    kernel_file(tmp_path)
    text = verify(tmp_path, "--device", "cpu")
    assert "B=2,N=64 forward" in text and "B=2,N=64 backward" in text
    assert text.count("no backward pass") == 1
    points = json.loads(verify(tmp_path, "--device", "cpu", "--direction", "forward", "--json"))["points"]
    assert {point["direction"] for point in points} == {"forward"}


def test_progress_begins_anew_with_a_second_plan():
    reporter = Reporter(quiet=True)
    for groups in ([{}, {}], [{}]):
        reporter.planned(groups)
        reporter.finished(0, [])
    assert (reporter.done, reporter.total) == (1, 1)


def test_the_parts_together_are_the_whole(tmp_path):
    kernel_file(tmp_path)
    whole, *parts = (
        json.loads(verify(tmp_path, "--device", "cpu", "--json", *part))
        for part in ((), ("--part", "1/3"), ("--part", "2/3"), ("--part", "3/3"))
    )
    assert not whole["interrupted"] and all(part["points"] for part in parts)

    def cases(found):
        return sorted(json.dumps({key: one[key] for key in ("implementation", "shape", "direction")}) for one in found)

    assert cases(whole["points"]) == cases(one for part in parts for one in part["points"])


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "-1/3"])
def test_a_part_that_is_none_is_refused_with_a_sentence(text):
    with pytest.raises(Stop, match="is no part; write 2/8"):
        parse_part(text)
    assert parse_part(None) == (1, 1) and parse_part("2/8") == (2, 8)


def test_an_interruption_keeps_what_was_checked(tmp_path, monkeypatch, capsys):
    """The second group is interrupted; the first is printed all the same."""

    def check(self, session, index, group, points, whole=Verification._verify_group):
        if index:
            raise KeyboardInterrupt
        whole(self, session, index, group, points)

    monkeypatch.setattr(Verification, "_verify_group", check)
    monkeypatch.setattr(verifying, "MOST_CHECKERS", 1)
    kernel = str(kernel_file(tmp_path))
    found = verifying.verify(Request(kernels=[kernel], dtypes=["fp32"], device="cpu"), long=False)
    assert found.interrupted and {(point.shape["B"], point.status) for point in found.points} == {(2, "ok")}
    assert "interrupted before the others" in capsys.readouterr().err


def test_failures_are_told_before_the_table(capsys):
    wrong = point(None, status="wrong", reason="far off")
    with Reporter(failures=True) as reporter:
        reporter.planned([{}])
        reporter.finished(0, [wrong, point(None, status="ok")])
    assert "wrong: k" in (told := capsys.readouterr().err) and "far off" in told and told.count("fp32") == 1


def statuses(found):
    return {point.implementation: point.status for point in found.points}


def test_a_worker_that_cannot_be_replaced_leaves_what_was_checked(tmp_path, monkeypatch, capsys):
    """`reference` has passed when `torch` takes the worker with it."""

    def gone(self):
        raise Refused("There is no cuda:0; this machine has 0 GPU(s), counted from 0.", "DeviceError")

    monkeypatch.setattr(Supervisor, "restart", gone)
    monkeypatch.setattr(verifying, "MOST_CHECKERS", 1)
    request = Request(kernels=[str(kernel_file(tmp_path, fault="os._exit(3)"))], dtypes=["fp32"], device="cpu")
    found = verifying.verify(request, long=False)
    assert found.interrupted
    assert statuses(found) == {"reference": "ok", "torch": "crashed"}
    assert "could not be replaced" in (told := capsys.readouterr().err) and "what was checked is kept" in told


def test_a_file_that_changes_while_it_is_verified_is_not_checked_on(tmp_path, monkeypatch, capsys):
    """Each worker loads it for itself, some of them later."""
    monkeypatch.setattr(verifying, "MOST_CHECKERS", 1)
    path = kernel_file(tmp_path, fault="open(__file__, 'a').write('#'); os._exit(3)")
    found = verifying.verify(Request(kernels=[str(path)], dtypes=["fp32"], device="cpu"), long=False)
    assert found.interrupted
    assert statuses(found) == {"reference": "ok", "torch": "crashed"}
    assert "could not go on with a new worker (mine.py changed since this run began" in capsys.readouterr().err
