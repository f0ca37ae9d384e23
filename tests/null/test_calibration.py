"""The calibration copy: what it moved, what it says about roof and counters, and when a run takes it."""

import json
import os
import subprocess
import sys

import pytest
from roof_fakes import look
from round_machine import ROUND, ceiling

from seqroof.profiler.calibration import Calibration
from seqroof.profiler.supervisor import Supervisor, WorkerDied
from seqroof.roofline import calibration

ROOF = ceiling("bandwidth", "dram", 50.0, pattern="copy", low=45.0, high=50.0)
MACHINE = ROUND.model_copy(update={"ceilings": (ROOF,)})


@pytest.mark.parametrize(
    ("bandwidth", "width", "off"),
    [
        (47.0, 0.0, 0.0),
        (50.9, 0.0, 0.0),  # above the roof by less than the tolerance
        (44.2, 0.0, 0.0),
        (40.0, 0.2, 0.0),  # its interval reaches up to 44.4
        (40.0, 0.0, 40 / 44.1 - 1),
        (60.0, 0.0, 60 / 51 - 1),
    ],
)
def test_copy_and_roof_disagree_beyond_both_intervals(bandwidth, width, off):
    assert calibration.disagreement(look(bandwidth, width), ROOF) == pytest.approx(off)


def said(looks, machine=MACHINE):
    (found,) = calibration.findings(looks, machine)
    return found.text


def test_a_disagreement_is_said_in_words_and_an_agreement_too():
    fine, slow, fast = look(48.0), look(30.0), look(80.0)
    assert "agrees with the same copy among the roofs, 50.0 B/s (measured)" in said({"start": fine, "end": fine})
    text = said({"start": fine, "end": slow})
    assert "DISAGREES" in text and "below it at the end" in text and "at the start," not in text.split("DISAGREES")[1]
    assert "above it at the start" in said({"start": fast})
    assert "no copy roof is known" in said({"start": fine}, MACHINE.model_copy(update={"ceilings": ()}))


@pytest.mark.parametrize(
    ("counted", "words"), [(1015, "within 2.0 %"), (985, "within 2.0 %"), (1030, "3.0 % more"), (880, "12 % fewer")]
)
def test_counted_bytes_are_held_against_known_ones(counted, words):
    probe = calibration.Probe(read_bytes=1000, counted_bytes=counted)
    (found,) = calibration.findings({"start": look(48.0)}, MACHINE, probe)
    assert words in found.text and ("DISAGREE" in found.text) == (abs(counted - 1000) > 20)
    assert "counters" not in said({"start": look(48.0)})
    (entry,) = calibration.evidence({"start": look(48.0)}, MACHINE, probe)
    assert (entry.values["probe_read_bytes"], entry.values["probe_counted_bytes"]) == (1000, counted)


def test_a_look_of_an_earlier_version_is_still_understood():
    old = look(48.0).model_dump() | {"counted_bytes": None, "uncounted": "no hardware counter was asked"}
    assert calibration.Look.model_validate(old) == look(48.0)


def test_the_same_operation_among_the_roofs_is_what_the_copy_is_held_against():
    same = ROOF.model_copy(update={"value": 40.0, "low": 38.0, "high": 40.0, "scope": "calibration"})
    assert calibration.copy_roof(MACHINE) == ROOF
    assert calibration.copy_roof(MACHINE.model_copy(update={"ceilings": (ROOF, same)})) == same


def test_a_copy_that_may_stay_in_the_cache_says_so():
    assert "only 2.0 times the reported last cache" in said({"start": look(48.0, cache_bytes=500)})


def test_the_record_holds_bytes_bandwidth_and_roof():
    (entry,) = calibration.evidence({"end": look(40.0), "start": look(47.0)}, MACHINE)
    assert entry.id == "calibration-copy" and "counted" not in entry.how
    assert entry.values["start_moved_bytes"] == 1000 and entry.values["probe_counted_bytes"] is None
    assert entry.values["start_bytes_per_s"] == pytest.approx(47.0) and entry.values["roof_bytes_per_s"] == 50.0
    assert entry.values["start_from_roof"] == 0.0 and entry.values["end_from_roof"] == pytest.approx(40 / 44.1 - 1)
    assert calibration.evidence({}, MACHINE) == () and calibration.findings({}, MACHINE) == ()


