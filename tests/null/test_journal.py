"""The journal: durable lines, a torn end tolerated, damage elsewhere refused, one writer at a time."""

import os
import subprocess
import sys

import pytest

from seqroof.profiler.journal import Busy, Journal, JournalError, is_busy, read


def test_events_come_back_in_order(tmp_path):
    journal = Journal(tmp_path)
    journal.write("header", {"a": 1})
    journal.write("group", [1, 2])
    assert read(tmp_path) == [("header", {"a": 1}), ("group", [1, 2])]  # readable before it is closed
    journal.close()


@pytest.mark.parametrize("cut", range(1, len('{"kind":"group","data":{"key":"k"}}\n')))
def test_a_torn_last_line_costs_only_itself(tmp_path, cut):
    journal = Journal(tmp_path)
    journal.write("header", {})
    journal.write("group", {"key": "k"})
    journal.close()
    content = journal.path.read_bytes()
    journal.path.write_bytes(content[:-cut])
    again = Journal(tmp_path)
    assert again.take_up() == [("header", {})]
    again.write("group", {"key": "l"})
    again.close()
    assert read(tmp_path) == [("header", {}), ("group", {"key": "l"})]


@pytest.mark.parametrize("content", [b"", b'{"kind":"hea'])
def test_a_journal_that_ended_before_its_first_line_is_empty(tmp_path, content):
    (tmp_path / "journal.jsonl").write_bytes(content)
    journal = Journal(tmp_path)
    assert journal.take_up() == []
    journal.write("header", {})
    journal.close()
    assert read(tmp_path) == [("header", {})]


def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path):
    hold = "import sys, pathlib; from seqroof.profiler.journal import Journal; j = Journal(pathlib.Path(sys.argv[1]))"
    wait = "j.write('header', {}); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", f"{hold}; {wait}", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        assert is_busy(tmp_path)
        with pytest.raises(Busy, match="Another process"):
            Journal(tmp_path)
        assert read(tmp_path) == [("header", {})]  # reading is free
        other.kill()
    assert not is_busy(tmp_path)
    Journal(tmp_path).close()


def test_a_full_disk_is_said_in_a_sentence(tmp_path):
    journal = Journal(tmp_path)
    journal.write("header", {})
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._file.fileno())
    os.close(full)
    with pytest.raises(JournalError, match="No space left"):
        journal.write("group", {"key": "k"})
    journal.close()
    assert read(tmp_path) == [("header", {})]


def test_damage_in_the_middle_is_refused(tmp_path):
    (tmp_path / "journal.jsonl").write_text('{"kind":"header","data":{}}\ngarbage\n{"kind":"group","data":{}}\n')
    with pytest.raises(JournalError, match="line 2"):
        read(tmp_path)


def test_a_missing_journal_is_refused(tmp_path):
    with pytest.raises(JournalError, match="leave out --resume"):
        read(tmp_path)
