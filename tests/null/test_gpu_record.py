"""What the GPU suite has recorded: of which commit and GPU it is, where it goes on, and what counts as finished."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from scripted_pieces import CHANGED, FACTS, FOREVER, python

from seqroof.scripts import gpu_suite, run_folder
from seqroof.scripts.gpu_pieces import ROOFS
from seqroof.scripts.gpu_record import Outcome, gpu_here, history, new_folder, recorded
from seqroof.scripts.gpu_suite import run_suite

OTHER = replace(FACTS, gpu="another card of the same name")


def finished(folder, facts):
    return {name for name, outcome in history([folder], facts).items() if outcome.ok}


def test_what_is_recorded_for_the_commit_is_finished(tmp_path):
    folder = tmp_path / "gpu-2026-01-01"
    run_suite((python("good", "pass"), python("bad", "1/0")), folder, FACTS, FOREVER)
    assert finished(folder, FACTS) == {"good"}
    assert finished(folder, replace(FACTS, commit="abd")) == finished(folder, replace(FACTS, machine="b200")) == set()
    assert finished(tmp_path, FACTS) == set()


def test_another_card_of_the_name_goes_on_and_nothing_of_it_is_taken_up(tmp_path):
    run_suite((python("good", "pass"), python("bad", "1/0")), tmp_path, FACTS, FOREVER)
    assert finished(tmp_path, OTHER) == {"good"} and recorded(tmp_path, OTHER) == {}


def test_of_several_records_of_a_piece_the_best_counts(tmp_path):
    for place, source in (("a", "1/0"), ("b", "pass"), ("c", "1/0")):
        run_suite((python("piece", source), python("long", "pass", 99)), tmp_path / place, FACTS, 75)
    found = history([tmp_path / place for place in "abc"], OTHER)
    assert {name: outcome.status for name, outcome in found.items()} == {"piece": "ok", "long": "waits"}


PROFILE = replace(python("profile", "pass"), command=("profile", "{roofs}"))
ABSENT = replace(PROFILE, name="absent", needs=("no_such_package",))
ROOF = replace(python("ceilings", "pass"), keeps=ROOFS[0])


def test_roofs_are_measured_on_every_card_that_holds_a_profile_to_them(monkeypatch):
    monkeypatch.setattr(gpu_suite, "PIECES", (ROOF, PROFILE, python("tests", "pass"), ABSENT))
    ok = {name: Outcome("ok") for name in ("ceilings", "profile", "tests")}
    assert gpu_suite._waiting({}, {}) == ["ceilings", "profile", "tests", "absent"]
    without = {name: outcome for name, outcome in ok.items() if name != "profile"}
    assert gpu_suite._waiting(without, {}) == ["ceilings", "profile", "absent"]
    assert gpu_suite._waiting(without, without) == ["profile", "absent"]
    assert gpu_suite._waiting(ok, {}) == ["absent"], "nothing that runs here is left to hold to roofs"


def test_roofs_come_first_on_another_card_and_what_was_tried_there_last(tmp_path):
    names = ("ceilings", "tried", "fresh")
    outcomes = run_suite(tuple(python(name, "pass") for name in names), tmp_path, OTHER, FOREVER, names[:2])
    assert list(outcomes) == ["ceilings", "fresh", "tried"]


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


@pytest.mark.parametrize("other", [replace(FACTS, commit="abd"), OTHER])
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


def test_a_copy_without_git_is_of_the_commit_that_it_is_told(monkeypatch):
    monkeypatch.setenv("SEQROOF_COMMIT", "abc")
    found = []
    for of_git in ("", "def"):
        run_folder.commit.cache_clear()
        monkeypatch.setattr(run_folder, "commit_of", lambda folder, known=of_git: known)
        found.append(run_folder.commit())
    run_folder.commit.cache_clear()
    assert found == ["abc", "def"]


def test_what_keeps_a_later_call_from_going_on_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_suite, "has_nvidia_gpu", lambda: True)
    monkeypatch.setattr(gpu_suite, "PIECES", (python("good", "pass"),))
    said = []
    for commit, gpu in (("abc", "uuid"), ("unknown", "uuid"), ("abc-changed", "uuid"), ("abc", "")):
        monkeypatch.setattr(gpu_suite, "gpu_here", lambda known=gpu: ("gpu", known))
        monkeypatch.setattr(gpu_suite, "commit_of_tree", lambda known=commit: known)
        assert gpu_suite.main(["--out", str(tmp_path / f"{commit}{gpu}")]) == 0
        said.append(capsys.readouterr().err)
    assert "anew" not in said[0] and "--commit" in said[1] and "commit them" in said[2] and "UUID" in said[3]
