"""The journal: durable lines, a torn end tolerated, damage elsewhere refused."""

import pytest

from seqroof.profiler.journal import Journal, JournalError, read


def test_events_come_back_in_order(tmp_path):
    journal = Journal(tmp_path, append=False)
    journal.write("header", {"a": 1})
    journal.write("group", [1, 2])
    assert read(tmp_path) == [("header", {"a": 1}), ("group", [1, 2])]  # readable before it is closed
    journal.close()


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_a_torn_last_line_costs_only_itself(tmp_path, cut):
    journal = Journal(tmp_path, append=False)
    journal.write("header", {})
    journal.write("group", {"key": "k"})
    journal.close()
    content = journal.path.read_bytes()
    journal.path.write_bytes(content[:-cut])
    assert read(tmp_path) == [("header", {})]
    again = Journal(tmp_path, append=True)
    again.write("group", {"key": "l"})
    again.close()
    assert read(tmp_path) == [("header", {}), ("group", {"key": "l"})]


def test_damage_in_the_middle_is_refused(tmp_path):
    (tmp_path / "journal.jsonl").write_text('{"kind":"header","data":{}}\ngarbage\n{"kind":"group","data":{}}\n')
    with pytest.raises(JournalError, match="line 2"):
        read(tmp_path)


def test_a_missing_journal_is_refused(tmp_path):
    with pytest.raises(JournalError, match="leave out --resume"):
        read(tmp_path)
