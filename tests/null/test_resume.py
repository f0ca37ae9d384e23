"""What a resumed session takes up from a journal, with a worker that follows a script."""

import pytest
from scripted import Scripted, begun, session, statuses, whole

from seqroof.profiler.journal import Journal, read
from seqroof.profiler.request import Request
from seqroof.profiler.session import Session
from seqroof.profiler.supervisor import WorkerDied
from seqroof.scripts import measuring
from seqroof.scripts.exits import Exit, Stop
from seqroof.scripts.progress import Reporter


def test_a_case_that_failed_before_an_interruption_is_not_run_again(tmp_path):
    hung = [begun("torch"), WorkerDied("hung", "no sign of life")]
    first = session(tmp_path, Scripted([begun("reference"), *hung], [begun("reference"), KeyboardInterrupt()]))
    with pytest.raises(KeyboardInterrupt):
        first.run()
    assert statuses(first) == {"torch": "hung"} and first.supervisor.asked[1] == ("reference",)
    first.close("interrupted")
    second = session(tmp_path, Scripted(whole("reference")), resume=True)
    second.run()
    second.close("complete")
    assert second.supervisor.asked == [("reference",)]
    assert statuses(second) == {"torch": "hung", "reference": "ok"}
    third = session(tmp_path, Scripted(), resume=True)
    third.run()
    assert third.supervisor.asked == [] and len(third.points) == 2
    assert third.earlier_s == pytest.approx(sum(d["session_s"] for kind, d in read(tmp_path) if kind == "end"))
    third.close("complete")


def test_what_is_known_of_a_group_outlives_a_device_that_does_not_come_back(tmp_path):
    made = session(tmp_path, Scripted([begun("torch"), WorkerDied("crashed", "SIGSEGV")], "no worker"))
    with pytest.raises(WorkerDied, match="gone"):
        made.run()
    made.close("interrupted")
    assert [data["points"][0]["status"] for kind, data in read(tmp_path) if kind == "cases"] == ["crashed"]


def test_a_deadline_that_was_set_is_the_one_that_counts(tmp_path):
    made = session(tmp_path, Scripted())
    group, runs = made.groups[0], made.runs
    assert runs.silence_s(group, ["torch"]) == pytest.approx(90, abs=0.1)
    assert runs.silence_s(group, ["compile"]) == pytest.approx(300, abs=0.1)
    large = group | {"work": group["work"] | {"depth": 100_000, "flops": 5e12}}
    assert runs.silence_s(large, ["torch"]) == pytest.approx(90 + 1000 + 100, abs=0.1)
    made.request.deadline_s = 2.0
    assert runs.silence_s(large, ["compile"]) == 2.0
    two_and_eight = 10 * 2.0  # two steps for the group, eight for its case
    assert runs.most_s(group, ["torch"], {"budget_s": 1.0, "rounds": None}) == two_and_eight + 8.0
    made.close("complete")


@pytest.mark.parametrize(
    ("change", "code"),
    [(('"seed":0', '"seed":1'), Exit.USAGE), (('"threads":1', '"threads":2'), Exit.NO_DEVICE)],
)
def test_another_request_or_machine_is_refused(tmp_path, change, code):
    session(tmp_path, Scripted()).close("interrupted")
    journal = tmp_path / "journal.jsonl"
    journal.write_text(journal.read_text().replace(*change, 1))
    with pytest.raises(Stop) as refused:
        session(tmp_path, Scripted(), resume=True)
    assert refused.value.code == code


def test_a_run_that_is_replaced_leaves_nothing_beside_the_new_journal(tmp_path):
    for resume, left in ((True, True), (False, False)):
        made = Session(Request(), Scripted(), Reporter(quiet=True))
        session(tmp_path, Scripted()).close("interrupted")
        (tmp_path / "run.json").write_text("{}")
        measuring.begin(made, Journal(tmp_path), resume)
        assert (tmp_path / "run.json").exists() is left
        made.close("complete")


def test_a_journal_from_before_threads_were_written_down_is_taken_up(tmp_path):
    session(tmp_path, Scripted()).close("interrupted")
    journal = tmp_path / "journal.jsonl"
    journal.write_text(journal.read_text().replace(',"threads":1', "", 1))
    session(tmp_path, Scripted(), resume=True).close("complete")
