"""What a resumed session takes up from a journal, with a worker that follows a script."""

from types import SimpleNamespace

import pytest
import stand_in_worker
from round_machine import ROUND
from scripted import Scripted, begun, session, statuses, whole
from user_kernels import GOOD, kernel_file

from seqroof.kernels import _catalog
from seqroof.profiler import supervisor
from seqroof.profiler.counting import INTERRUPTED, Counting
from seqroof.profiler.journal import Journal, read
from seqroof.profiler.request import Request
from seqroof.profiler.roofs import Roofs
from seqroof.profiler.session import Session
from seqroof.profiler.supervisor import Refused, Supervisor, WorkerDied
from seqroof.profiler.versions import code_of
from seqroof.scripts import measuring, run_folder
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


def test_progress_of_a_resumed_run_counts_what_is_left(tmp_path):
    """Groups that were measured before take no time now, so the time that is left is told without them."""
    both = [stand_in_worker.group(1), stand_in_worker.group(2)]
    first = session(tmp_path, Scripted(whole("torch", "reference"), [KeyboardInterrupt()]))
    first.groups = both
    with pytest.raises(KeyboardInterrupt):
        first.run()
    assert (first.watcher.total, first.watcher.done) == (0, 1)  # its plan was not asked for here
    first.close("interrupted")
    second = session(tmp_path, Scripted(whole("torch", "reference")), resume=True)
    second.groups = both
    second.run()
    assert (second.watcher.total, second.watcher.done) == (1, 1)
    assert len(second.points) == 4
    second.close("complete")


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


def changed(folder, before, after):
    journal = folder / "journal.jsonl"
    text = journal.read_text()
    assert before in text
    journal.write_text(text.replace(before, after, 1))


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('"code":{"k.py":"ab"}', '"code":{"k.py":"cd"}', "k.py changed since"),
        ('"code":{"k.py":"ab"}', '"code":{}', "k.py changed since"),
        (run_folder.TOOL, "seqroof 99.0", "begun by seqroof 99.0, and this is"),
    ],
)
def test_other_code_is_refused(tmp_path, before, after, says):
    made = Session(Request(), Scripted(), Reporter(quiet=True))
    made.code = {"k.py": "ab"}
    measuring.begin(made, Journal(tmp_path), resume=False)
    made.close("interrupted")
    changed(tmp_path, before, after)
    with pytest.raises(Stop, match=says) as refused:
        measuring.begin(made, Journal(tmp_path), resume=True)
    assert refused.value.code == Exit.NO_DEVICE and "--resume" in str(refused.value)


@pytest.fixture
def commits(monkeypatch):
    """A setter of the commits by which a run is begun and taken up."""

    def set_to(before, now):
        monkeypatch.setattr(measuring, "commit", lambda: before)
        monkeypatch.setattr(run_folder, "commit", lambda: now)

    return set_to


def begun_again(folder, state):
    """What is known of the beginning of a run when it is taken up after it has ended so."""
    made = Session(Request(), Scripted(), Reporter(quiet=True))
    measuring.begin(made, Journal(folder), resume=False)
    made.close(state)
    journal = Journal(folder)
    try:
        return measuring.begin(Session(Request(), Scripted(), Reporter(quiet=True)), journal, resume=True)
    finally:
        journal.close()


@pytest.mark.parametrize(
    ("before", "now", "says"),
    [
        ("a" * 40, "b" * 40, r"at commit a{12} of seqroof, and this is b{12};.*git checkout a{12}\)"),
        ("a" * 40, "a" * 40 + "+changes", "at commit a{12} of seqroof, and this is a{12} with changes"),
        ("a" * 40 + "+changes", "a" * 40, "a{12} with changes of seqroof.*, with the changes that it had then"),
    ],
)
def test_another_commit_is_refused(tmp_path, commits, before, now, says):
    commits(before, now)
    with pytest.raises(Stop, match=says) as refused:
        begun_again(tmp_path, "interrupted")
    assert refused.value.code == Exit.NO_DEVICE


@pytest.mark.parametrize(
    ("before", "now", "state"),
    [("a", "a", "interrupted"), ("", "b", "interrupted"), ("a", "", "interrupted"), ("a", "b", "complete")],
)
def test_a_run_that_is_taken_up_keeps_the_commit_that_began_it(tmp_path, commits, before, now, state):
    """Nothing can be said where a commit is unknown, and nothing is measured of a complete run."""
    commits(before, now)
    assert begun_again(tmp_path, state)["commit"] == before


