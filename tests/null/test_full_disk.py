"""A full disk, or a folder that is gone: what was finished is kept, and commands end with a sentence and their code."""

import errno
import os
import shutil
from types import SimpleNamespace

import pytest
import samples
import stand_in_worker
from round_machine import ROUND
from scripted import Scripted, session, whole

from seqroof.profiler.journal import Journal, is_busy, read
from seqroof.profiler.request import Request
from seqroof.profiler.session import Session
from seqroof.roofline import store
from seqroof.roofline.comparison_model import Noise
from seqroof.scripts import fleet, measuring, reading, self_test
from seqroof.scripts.exits import Exit, Stop
from seqroof.scripts.progress import Reporter


def full(journal):
    """The journal, on a disk that takes nothing more."""
    device = os.open("/dev/full", os.O_WRONLY)
    os.dup2(device, journal._file.fileno())
    os.close(device)
    return journal


def no_space(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_run_that_cannot_begin(tmp_path):
    with pytest.raises(Stop, match="cannot be written") as stopped:
        measuring.begin(Session(Request(), Scripted(), Reporter(quiet=True)), full(Journal(tmp_path)), resume=False)
    assert stopped.value.code == Exit.NO_DEVICE


def test_what_a_run_would_replace_cannot_be_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "remove_products", no_space)
    with pytest.raises(Stop, match="cannot be written") as stopped:
        measuring.begin(Session(Request(), Scripted(), Reporter(quiet=True)), Journal(tmp_path), resume=False)
    assert stopped.value.code == Exit.NO_DEVICE


def test_a_disk_that_fills_while_measuring(tmp_path):
    made = session(tmp_path, Scripted(whole("reference", "torch")))
    full(made.journal)
    with pytest.raises(Stop, match="make room and resume") as stopped:
        measuring.measured(made)
    assert stopped.value.code == Exit.NO_DEVICE


def test_the_record_cannot_be_written(tmp_path, monkeypatch):
    made = session(tmp_path, Scripted(whole("reference", "torch")))
    made.run()
    monkeypatch.setattr(measuring, "save", no_space)
    with pytest.raises(Stop, match=r"run\.json cannot be written .*--resume") as stopped:
        measuring.keep(samples.run(), tmp_path, made, "complete")
    assert stopped.value.code == Exit.NO_DEVICE
    assert "group" in dict(read(tmp_path)) and not is_busy(tmp_path), "the journal is whole, and let go of"


def test_a_folder_that_was_removed_while_its_run_went_on_is_made_again(tmp_path, capsys):
    folder = tmp_path / "o"
    folder.mkdir()
    made = session(folder, Scripted(whole("reference", "torch")))
    made.run()
    shutil.rmtree(folder)
    measuring.keep(samples.run(), folder, made, "complete")
    assert store.load(folder) == samples.run()
    assert "was removed while this run went on" in capsys.readouterr().err


def test_the_last_word_of_a_journal_cannot_be_written(tmp_path):
    made = session(tmp_path, Scripted(whole("reference", "torch")))
    made.run()
    full(made.journal)
    made.close("complete")
    assert not is_busy(tmp_path) and "end" not in dict(read(tmp_path))


def test_the_page_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "write_atomically", no_space)
    with pytest.raises(Stop, match=r"report\.html cannot be written") as stopped:
        reading.write_pages(samples.run(), tmp_path)
    assert stopped.value.code == Exit.NO_DEVICE


class Opened(Scripted):
    """A worker that measures the roofs of ROUND."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def ask(self, op, deadline_s, **request):
        yield from stand_in_worker.answers({"op": op, **request})


def test_roofs_are_shown_before_they_are_stored(tmp_path, monkeypatch):
    shown, worker = [], Opened()
    worker.opened |= {"roof_identity": {"device": "abc"}}
    monkeypatch.setattr(measuring, "open_worker", lambda device: worker)
    (tmp_path / "file").touch()
    monkeypatch.setattr(measuring, "CEILINGS", tmp_path / "file" / "ceilings")
    with pytest.raises(Stop, match=r"cannot be written .*not kept") as stopped:
        measuring.measure_ceilings("cpu", "quick", shown.append)
    assert stopped.value.code == Exit.NO_DEVICE and set(ROUND.ceilings) <= set(shown[0].ceilings)
    monkeypatch.setattr(measuring, "CEILINGS", tmp_path / "ceilings")
    measuring.measure_ceilings("cpu", "quick", shown.append)
    assert len(list((tmp_path / "ceilings").glob("*.json"))) == 1


@pytest.mark.parametrize("as_json", [False, True])
def test_a_self_test_is_shown_before_it_is_stored(tmp_path, monkeypatch, capsys, as_json):
    noise = Noise(machine="stand-in", when="2026-11-22T00:00:00", workers=2, rounds=6, between_runs=0.01)
    monkeypatch.setattr(self_test, "self_test", lambda device: SimpleNamespace(noise=noise))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seqroof-runs").touch()
    with pytest.raises(Stop, match=r"cannot be written .*not kept") as stopped:
        self_test.run_self_test("cpu", as_json)
    assert stopped.value.code == Exit.NO_DEVICE and "stand-in" in capsys.readouterr().out


def test_a_rank_of_a_fleet_ends_by_itself_and_no_other(tmp_path, capsys):
    made = session(tmp_path, Scripted())
    state = fleet._measured(made, full(made.journal), {"host": 0}, None, tmp_path)
    assert state == "interrupted" and "had to stop" in made.broken and "No space left" in capsys.readouterr().err
    made.close(state)
