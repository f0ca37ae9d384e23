"""`--measure` of contrast, scaling and explain: an interrupted run is finished by the command that is named."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seqroof.profiler.journal import read
from seqroof.roofline import store
from seqroof.scripts import contrasting, scaling
from seqroof.scripts.main import app
from seqroof.scripts.progress import Reporter

# Each command with the groups that it measures.
COMMANDS = {
    "contrast": ("--equal width --budget 16 --shape B=2,T=8|16 --direction forward --rows reference", 4),
    "scaling": ("--shape T=4:32:x2,width=16", 4),
    "explain": ("lstm_step --shape B=1,I=16,H=16", 1),
}


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A folder of which the second command on takes the roofs that the first has measured."""
    return tmp_path_factory.mktemp("house")


def run(monkeypatch, *words):
    """Run the command as if it had been typed; returns the result and all that was said."""
    monkeypatch.setattr(sys, "argv", ["seqroof", *words])
    found = CliRunner().invoke(app, list(words), env={"COLUMNS": "80", "NO_COLOR": "1"})
    return found, found.output


def interrupt(reporter, index, points):
    raise KeyboardInterrupt


@pytest.mark.parametrize("verb", COMMANDS)
def test_an_interrupted_run_is_finished_by_the_command_that_is_named(verb, house, monkeypatch):
    arguments, groups = COMMANDS[verb]
    monkeypatch.chdir(house)
    monkeypatch.setattr(contrasting, "GROUP_S", 0.1)
    monkeypatch.setattr(contrasting, "LAYERS", contrasting.LAYERS[:2])
    monkeypatch.setattr(scaling, "GROUP_S", 0.1)
    monkeypatch.setattr(scaling, "MEASURED", {"lstm": scaling.MEASURED["lstm"]})
    with monkeypatch.context() as pressed:
        pressed.setattr(Reporter, "finished", interrupt)
        found, said = run(monkeypatch, verb, *shlex.split(arguments), "--measure", "--out", verb)
    assert found.exit_code == 130 and f"Written: {verb}/run.json" in said, said
    (command,) = re.findall(r"finish it with: seqroof (.*)", said)
    before = [data["key"] for kind, data in read(house / verb) if kind == "group"]
    assert len(before) == 1

    (house / verb / "run.json").unlink()  # as after a kill, when only the journal is there
    with pytest.raises(store.RunFileError, match=re.escape(f"finish what its journal holds with: seqroof {command}")):
        store.load(Path(verb))
    found, said = run(monkeypatch, *shlex.split(command))
    assert found.exit_code == 0 and f"Written: {verb}/run.json" in said and "finish it" not in said, said
    after = [data["key"] for kind, data in read(house / verb) if kind == "group"]
    assert after[:1] == before and len(after) == len(set(after)) == groups
    assert store.load(house / verb).state == "complete"


@pytest.mark.parametrize("verb", COMMANDS)
@pytest.mark.parametrize("more", [("--out", "o"), ("--resume",), ("--force",)], ids=" ".join)
def test_where_a_run_goes_is_refused_where_none_is_made(verb, more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [word for word in shlex.split(COMMANDS[verb][0]) if verb == "explain"]
    found, _ = run(monkeypatch, verb, *words, *more)
    assert "add --measure" in str(found.exception) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", COMMANDS)
def test_contradictions_are_refused_before_anything_is_measured(verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [verb, *shlex.split(COMMANDS[verb][0]), "--measure"]
    assert "choose one" in str(run(monkeypatch, *words, "--out", "o", "--resume", "--force")[0].exception)
    assert "--out FOLDER --resume" in str(run(monkeypatch, *words, "--resume")[0].exception)
    assert list(tmp_path.iterdir()) == []
