"""Kept roofs: used again only on the same machine in the same state, and never half written."""

import json
import os
import threading

import pytest
from roof_fakes import FakeSupervisor, Silent, look
from round_machine import ROUND, ceiling, point, timing

from seqroof.profiler.ceiling_store import RoofStore, machine_of
from seqroof.profiler.roofs import Roofs
from seqroof.profiler.supervisor import WorkerDied
from seqroof.roofline.catalogue import machines, measured_machine
from seqroof.roofline.machine import Machine
from seqroof.scripts import reading
from seqroof.scripts.exits import Stop

HERE = {"device": "abc", "driver": "580", "clock_hz": 1.98e9, "torch": "2.13", "threads": 2}


@pytest.fixture
def store(tmp_path):
    """A store that holds the roofs of ROUND, with a copy at 50 bytes per second."""
    made = RoofStore(tmp_path / "ceilings")
    made.keep(HERE, "quick", look(50.0), ROUND)
    return made


@pytest.mark.parametrize("now", [50.0, 47.6, 52.4])
def test_roofs_are_used_again_when_the_copy_agrees(store, now):
    found = store.find(HERE, "quick", look(now, when="2026-12-24"))
    assert {c.provenance for c in found.ceilings} == {"replayed"} and len(found.ceilings) == len(ROUND.ceilings)
    assert "used again" in found.text and "2026-12-24" in found.text
    # Both dates stand beside every value: when it was measured, and when the copy agreed.
    assert all("used again on 2026-12-24" in c.how for c in found.ceilings)


@pytest.mark.parametrize(("now", "words"), [(47.4, "5.2 % slower"), (52.6, "5.2 % faster"), (5.0, "90 % slower")])
def test_roofs_are_measured_anew_when_the_copy_disagrees(store, now, words):
    found = store.find(HERE, "quick", look(now))
    assert found.ceilings == [] and "measured anew" in found.text and words in found.text


@pytest.mark.parametrize("changed", [{name: "other"} for name in HERE] + [{"power_limit_w": 300.0}])
def test_another_device_driver_clock_or_software_has_other_roofs(store, changed):
    found = store.find(HERE | changed, "quick", look(50.0))
    assert found.ceilings == [] and found.text == ""


def test_a_device_that_cannot_be_told_from_others_shares_no_roofs(tmp_path):
    store = RoofStore(tmp_path)
    store.keep(HERE | {"device": ""}, "quick", look(50.0), ROUND)
    assert store.find(HERE | {"device": ""}, "quick", look(50.0)).ceilings == []
    assert store.find({}, "quick", look(50.0)).ceilings == []


def test_without_a_copy_on_either_side_nothing_connects_the_runs(store):
    assert "no calibration copy" in store.find(HERE, "quick", None).text
    store.keep(HERE, "quick", None, ROUND)
    assert store.find(HERE, "quick", look(50.0)).ceilings == []


def test_the_longer_effort_serves_the_shorter_and_not_the_other_way_round(store):
    assert store.find(HERE, "full", look(50.0)).ceilings == []
    store.keep(HERE, "full", look(70.0), ROUND)
    assert store.find(HERE, "full", look(70.0)).ceilings and store.find(HERE, "quick", look(70.0)).ceilings


def test_fresh_roofs_use_nothing_and_replace(store):
    fresh = RoofStore(store.folder, fresh=True)
    assert fresh.find(HERE, "quick", look(50.0)).ceilings == []
    assert "as asked" in fresh.find(HERE, "quick", look(50.0)).text


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"kind": "stored roofs"}'])
def test_a_damaged_file_is_measured_anew(store, damage):
    next(store.folder.iterdir()).write_bytes(damage)
    assert store.find(HERE, "quick", look(50.0)).ceilings == []


def test_a_file_that_was_renamed_for_another_device_is_not_believed(store):
    other = RoofStore(store.folder)
    there = HERE | {"device": "other"}
    next(store.folder.iterdir()).rename(store._file(there, "quick", ROUND.id))
    assert other.find(there, "quick", look(50.0)).ceilings == []


def test_what_the_catalogue_states_is_not_taken_for_the_devices_own(tmp_path):
    name = "NVIDIA H200"
    own = [ceiling("bandwidth", "dram", 4e12), ceiling("capacity", "cache", 6e7, unit="B", pattern="reported")]
    machine = measured_machine("x", name, "cuda", own)
    assert len(machine.ceilings) > len(own) and machine.id in machines()
    store = RoofStore(tmp_path)
    store.keep(HERE, "quick", look(50.0), machine)
    found = store.find(HERE, "quick", look(50.0)).ceilings
    assert [c.value for c in found] == [4e12, 6e7]
    assert measured_machine("x", name, "cuda", found).ceilings[2:] == machine.ceilings[2:]


