"""Advised commands can be typed as they stand: in folders with spaces, and without `seqroof` on the path."""

import shlex
import sys
from pathlib import Path

import pytest
import samples

from seqroof import roofline
from seqroof.profiler.journal import Journal
from seqroof.roofline.store import RunFileError, load
from seqroof.scripts import environment, fleet, measuring, reading
from seqroof.scripts.environment import LAUNCHER
from seqroof.scripts.progress import typed


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv(LAUNCHER, raising=False)
    made = tmp_path / "my runs"
    made.mkdir()
    return made


def test_the_command_that_finishes_a_journal_names_its_folder_as_one_word(folder):
    Journal(folder).write("header", {"command": "seqroof profile lstm"})
    with pytest.raises(RunFileError) as told:
        load(folder)
    assert shlex.split(str(told.value).rstrip("."))[-3:] == ["--out", str(folder), "--resume"]
    (folder / "fleet.json").write_text("{}")
    with pytest.raises(RunFileError) as told:
        load(folder)
    assert shlex.split(str(told.value).removesuffix("."))[-2:] == ["--merge", str(folder)]
    assert shlex.split(fleet._merge_command(folder))[-2:] == ["--merge", str(folder)]


def test_the_command_that_makes_a_page_elsewhere_names_its_folder_as_one_word(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "seqroof.roofline.page", None)  # as without the report extra
    monkeypatch.delattr(roofline, "page", raising=False)
    reading.write_pages(samples.run(), folder)
    assert f"seqroof report '{folder}' --html page.html" in capsys.readouterr().err


def test_commands_begin_with_the_launcher_where_the_script_was_typed(folder, monkeypatch):
    assert typed("seqroof profile lstm") == "seqroof profile lstm"
    monkeypatch.setenv(LAUNCHER, ".venv/bin/seqroof")
    assert typed("seqroof profile lstm --shape T=2") == ".venv/bin/seqroof profile lstm --shape T=2"
    monkeypatch.setenv(LAUNCHER, "/a checkout/.venv/bin/seqroof")
    monkeypatch.setattr(sys, "argv", ["seqroof", "profile", "lstm"])
    words = shlex.split(measuring.resume_command(folder))
    assert words == ["/a checkout/.venv/bin/seqroof", "profile", "lstm", "--out", str(folder), "--resume"]


@pytest.mark.parametrize(
    ("here", "path"),
    [
        ("/work/it", ".venv/bin/seqroof"),
        ("/work", "it/.venv/bin/seqroof"),
        ("/", "work/it/.venv/bin/seqroof"),
        ("/home", "/work/it/.venv/bin/seqroof"),
    ],
)
def test_the_launcher_is_named_as_short_as_it_can_be_typed(here, path):
    assert environment.launcher_from(Path(here), Path("/work/it")) == path
