"""Run files: round trip, atomicity, and one sentence for every way in which a file can be wrong."""

import json

import jsonschema
import pytest
from round_machine import ROUND, point, timing

from seqroof.roofline import store
from seqroof.roofline.record import SCHEMA_VERSION, Environment, Run
from seqroof.roofline.verdict import judge


@pytest.fixture
def run():
    points = (judge(point(timing(200.0, 0.1)), ROUND), point(None, status="skipped", reason="no GPU"))
    return Run(
        tool="seqroof 0",
        created="2026-01-01",
        command="seqroof profile",
        machine=ROUND,
        environment=Environment(python="3.11"),
        points=points,
    )


def test_a_run_survives_the_disk(run, tmp_path):
    store.save(run, tmp_path)
    assert store.load(tmp_path) == run
    assert store.load(tmp_path / "run.json") == run
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_the_published_schema_is_the_schema_of_the_code_and_accepts_a_run(run):
    published = json.loads(store.SCHEMA_FILE.read_text())
    assert published == store.schema(), "write it anew: python -m seqroof.roofline.store"
    jsonschema.validate(run.model_dump(mode="json"), published)


def _text(run, **changes):
    return json.dumps(json.loads(store.dumps(run)) | changes)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda run: store.dumps(run)[:1000], "damaged or cut off"),
        (lambda run: "[]", "no run of seqroof"),
        (lambda run: '{"hello": 1}', "no run of seqroof"),
        (lambda run: _text(run, schema_version=SCHEMA_VERSION + 1), "newer seqroof"),
        (lambda run: _text(run, schema_version="one"), "schema_version"),
        (lambda run: _text(run, machine={}), "machine"),
        (lambda run: _text(run, surprise=1), "surprise"),
        (lambda run: store.dumps(run).replace('"median": 200.0', '"median": NaN', 1), "no valid run"),
        (lambda run: store.dumps(run).replace('"flops": 0', '"flops": 5', 1), "differs from the sum"),
        (lambda run: b"\xff\xfe\x00", "not a text file"),
    ],
)
def test_a_wrong_file_gets_a_sentence(run, tmp_path, damage, says):
    content = damage(run)
    (tmp_path / "run.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(store.RunFileError, match=says):
        store.load(tmp_path)


def test_a_missing_file_points_to_its_journal(tmp_path):
    with pytest.raises(store.RunFileError, match="There is no"):
        store.load(tmp_path)
    (tmp_path / "journal.jsonl").write_text("")
    with pytest.raises(store.RunFileError, match="--resume"):
        store.load(tmp_path)


@pytest.mark.parametrize("left", [None, "", '{"schema_version": 1,'], ids=["missing", "empty", "cut off"])
def test_what_a_journal_can_make_anew_names_the_command_that_began_it(tmp_path, left):
    header = {"kind": "header", "data": {"command": "seqroof scaling --measure"}}
    (tmp_path / "journal.jsonl").write_text(json.dumps(header) + "\n")
    if left is not None:
        (tmp_path / "run.json").write_text(left)
    with pytest.raises(store.RunFileError, match=rf": seqroof scaling --measure --out {tmp_path} --resume"):
        store.load(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "run.json"
    store.write_atomically(file, b"old")

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr(store.os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        store.write_atomically(file, b"new")
    assert file.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
