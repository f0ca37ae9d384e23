"""`seqroof claims` as a user meets it: the table, the document, the gate, and one sentence for whatever is wrong."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import claim_samples as samples
import jsonschema
import pytest
from commands import seqroof
from rich.console import Console

from seqroof.roofline import claim_table
from seqroof.roofline.claim_board import Board, board
from seqroof.roofline.record import SCHEMA_VERSION, Environment
from seqroof.roofline.store import save
from seqroof.scripts import claiming
from seqroof.scripts.exits import Exit, Stop

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "</script>\x1b[31m[red]x"


def saved(folder: Path, name: str, **changes) -> Path:
    """A run in a folder below `seqroof-runs`."""
    place = folder / "seqroof-runs" / name
    place.mkdir(parents=True)
    save(samples.run(**changes), place)
    return place


def test_without_any_run_every_claim_names_the_command(tmp_path):
    done = seqroof("claims", "--json", cwd=tmp_path)
    assert done.returncode == 0
    found = {entry["id"]: entry for entry in json.loads(done.stdout)["claims"]}
    assert len(found) == 17 and found["C3"]["numbers"] and found["C3"]["verdict"] == "SUPPORTED"
    rest = [entry for id, entry in found.items() if id != "C3"]
    assert {entry["verdict"] for entry in rest} == {"INCONCLUSIVE"}
    assert all("seqroof profile --suite claims" in entry["missing"][-1] for entry in rest)


def test_the_newest_run_of_each_device_counts_and_the_claims_suite_goes_first(tmp_path):
    saved(tmp_path, "old", created="2026-01-01", suite="claims")
    full = saved(tmp_path, "full", created="2026-02-02", suite="claims")
    saved(tmp_path, "newer", created="2026-03-03", suite="quick")
    other = samples.MACHINE.model_copy(update={"id": "other"})
    second = saved(tmp_path, "other", created="2025-01-01", suite="quick", machine=other)
    (tmp_path / "seqroof-runs" / "torn").mkdir()
    (tmp_path / "seqroof-runs" / "torn" / "run.json").write_bytes(b"\xff{")
    assert {path.parent for path in claiming.newest(tmp_path)} == {full, second}


def test_a_partial_run_shadows_no_complete_one(tmp_path, capsys):
    full = saved(tmp_path, "full", created="2026-01-01")
    saved(tmp_path, "stopped", created="2026-02-02", state="interrupted")
    few = tuple(point for point in samples.points() if point.kernel == "gru")
    saved(tmp_path, "one-kernel", created="2026-03-03", points=few)
    assert [path.parent for path in claiming.newest(tmp_path)] == [full]
    told = capsys.readouterr().err
    assert "seqroof-runs/full is used" in told and "one-kernel" in told and "stopped" in told


def test_a_run_of_a_newer_seqroof_shadows_none_that_can_be_read(tmp_path, capsys):
    full = saved(tmp_path, "full", created="2026-01-01")
    later = saved(tmp_path, "later", created="2026-02-02") / "run.json"
    later.write_text(later.read_text().replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 999'))
    assert [path.parent for path in claiming.newest(tmp_path)] == [full]
    assert "passed over" in (told := capsys.readouterr().err) and "newer seqroof" in told
    (full / "run.json").write_text("{")
    assert claiming.newest(tmp_path) == {}
    assert "full holds no run" in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"device_hash": "b"}, {"computer_hash": "b"}, {"threads": 2}])
def test_two_computers_of_one_model_are_two(tmp_path, change):
    base = {"python": "3.11", "device_hash": "a", "computer_hash": "a", "threads": 1}
    one, two = (Environment.model_validate(base | more) for more in ({}, change))
    places = [saved(tmp_path, "one", environment=one), saved(tmp_path, "two", environment=two)]
    assert sorted(path.parent for path in claiming.newest(tmp_path)) == places
    runs = [(place.name, samples.run(environment=of)) for place, of in zip(places, (one, two))]
    assert {entry.run for entry in board(runs).claims} >= {"one", "two"}


def test_the_document_follows_its_schema_and_names_machine_and_run(tmp_path, monkeypatch, capsys):
    place = saved(tmp_path, "full")
    assert claiming.claims([place], None, as_json=True) == Exit.OK
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, Board.model_json_schema(mode="serialization"))
    wanted = {"id", "verdict", "numbers", "region", "machine", "run", "missing"}
    assert all(wanted <= set(entry) for entry in document["claims"])
    assert {entry["run"] for entry in document["claims"]} == {"seqroof-runs/full", ""}
    assert str(tmp_path) not in json.dumps(document)


@pytest.mark.parametrize(
    ("expected", "code"),
    [
        ({"C12": "SUPPORTED"}, Exit.OK),
        ({"C12": "REFUTED", "C13": "SUPPORTED"}, Exit.GATE_FAILED),
        ({"claims": [{"id": "C12", "verdict": "SUPPORTED", "machine": "Sample Processor"}]}, Exit.OK),
        ({"claims": [{"id": "C12", "verdict": "SUPPORTED", "machine": "another"}]}, Exit.GATE_FAILED),
    ],
)
def test_expected_verdicts_gate(tmp_path, capsys, expected, code):
    place = saved(tmp_path, "full")
    file = tmp_path / "expected.json"
    file.write_text(json.dumps(expected))
    assert claiming.claims([place], file, as_json=True) == code
    assert ("C12" in capsys.readouterr().err) == (code != Exit.OK)


def test_a_document_is_its_own_expectation(tmp_path, capsys):
    place = saved(tmp_path, "full")
    claiming.claims([place], None, as_json=True)
    (tmp_path / "before.json").write_text(capsys.readouterr().out)
    assert claiming.claims([place], tmp_path / "before.json", as_json=True) == Exit.OK


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "no object"),
        ("{}", "names no claim"),
        ('{"claims": 3}', "names no claim"),
        ('{"claims": [7]}', "claims are C1, C2"),
        ('{"C99": "REFUTED"}', "claims are C1, C2"),
        ('{"C1": "TRUE"}', "SUPPORTED, REFUTED"),
        ('{"C1": ["REFUTED"]}', "SUPPORTED, REFUTED"),
    ],
)
def test_a_wrong_expectation_gets_a_sentence(tmp_path, content, says):
    (tmp_path / "expected.json").write_text(content)
    with pytest.raises(Stop, match=says) as stopped:
        claiming.claims([], tmp_path / "expected.json", as_json=True)
    assert stopped.value.code == Exit.USAGE


def test_a_run_that_is_none_gets_a_sentence(tmp_path):
    done = seqroof("claims", "absent", cwd=tmp_path)
    assert done.returncode == 2 and "no absent" in done.stderr


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_the_table_fits_and_leaves_nothing_out(width):
    console = Console(width=width, file=io.StringIO(), highlight=False)
    found = board([("r", samples.run("C12"))])
    claim_table.render(found, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= max(width, 40)
    words = " ".join(text.split())
    for entry in found.claims:
        assert f"{entry.id} {entry.verdict}" in words.replace(f"{entry.id}  ", f"{entry.id} ")
    assert "1 REFUTED" in words
    assert words.count("compared:") == 16  # C3 compares no rows


def test_hostile_names_stay_names():
    machine = samples.MACHINE.model_copy(update={"name": HOSTILE})
    points = tuple(p.model_copy(update={"implementation": HOSTILE}) for p in samples.points())
    console = Console(width=80, file=io.StringIO(), highlight=False)
    claim_table.render(board([(HOSTILE, samples.run(machine=machine, points=points))]), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in text and "[red]x" in text


def test_nothing_slow_is_imported(tmp_path):
    place = saved(tmp_path, "full")
    code = "import sys\nfrom seqroof.scripts.main import app\n"
    code += "try:\n app(['claims', sys.argv[1]])\nexcept SystemExit:\n pass\n"
    code += "print(sorted({'torch', 'triton', 'numpy', 'altair', 'vl_convert'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