@pytest.mark.parametrize(
    ("before", "after"),
    [('"clock":"host"', '"clock":"sundial"'), ('"points":[', '"marks":['), ('"status":"ok"', '"status":"ok","new":1')],
)
def test_a_journal_of_another_version_is_refused_in_a_sentence(tmp_path, before, after):
    first = session(tmp_path, Scripted(whole("reference", "torch")))
    first.run()
    first.close("interrupted")
    changed(tmp_path, before, after)
    written = (tmp_path / "journal.jsonl").read_bytes()
    made = Session(Request(), Scripted(), Reporter(quiet=True))
    with pytest.raises(Stop, match="is not as this seqroof writes it") as refused:
        measuring.begin(made, Journal(tmp_path), resume=True)
    assert refused.value.code == Exit.USAGE
    assert (tmp_path / "journal.jsonl").read_bytes() == written, "what is refused is left as it is"


def test_looks_at_the_surroundings_are_kept(tmp_path):
    first = session(tmp_path, Scripted(whole("reference", "torch")))
    first.run()
    first.close("interrupted")
    changed(tmp_path, '{"when":"before","facts":{}', '{"when":"before","facts":{"other_processes":3}')
    second = session(tmp_path, Scripted(), resume=True)
    second.run()
    second.close("complete")
    (before,) = second.surroundings.evidence([])  # the others saw nothing
    assert (before.id, before.values) == ("surroundings-before", {"other_processes": 3})
    assert [data["when"] for kind, data in read(tmp_path) if kind == "surroundings"] == [
        "before", "after", "before resuming", "after",
    ]  # fmt: skip


class Counter:
    """Counts whom it was asked to count."""

    def __init__(self):
        self.asked = []

    def add(self, group, points, seed):
        self.asked.append([point.implementation for point in points])
        return points

    def evidence(self):
        return ()


def test_cases_that_are_kept_before_their_group_ends_are_counted_too(tmp_path):
    made = session(
        tmp_path, Scripted([*whole("torch"), begun("reference", "parts"), WorkerDied("crashed", "x")], whole())
    )
    made.counting = Counter()
    made.run()
    assert made.counting.asked[0] == ["torch"]
    made.close("complete")


class CutOff(Counting):
    """Is cut off by a signal while it counts for the first time, and then counts."""

    def __init__(self, signals):
        super().__init__(SimpleNamespace(opened={"torch_device": "cpu"}), True)  # type: ignore[arg-type]
        self.signals, self.asked = signals, []

    def add(self, group, points, seed):
        self.asked.append([point.implementation for point in points])
        if self.signals:
            raise self.signals.pop()
        return points


def test_a_signal_while_counting_keeps_the_times_and_they_are_counted_when_resumed(tmp_path):
    first = session(tmp_path, Scripted(whole("reference", "torch")))
    refused = stand_in_worker.group(1) | {"refused": {"triton": "needs a GPU"}}
    refused |= {"classes": refused["classes"] | {"triton": refused["classes"]["torch"]}}
    first.groups, first.counting = [refused], CutOff([KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        first.run()
    first.close("interrupted")
    assert statuses(first) == {"triton": "skipped", "reference": "ok", "torch": "ok"}
    assert {point.counted.reason for point in first.points if point.counted} == {INTERRUPTED}
    worker, reporter = Scripted(whole("reference", "torch")), Reporter(quiet=True)
    second = Session(Request(), worker, reporter, Roofs(worker, reporter, ROUND))  # type: ignore[arg-type]
    second.groups, second.counting = [refused], CutOff([])
    journal = Journal(tmp_path)
    second.open_journal(journal, journal.take_up())
    second.run()
    second.close("complete")
    assert second.counting.asked == [["triton", "reference", "torch"]]
    assert [point.implementation for point in second.points] == ["triton", "reference", "torch"]
    assert all(point.counted is None for point in second.points), "measured anew"


def test_a_device_that_needs_a_moment_is_tried_again(monkeypatch):
    monkeypatch.setattr(supervisor, "START_PAUSE_S", 0.0)
    left = [Refused("busy", "DeviceError"), WorkerDied("crashed", "x"), None]
    asked = Supervisor("cuda:0")
    monkeypatch.setattr(asked, "start", lambda: (_ for _ in ()).throw(left.pop(0)) if left[0] else left.pop(0))
    asked.restart()
    assert left == []
    left[:] = [Refused("gone", "DeviceError")] * supervisor.START_ATTEMPTS
    with pytest.raises(Refused, match="gone"):
        asked.restart()


def test_a_kernel_is_known_by_its_file_and_what_it_loads_beside_it(tmp_path, monkeypatch):
    (tmp_path / "helper.py").write_text("SCALE = 2\n")
    (tmp_path / "unrelated.py").write_text("raise ValueError\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    file = kernel_file(tmp_path, "mine", text="import helper\n" + GOOD)
    module = _catalog.load(file.name).module  # by a relative path, as it is typed
    before = code_of([module])
    assert set(before) == {file.name, "helper.py"}, "torch.classes names a file _classes.py, which there is not"
    (tmp_path / "helper.py").write_text("SCALE = 3\n")
    after = code_of([module])
    assert after[file.name] == before[file.name] and after["helper.py"] != before["helper.py"]