class FakeSupervisor:
    """Answers `calibrate` with prepared looks; an exception among them is raised."""

    def __init__(self, *answers):
        self.answers, self.starts = list(answers), 0

    def restart(self):
        self.starts += 1

    def one(self, op, deadline_s, wanted):
        assert (op, wanted) == ("calibrate", "calibrated")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {"look": answer.model_dump()}


def test_each_look_is_taken_and_journalled_once():
    written = []
    kept = Calibration(FakeSupervisor(look(48.0), look(47.0)))  # type: ignore[arg-type]
    for when in ("start", "start", "end"):
        kept.look(when, lambda kind, data: written.append((kind, json.loads(json.dumps(data)))))
    assert [(kind, data["when"]) for kind, data in written] == [("calibration", "start"), ("calibration", "end")]
    resumed = Calibration(FakeSupervisor())  # type: ignore[arg-type]
    for _, data in written:
        resumed.recall(data)
    resumed.look("end")
    assert resumed.looks == kept.looks


def test_a_death_at_the_copy_costs_the_copy_only():
    supervisor = FakeSupervisor(WorkerDied("oom", "killed"), look(48.0))
    kept = Calibration(supervisor)  # type: ignore[arg-type]
    kept.look("start")
    assert kept.looks == {} and supervisor.starts == 1
    kept.look("end")
    assert list(kept.looks) == ["end"]


@pytest.fixture
def copies(monkeypatch):
    """The worker's side, with arrays of 1 MiB."""
    pytest.importorskip("torch")
    from seqroof.profiler import calibration_copy

    monkeypatch.setattr(calibration_copy, "MOST_BYTES", {"cpu": 2**20})
    return calibration_copy


def test_the_modelled_bytes_are_those_of_the_arrays_that_were_copied(copies, monkeypatch):
    import torch

    from seqroof.profiler.devices import CpuDevice

    seen, plain = set(), torch.Tensor.copy_

    def watched(target, source, *more):
        seen.add(source.nbytes + target.nbytes)
        return plain(target, source, *more)

    monkeypatch.setattr(torch.Tensor, "copy_", watched)
    taken = copies.timed_copy(CpuDevice())
    assert seen == {taken.moved_bytes} == {2 * 2**20}
    assert (taken.clock, taken.time_s.rounds) == ("host", 6)


def test_a_copy_that_did_not_happen_is_no_calibration(copies, monkeypatch):
    import torch

    from seqroof.profiler.devices import CpuDevice

    monkeypatch.setattr(torch.Tensor, "copy_", lambda target, source, *more: target)
    with pytest.raises(RuntimeError, match="does not hold the source"):
        copies.timed_copy(CpuDevice())


def test_arrays_exceed_the_cache_as_far_as_memory_allows():
    copies = pytest.importorskip("seqroof.profiler.calibration_copy", exc_type=ImportError)
    assert copies.array_bytes("cpu", 32 * 2**20, 2**40) == 64 * 2**20
    assert copies.array_bytes("cpu", 480 * 2**20, 2**40) == 256 * 2**20
    assert copies.array_bytes("cpu", 384 * 2**20, 2**40, threads=96) == 768 * 2**20
    assert copies.array_bytes("cuda", 60 * 2**20, 2**40) == 512 * 2**20
    assert copies.array_bytes("cpu", 32 * 2**20, 2**23) == 2**20


def test_a_worker_times_the_copy_and_says_what_roofs_depend_on():
    pytest.importorskip("torch")
    with Supervisor("cpu") as supervisor:
        kept = Calibration(supervisor)
        kept.look("start")
        assert kept.looks["start"].moved_bytes >= 2**20 and kept.looks["start"].bytes_per_s > 0
        identity = supervisor.opened["roof_identity"]
    assert {"device", "torch", "threads", "nodes", "clock_hz"} <= set(identity)
    assert os.uname().nodename not in json.dumps(identity)


def test_the_parent_side_needs_no_torch():
    code = "import sys, seqroof.profiler.calibration, seqroof.profiler.ceiling_store; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
