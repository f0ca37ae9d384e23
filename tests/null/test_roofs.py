"""The roofs of a run: measured in parts, doubted when a point beats them, never touched when replayed."""

import pytest
from roof_fakes import FakeSupervisor, Silent
from round_machine import ROUND, ceiling, point, timing

from seqroof.profiler.roofs import MOST_DOUBTS, Roofs
from seqroof.profiler.supervisor import WorkerDied


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
