"""Checking with several workers: every group once, in the order of the plan, whatever happens to a worker."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from seqroof.profiler.stages import REFERENCE
from seqroof.profiler.supervisor import Refused, WorkerDied
from seqroof.profiler.verification import Verification
from seqroof.roofline.work import Work

PASSED = {"passed": True, "max_error": 0.0, "rms_error": 0.0, "allowed_max": 1.0, "allowed_rms": 1.0, "detail": ""}
CLASS = {"weights": "reread", "chain": "launch", "launches": 1, "hoists": False, "depth": None, "compiler": {}}


def group(index: int, *names: str) -> dict[str, Any]:
    return {
        "source": "k",
        "kernel": "k",
        "kind": "cpu",
        "shape": {"B": index},
        "dtype": "fp32",
        "direction": "forward",
        "implementations": list(names),
        "refused": {"triton_other": "not here", "torch_other": "nor here"},
        "work": Work(terms=()).model_dump(mode="json"),
        "sequence": False,
        "padding_waste": None,
        "receptive_field": None,
        "classes": {name: CLASS for name in (*names, "triton_other", "torch_other")},
    }


class FakeSupervisor:
    def __init__(self) -> None:
        self.starts, self.killed = 0, threading.Event()

    def restart(self) -> None:
        self.starts += 1

    def kill(self) -> None:
        self.killed.set()


class FakeSession:
    """Checks every implementation, unless `does` says something else of a name: raise it, or call it."""

    def __init__(self, **does: Any) -> None:
        self.supervisor, self.does = FakeSupervisor(), does
        self.runs = SimpleNamespace(ask=self.ask)
        self.watcher = SimpleNamespace(finished=lambda index, points: None)
        self.seen: list[int] = []

    def ask(self, index: int, group: dict[str, Any], names: list[str], options: dict[str, Any]) -> Any:
        self.seen.append(index)
        for name in (REFERENCE, *names):
            stage, shown = ("check", name) if name in names else (REFERENCE, "")
            yield {"event": "begin", "implementation": shown, "stage": stage}
            action = self.does.get(name)
            if isinstance(action, Exception):
                raise action
            if action is not None:
                action(self)
            if name in names:
                yield {"event": "checked", "implementation": name, "correctness": PASSED}


def run(sessions: list[FakeSession], groups: list[dict[str, Any]], **how: Any) -> list[tuple[int, str, str]]:
    points = Verification(sessions, groups, **how).run()  # type: ignore[arg-type]
    return [(point.shape["B"], point.implementation, point.status) for point in points]


def test_every_group_is_checked_once_and_in_order() -> None:
    sessions = [FakeSession(), FakeSession(), FakeSession()]
    found = run(sessions, [group(index, "triton", "torch") for index in range(20)], only="triton")
    assert found == [row for B in range(20) for row in ((B, "triton_other", "skipped"), (B, "triton", "ok"))]
    assert sorted(index for session in sessions for index in session.seen) == list(range(20))


def test_a_death_costs_the_row_at_fault_and_the_rest_goes_on() -> None:
    session = FakeSession(bad=WorkerDied("crashed", "SIGSEGV"))
    found = run([session], [group(0, "good", "bad", "late"), group(1, "good")])
    assert [row for row in found if row[2] != "skipped"] == [
        (0, "good", "ok"),
        (0, "bad", "crashed"),
        (0, "late", "ok"),
        (1, "good", "ok"),
    ]
    assert session.supervisor.starts == 1


def test_a_reference_that_dies_is_blamed_once_for_all_rows() -> None:
    """Also where one of the rows is called `reference`: that is an implementation like any other."""
    session = FakeSession(**{REFERENCE: WorkerDied("oom", "killed")})
    found = run([session], [group(0, "reference", "two")])
    assert [row for row in found if row[2] != "skipped"] == [(0, "reference", "oom"), (0, "two", "oom")]
    assert session.supervisor.starts == 1


@pytest.mark.parametrize(("deaths", "status"), [(1, "ok"), (9, "oom")])
def test_a_group_that_lacked_memory_beside_others_is_checked_once_more_alone(deaths: int, status: str) -> None:
    seen: list[str] = []

    def large(session: FakeSession) -> None:
        seen.append("large")
        if seen.count("large") <= deaths:
            raise WorkerDied("oom", "killed")

    sessions = [FakeSession(large=large, small=lambda session: seen.append("small")) for _ in range(2)]
    found = run(sessions, [group(0, "large"), *(group(index, "small") for index in range(1, 9))])
    checked = [row for row in found if row[2] != "skipped"]
    assert checked == [(0, "large", status), *((index, "small", "ok") for index in range(1, 9))]
    assert seen.count("large") == 2 and seen[-1] == "large", "the second time behind all others"


@pytest.mark.parametrize("failure", [Refused("no such device", "plan"), KeyboardInterrupt()])
def test_an_error_in_one_worker_ends_the_others_at_once(failure: BaseException) -> None:
    """The second worker is in the middle of a group that would never end by itself."""
    waiting = threading.Event()

    def until_killed(session: FakeSession) -> None:
        waiting.set()
        assert session.supervisor.killed.wait(20), "nobody ended this worker"
        raise WorkerDied("crashed", "ended")

    def fail(session: FakeSession) -> None:
        assert waiting.wait(20)
        raise failure

    sessions = [FakeSession(endless=until_killed), FakeSession(broken=fail)]
    # Whoever takes a group does what its name says to this worker.
    for session, other in zip(sessions, reversed(sessions)):
        session.does |= {name: action for name, action in other.does.items() if name not in session.does}
    with pytest.raises(type(failure)):
        run(sessions, [group(0, "endless"), group(1, "broken"), *(group(index, "good") for index in range(2, 9))])
    assert all(session.supervisor.killed.is_set() for session in sessions)


def test_who_brought_a_worker_down_that_cannot_be_replaced_is_kept() -> None:
    session = FakeSession(bad=WorkerDied("crashed", "SIGSEGV"))
    session.supervisor.restart = lambda: fail(Refused("the device is gone", "DeviceError"))  # type: ignore[method-assign]
    check = Verification([session], [group(0, "good"), group(1, "good", "bad", "late"), group(2, "good")])  # type: ignore[list-item]
    with pytest.raises(Refused, match="gone"):
        check.run()
    found = [(point.shape["B"], point.implementation, point.status) for point in check.points]
    assert [row for row in found if row[2] != "skipped"] == [
        (0, "good", "ok"),
        (1, "good", "ok"),
        (1, "bad", "crashed"),
    ]


def test_a_death_when_all_rows_are_known_blames_nobody() -> None:
    session = FakeSession(last=lambda session: None)

    def ask(*request: Any) -> Any:
        yield from FakeSession.ask(session, *request)
        raise WorkerDied("crashed", "SIGSEGV")

    session.runs = SimpleNamespace(ask=ask)
    assert [row for row in run([session], [group(0, "good")]) if row[2] != "skipped"] == [(0, "good", "ok")]
    assert session.supervisor.starts == 1


def fail(error: Exception) -> None:
    raise error