def test_writers_side_by_side_leave_a_whole_file(store):
    values = [10.0, 20.0, 30.0, 40.0]
    store.keep(HERE, "quick", look(1.0), ROUND.model_copy(update={"ceilings": ROUND.ceilings[:1]}))

    def write(value):
        machine = ROUND.model_copy(update={"ceilings": (ceiling("bandwidth", "dram", value),) * 200})
        for _ in range(5):
            store.keep(HERE, "quick", look(value), machine)

    writers = [threading.Thread(target=write, args=(value,)) for value in values]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        read = json.loads(next(store.folder.glob("*.json")).read_bytes())
        assert len({entry["value"] for entry in read["machine"]["ceilings"]}) == 1
    for writer in writers:
        writer.join()
    assert len(list(store.folder.iterdir())) == 1


class Identified(FakeSupervisor):
    opened = FakeSupervisor.opened | {"roof_identity": HERE}


def test_roofs_from_the_store_cost_no_measurement_and_are_still_re_timed(store):
    again = [[ceiling("bandwidth", "dram", 130.0)]]
    roofs = Roofs(Identified([RuntimeError("measured")], again), Silent(), store=store)  # type: ignore[arg-type]
    roofs.obtain("quick", look(50.0))
    assert roofs.findings()[0].text.startswith("Roofs of 20") and not roofs.replayed
    assert roofs.look_again([], due=True)
    assert roofs.machine().best("bandwidth", "dram").value == 130.0  # type: ignore[union-attr]


def test_a_point_above_a_kept_roof_has_all_roofs_measured_anew(store):
    """Re-timing finds nothing faster, as it does not reach every limit: what beat the old roofs is then honest."""
    faster = tuple(c.model_copy(update={"value": 2 * c.value}) for c in ROUND.ceilings if c.unit == "B/s")
    rest = tuple(c for c in ROUND.ceilings if c.unit != "B/s")
    roofs = Roofs(Identified([faster + rest], [[] for _ in range(9)]), Silent(), store=store)  # type: ignore[arg-type]
    roofs.obtain("quick", look(50.0))
    assert roofs.look_again([point(timing(60.0))], due=False)
    assert {c.provenance for c in roofs.ceilings} == {"measured"} and "measured anew" in roofs.findings()[0].text
    assert len(store.find(HERE, "quick", look(50.0)).ceilings) == len(ROUND.ceilings)
    assert not roofs.look_again([point(timing(60.0))], due=False)


def test_roofs_that_are_measured_anew_in_part_keep_the_others(store):
    """The worker dies at a late part: bandwidths are new, latencies those that were kept, and so is what is stored."""
    faster = tuple(c.model_copy(update={"value": 2 * c.value}) for c in ROUND.ceilings if c.unit == "B/s")
    died = WorkerDied("hung", "no sign of life")
    roofs = Roofs(Identified([faster, died], [[] for _ in range(9)]), Silent(), store=store)  # type: ignore[arg-type]
    roofs.obtain("quick", look(50.0))
    roofs.look_again([point(timing(60.0))], due=False)
    assert len(roofs.ceilings) == len(ROUND.ceilings)
    assert {c.provenance for c in roofs.ceilings if c.unit == "B/s"} == {"measured"}
    assert {c.provenance for c in roofs.ceilings if c.unit != "B/s"} == {"replayed"}
    assert roofs.machine().best("latency", "inside") and "Not all roofs were measured" in roofs.findings()[0].text
    assert store.find(HERE, "quick", look(50.0)).ceilings[0].value == ROUND.ceilings[0].value


def test_roofs_stay_where_measuring_them_anew_gives_none(store):
    died = WorkerDied("hung", "no sign of life")
    roofs = Roofs(Identified([died], [[] for _ in range(9)]), Silent(), store=store)  # type: ignore[arg-type]
    roofs.obtain("quick", look(50.0))
    before = roofs.ceilings, roofs.origin
    roofs.look_again([point(timing(60.0))], due=False)
    assert (roofs.ceilings, roofs.origin) == before


