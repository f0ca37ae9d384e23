"""The roofs of a run: measured in parts, doubted when a point beats them, never touched when replayed."""

from types import SimpleNamespace

import pytest
from roof_fakes import FakeSupervisor, Silent
from round_machine import ROUND, ceiling, point, timing

from seqroof.profiler.roofs import MOST_DOUBTS, Roofs
from seqroof.profiler.supervisor import Refused, WorkerDied
from seqroof.scripts import measuring
from seqroof.scripts.exits import Exit, Stop


def measured(supervisor):
    roofs = Roofs(supervisor, Silent())
    roofs.measure("quick")
    return roofs


def test_a_death_at_a_late_part_costs_that_part_only():
    supervisor = FakeSupervisor([ROUND.ceilings, WorkerDied("hung", "a barrier")])
    assert measured(supervisor).ceilings == list(ROUND.ceilings) and supervisor.starts == 1


def test_a_death_before_anything_is_known_is_raised():
    with pytest.raises(WorkerDied):
        measured(FakeSupervisor([WorkerDied("hung", "at once")]))


HUNG = WorkerDied("hung", "no sign of life for 45 s; ended")


def test_a_run_says_that_roofs_are_missing_and_at_what_the_worker_died():
    (found,) = measured(FakeSupervisor([ROUND.ceilings, "barrier of 8 programs", HUNG])).findings()
    assert "Not all roofs were measured" in found.text
    assert "barrier of 8 programs" in found.text and "no sign of life for 45 s" in found.text
    assert measured(FakeSupervisor([ROUND.ceilings])).findings() == ()


class Opened(FakeSupervisor):
    """A worker as the command opens it; it makes no calibration copy."""

    opened = FakeSupervisor.opened | {"roof_identity": {"device": "abc"}}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def one(self, op, silence_s, wanted, **request):
        return {}


class Irreplaceable(Opened):
    def restart(self):
        raise Refused("the device is gone", "device")


@pytest.fixture
def command(tmp_path, monkeypatch):
    """`seqroof ceilings` with a worker of the test's; what it keeps and what it has shown."""
    monkeypatch.setattr(measuring, "CEILINGS", tmp_path / "ceilings")
    shown = []

    def run(worker):
        monkeypatch.setattr(measuring, "open_worker", lambda device: worker)
        measuring.measure_ceilings("cpu", "quick", shown.append)

    return SimpleNamespace(run=run, shown=shown, kept=tmp_path / "ceilings")


@pytest.mark.parametrize("worker", [Opened, Irreplaceable])
def test_the_command_shows_roofs_that_are_not_all_and_keeps_none(command, capsys, worker):
    with pytest.raises(Stop, match=r"not kept.* missing") as stopped:
        command.run(worker([ROUND.ceilings, HUNG]))
    assert stopped.value.code == Exit.CASE_FAILED and not command.kept.exists()
    assert command.shown[0].ceilings == ROUND.ceilings and "Not all roofs" in capsys.readouterr().err


def test_the_command_ends_with_a_sentence_where_no_roof_was_measured(command):
    with pytest.raises(Stop, match=r"No roof was measured.* no sign of life") as stopped:
        command.run(Opened([HUNG]))
    assert stopped.value.code == Exit.NO_DEVICE and command.shown == []


def test_the_command_keeps_roofs_that_are_all(command):
    command.run(Opened([ROUND.ceilings]))
    assert len(list(command.kept.glob("*.json"))) == 1 and len(command.shown) == 1


def test_a_point_that_beats_a_roof_makes_it_look_again_until_it_is_cleared():
    faster = [ceiling("bandwidth", "dram", 110.0)], [ceiling("bandwidth", "dram", 130.0)]
    roofs = measured(FakeSupervisor([ROUND.ceilings], faster))
    assert roofs.look_again([point(timing(80.0, 0.01))], due=False)
    assert roofs.machine().best("bandwidth", "dram").value == 130.0 and not roofs.supervisor.again


def test_an_impossible_point_is_doubted_only_so_often():
    slow = [[ceiling("bandwidth", "dram", 100.0)] for _ in range(MOST_DOUBTS + 5)]
    roofs = measured(FakeSupervisor([ROUND.ceilings], slow))
    roofs.look_again([point(timing(1.0))], due=False)
    assert len(roofs.supervisor.again) == 5


def test_an_honest_point_costs_no_second_look():
    roofs = measured(FakeSupervisor([ROUND.ceilings]))
    assert not roofs.look_again([point(timing(200.0))], due=False)


def test_known_roofs_are_replayed_and_never_re_timed():
    reported = ceiling("capacity", "private", 9.0, unit="B", pattern="reported").model_copy(
        update={"provenance": "derived"}
    )
    roofs = Roofs(FakeSupervisor(), Silent(), known=ROUND.model_copy(update={"ceilings": (*ROUND.ceilings, reported)}))
    assert [made.provenance for made in roofs.ceilings] == ["replayed"] * len(ROUND.ceilings) + ["derived"]
    assert not roofs.look_again([point(timing(1.0))], due=True)


@pytest.mark.parametrize(("kind", "longest_s"), [("cpu", 120), ("cuda", 45)])
def test_a_silent_gpu_counts_as_hung_sooner_than_a_busy_processor(kind, longest_s):
    asked = []

    class Asked(FakeSupervisor):
        opened = FakeSupervisor.opened | {"kind": kind}

        def ask(self, op, silence_s, **request):
            asked.append(silence_s)
            return super().ask(op, silence_s, **request)

    measured(Asked([ROUND.ceilings]))
    assert asked == [longest_s]
