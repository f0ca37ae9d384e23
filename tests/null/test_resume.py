"""What a resumed session takes up from a journal, with a worker that follows a script."""

import pytest
import stand_in_worker
from round_machine import ROUND

from seqroof.profiler.journal import Journal, read
from seqroof.profiler.request import Request
from seqroof.profiler.roofs import Roofs
from seqroof.profiler.session import Session
from seqroof.profiler.supervisor import WorkerDied
from seqroof.scripts import measuring
from seqroof.scripts.exits import Exit, Stop
from seqroof.scripts.progress import Reporter


class Scripted:
    """Answers each request for a group with the next entry: events, or an exception to raise."""

    interpret = False

    def __init__(self, *script):
        self.script = list(script)
        self.asked = []
        self.opened = next(iter(stand_in_worker.answers({"op": "open"})))
        self.restarts = 0

    def ask(self, op, deadline_s, most_s=None, **request):
        self.asked.append(tuple(request["implementations"]))
        for event in self.script.pop(0):
            if isinstance(event, BaseException):
                raise event
            yield event

    def one(self, op, deadline_s, wanted, **request):
        answers = stand_in_worker.answers({"op": op, **request})
        return next((event for event in answers if event["event"] == wanted), {})

    def restart(self):
        self.restarts += 1
        if self.script and self.script[0] == "no worker":
            raise WorkerDied("crashed", "the device is gone")


def begun(name, stage="check"):
    return {"event": "begin", "implementation": name, "stage": stage}


def whole(*names):
    request = {"op": "group", "implementations": list(names)}
    return list(stand_in_worker.answers(request))


def session(folder, supervisor, resume=False):
    reporter = Reporter(quiet=True)
    made = Session(Request(), supervisor, reporter, Roofs(supervisor, reporter, ROUND))
    made.groups = [stand_in_worker.group(1)]
    journal = Journal(folder)
    made.open_journal(journal, measuring.earlier_events(journal, made) if resume else [])
    return made


def statuses(made):
    return {point.implementation: point.status for point in made.points}


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
    assert made._silence_s(["torch"]) == 90 and made._silence_s(["compile"]) == 300
    made.request.deadline_s = 2.0
    assert made._silence_s(["compile"]) == 2.0
    assert (
        made._most_s(["torch"], {"budget_s": 1.0, "rounds": None}) == 10 * 2.0 + 8.0
    )  # two for the group, eight for its case
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