@pytest.mark.parametrize(
    ("products", "again"),
    [([9_600.0], True), ([5_000.0, 9_000.0, 9_600.0], True), ([9_400.0, 9_300.0, 5_000.0, 9_900.0], False)],
)
def test_roofs_are_used_again_only_while_a_product_is_as_fast(store, products, again):
    """The clock of what computes may have been limited since, and the calibration copy of memory does not show it."""
    supervisor = Identified([ROUND.ceilings], products=products)
    roofs = Roofs(supervisor, Silent(), store=store)  # type: ignore[arg-type]
    roofs.obtain("quick", look(50.0))
    text = roofs.findings()[0].text
    assert ({c.provenance for c in roofs.ceilings} == {"replayed"}) is again
    assert ("used again" in text and "96 % of its roof" in text) if again else "9.40 kFLOP/s now, 10.0 kFLOP/s" in text


def test_roofs_are_kept_when_all_were_measured(tmp_path):
    store = RoofStore(tmp_path / "new")
    roofs = Roofs(Identified([ROUND.ceilings]), Silent(), store=store)  # type: ignore[arg-type]
    roofs.obtain("quick", look(50.0))
    assert roofs.findings() == () and {c.provenance for c in roofs.ceilings} == {"measured"}
    assert store.find(HERE, "quick", look(50.0)).ceilings


def test_roofs_with_a_missing_part_are_not_kept(tmp_path):
    store = RoofStore(tmp_path / "new")
    roofs = Roofs(Identified([ROUND.ceilings, WorkerDied("hung", "x")]), Silent(), store=store)  # type: ignore[arg-type]
    roofs.obtain("quick", look(50.0))
    assert roofs.ceilings and not store.folder.exists()


def test_a_folder_that_cannot_be_written_costs_no_run(tmp_path):
    (tmp_path / "file").write_text("")
    roofs = Roofs(Identified([ROUND.ceilings]), Silent(), store=RoofStore(tmp_path / "file"))  # type: ignore[arg-type]
    roofs.obtain("quick", look(50.0))
    assert roofs.ceilings == list(ROUND.ceilings)


def test_kept_roofs_can_be_shown_and_given_to_a_run(store):
    file = next(store.folder.iterdir())
    assert reading.read_machine(file) == ROUND
    assert machine_of(ROUND.model_dump()) == ROUND.model_dump()
    assert Machine.model_validate(machine_of(json.loads(file.read_bytes()))) == ROUND


def test_the_newest_roofs_of_a_device_are_shown_with_their_machine(store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "seqroof-runs" / "ceilings"
    folder.mkdir(parents=True)
    dated = tuple(roof.model_copy(update={"when": "2026-11-20T10:00:00"}) for roof in ROUND.ceilings)
    gpu = ROUND.model_copy(update={"name": "a [GPU]", "device": "cuda", "ceilings": dated})
    for age, (name, text) in enumerate(
        (("torn", "{"), ("gpu", gpu.model_dump_json()), ("cpu", ROUND.model_dump_json()))
    ):
        (folder / f"{name}.json").write_text(text)
        os.utime(folder / f"{name}.json", (1e9 - age, 1e9 - age))
    for device, first in (("auto", "a [GPU], measured 2026-11-20"), ("cuda:1", "a [GPU]"), ("cpu", "round numbers")):
        reading.show_ceilings(False, device)
        told = capsys.readouterr()
        assert told.out.startswith(first) and "torn.json holds neither" in " ".join(told.err.split())
    (folder / "gpu.json").unlink()
    with pytest.raises(Stop, match="of cuda were measured here yet; run `seqroof ceilings --device cuda`"):
        reading.show_ceilings(False, "cuda")


def test_the_doctor_names_the_roofs_that_are_kept(store, tmp_path, monkeypatch):
    from seqroof.scripts import asking, measuring

    monkeypatch.setattr(measuring, "CEILINGS", store.folder)
    store.keep(HERE | {"device": "later"}, "full", look(50.0), ROUND.model_copy(update={"name": "the later one"}))
    for file in store.folder.glob("*quick.json"):
        file.write_bytes(file.read_bytes().replace(b'"created": "20', b'"created": "19'))
    finding = asking._kept_roofs()
    assert "the later one" in finding.detail and "full effort" in finding.detail and "5.0 %" in finding.detail
    monkeypatch.setattr(measuring, "CEILINGS", tmp_path / "absent")
    assert "none are kept" in asking._kept_roofs().detail
