"""Several devices at once: ranking and stragglers, merging of journals, and a real fleet that loses worker and rank."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import samples
from round_machine import ROUND, point, timing
from typer.main import get_command
from user_kernels import GOOD

from seqroof.profiler.journal import Journal, read
from seqroof.roofline import export, fleet, page, store, table
from seqroof.roofline._seen import run_text
from seqroof.roofline.diagnoses import warn
from seqroof.roofline.record import DeviceRun, Evidence, Observation
from seqroof.roofline.telemetry import Spread, Telemetry
from seqroof.scripts import fleet as fleet_script
from seqroof.scripts import merging
from seqroof.scripts.exits import Exit, Stop
from seqroof.scripts.fleet import device_for, share_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fleet.md"


def device(rank, state="complete", machine=ROUND, **more):
    return DeviceRun(rank=rank, state=state, machine=machine, **more)


def points_of(rank, factor, width=0.01, shapes=range(1, 6), **more):
    return [point(timing(batch * factor, width), shape={"B": batch}, device=rank, **more) for batch in shapes]


def flat(lists):
    return [found for members in lists for found in members]


def test_a_device_that_is_slower_than_its_kind_is_a_straggler():
    points = flat(points_of(rank, factor) for rank, factor in enumerate((1.0, 1.004, 1.2, 0.997)))
    found = {d.rank: d for d in fleet.ranked([device(rank) for rank in range(4)], points)}
    assert [rank for rank, d in found.items() if d.straggler] == [2]
    assert found[2].relative_time.value == pytest.approx(1.2, rel=0.01)
    assert found[2].relative_time.low < 1.2 < found[2].relative_time.high and found[2].common_points == 5
    assert found[0].relative_time.value == 1.0  # of four the second fastest is the middle


@pytest.mark.parametrize(
    ("factor", "width", "straggles"), [(1.015, 0.001, False), (1.03, 0.001, True), (1.03, 0.03, False)]
)
def test_only_an_interval_beyond_the_band_makes_a_straggler(factor, width, straggles):
    points = points_of(0, 1.0, width) + points_of(1, factor, width)
    assert fleet.ranked([device(0), device(1)], points)[1].straggler is straggles


def test_devices_are_compared_over_what_they_have_in_common_and_with_their_own_model():
    other = ROUND.model_copy(update={"id": "other"})
    devices = [device(0), device(1, state="lost"), device(2, machine=other), device(3, machine=None)]
    points = points_of(0, 1.0) + points_of(1, 1.0, shapes=[2, 9]) + points_of(2, 5.0)
    found = fleet.ranked(devices, points)
    assert [d.common_points for d in found][:2] == [1, 5] or [d.common_points for d in found][:2] == [5, 1]
    assert found[2].relative_time is None and found[3].relative_time is None


def test_invalid_and_failed_points_are_not_compared():
    points = points_of(0, 1.0) + points_of(1, 1.0, shapes=[1, 2]) + points_of(1, 9.0, shapes=[3, 4], status="invalid")
    assert not any(d.straggler for d in fleet.ranked([device(0), device(1)], points))


def one(value):
    return Spread.of([value])


def test_telemetry_that_differs_is_told():
    slow = Telemetry(clock_hz=one(1.2e9), throttle={"sw power cap": 0.5}, temperature_c=one(61.0))
    usual = Telemetry(clock_hz=one(1.98e9), temperature_c=one(60.5))
    points = flat(points_of(rank, 1.0, telemetry=usual) for rank in (0, 1)) + points_of(2, 1.5, telemetry=slow)
    devices = fleet.ranked([device(rank) for rank in range(3)], points)
    told = next(o for o in fleet.fleet_observations(devices, points) if o.id == "straggler device 2")
    assert "clock_hz 1.20 G beside 1.98 G" in told.text and "throttle sw power cap" in told.text
    assert "temperature" not in told.text and told.numbers["relative_time"] == pytest.approx(1.5)


def test_a_fleet_is_shown_everywhere():
    single = samples.run()
    parts = [fleet.Part(device(rank, machine=single.machine), single) for rank in range(2)]
    parts.append(fleet.Part(device(2, "lost", None, reason="it left <b>no</b> journal"), None))
    run = fleet.merge(parts, "seqroof")
    assert run.state == "interrupted" and len(run.points) == 2 * len(single.points)
    assert len({p.key for p in run.points}) == 2 * len({p.key for p in single.points})
    assert store.from_data(json.loads(store.dumps(run)), "it") == run
    from io import StringIO

    from rich.console import Console

    for width in (80, 120):
        console = Console(file=StringIO(), width=width)
        table.render(run, console)
        text = console.file.getvalue()
        assert ", device 1" in text and "it left <b>no</b> journal" in text
        assert max(map(len, text.splitlines())) <= width
    assert ",device," in export.csv(run).splitlines()[0] and "| device |" in export.markdown(run).replace("  ", " ")
    assert "it left &lt;b&gt;no" in page.render([run])


def test_a_run_of_one_device_says_nothing_of_devices():
    text = export.markdown(samples.run())
    assert "device" not in text.split("\n## ")[0].replace("device time", "")


def test_what_every_rank_saw_and_doubted_is_kept():
    doubt = warn("mig", slice="")
    seen = Evidence(id="surroundings-during", values={"clock_hz": 1.5e9}, how="medians")
    single = samples.run().model_copy(update={"warnings": (doubt,), "evidence": (seen,)})
    found = [Observation(id="drift", text=f"rank {rank} drifts.") for rank in range(2)]
    parts = [fleet.Part(device(rank), single.model_copy(update={"observations": (found[rank],)})) for rank in range(2)]
    run = fleet.merge(parts, "seqroof")
    assert [w.cause.split(":")[0] for w in run.warnings] == ["Device 0", "Device 1"]
    assert [entry.id for entry in run.evidence] == [f"surroundings-during device {rank}" for rank in range(2)]
    assert all(entry.how.startswith(f"Device {rank}: ") for rank, entry in enumerate(run.evidence))
    assert [o.text for o in run.observations][-2:] == ["Device 0: rank 0 drifts.", "Device 1: rank 1 drifts."]
    assert "first of 2 devices" in run_text(run) and "1.50 GHz" in run_text(run)


def test_a_rank_that_lets_go_of_its_journal_is_waited_for_no_longer(tmp_path):
    now = [0.0]
    never, held = (merging.Ending(merging.rank_folder(tmp_path, rank), lambda: now[0]) for rank in range(2))
    merging.rank_folder(tmp_path, 1).mkdir(parents=True)
    journal = Journal(merging.rank_folder(tmp_path, 1))
    assert not never.has_come() and not held.has_come()
    journal.close()
    assert held.has_come() and not never.has_come(), "its lock was seen, so its absence tells"
    now[0] = merging.SILENT_S + 1
    assert never.has_come()
    fabricated(tmp_path, 2, end("complete"))
    assert merging.Ending(merging.rank_folder(tmp_path, 2)).has_come()


@pytest.mark.parametrize(("before", "after"), [(b'"suite":', b'"sweet":'), (b'"clock":"host"', b'"clock":"sundial"')])
def test_a_journal_of_another_version_is_not_merged(tmp_path, before, after):
    fabricated(tmp_path, 0, end("complete"))
    journal = merging.rank_folder(tmp_path, 0) / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(before, after))
    with pytest.raises(Stop, match="cannot be merged") as refused:
        merging.merge(tmp_path)
    assert refused.value.code == Exit.USAGE


def test_cores_are_dealt_out():
    assert [share_of([0, 1, 2, 3, 4], rank, 2) for rank in range(2)] == [([0, 2, 4], False), ([1, 3], False)]
    assert [share_of([4, 7], rank, 3) for rank in range(3)] == [([4], True), ([7], True), ([4], True)]


def test_a_single_device_is_no_device_for_a_fleet():
    with pytest.raises(Stop, match="--device cuda"):
        device_for("cuda:1", at=None)


@pytest.mark.parametrize("local_rank", [0, 1])
def test_a_fleet_that_goes_to_the_cpu_beside_a_gpu_says_so_once(monkeypatch, capsys, local_rank):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(fleet_script, "passed_over", lambda: "a GPU of a fleet is here")
    assert device_for("auto", fleet_script.Place(local_rank, 2, local_rank, 2)) == "cpu"
    assert ("a GPU of a fleet is here" in capsys.readouterr().err) == (local_rank == 0)


def fabricated(out, rank, *ending, device="cpu"):
    """A rank's journal whose session ended so."""
    folder = merging.rank_folder(out, rank)
    folder.mkdir(parents=True)
    journal = Journal(folder)
    request = {"kernels": ["k"], "suite": "quick", "device": device}
    facts = {"command": "c", "commit": "", "created": "2026-11-21", "tool": "t", "advice": "--rounds 20"}
    journal.write("header", {"request": request, "machine": {}} | facts)
    opened = {"name": "n", "id": "i", "kind": "cpu", "torch_device": "cpu", "environment": {"python": "3"}}
    journal.write("opened", opened)
    journal.write("start", {"host": 0, "start_s": 1e-4 * rank, "clock_error_s": 1e-5, "crowded": False})
    journal.write("ceilings", [c.model_dump(mode="json") for c in ROUND.ceilings])
    made = point(timing(200.0 + rank))
    journal.write("group", {"key": "k", "points": [made.model_dump(mode="json")]})
    for kind, data in ending:
        journal.write(kind, data | opened if kind == "opened" else data)
    journal.close()


def end(state, **more):
    return "end", {"state": state, "session_s": 2.0, **more}


def test_journals_are_merged_and_every_rank_is_accounted_for(tmp_path):
    merging.write_fleet(tmp_path, 6, 1)
    fabricated(tmp_path, 0, end("complete"), device="cuda:0")
    fabricated(tmp_path, 1, device="cuda:1")
    fabricated(tmp_path, 2, end("interrupted"))
    fabricated(tmp_path, 3, ("opened", {}), end("complete"))
    fabricated(tmp_path, 4, end("interrupted", reason="lost its worker"))
    run = merging.merge(tmp_path)
    assert [d.state for d in run.devices] == ["complete", "lost", "interrupted", "complete", "interrupted", "lost"]
    says = ["", "without a word, after 1 group of", "told to end", "ended early once", "lost its worker", "no journal"]
    assert all(words in d.reason for words, d in zip(says, run.devices))
    assert run.state == "interrupted" and sorted(p.device for p in run.points) == [0, 1, 2, 3, 4]
    assert all(p.best_fraction is not None for p in run.points)
    assert any(o.id == "lost device 5" for o in run.observations)
    assert merging.state_of(merging.rank_folder(tmp_path, 2)) == "interrupted"
    assert merging.state_of(merging.rank_folder(tmp_path, 1)) == merging.state_of(tmp_path) == ""


def test_a_damaged_journal_costs_its_own_rank(tmp_path):
    for rank in range(3):
        fabricated(tmp_path, rank, end("complete"))
    journal = merging.rank_folder(tmp_path, 1) / "journal.jsonl"
    whole = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*whole[:3], b"garbage\n", *whole[3:]]))
    run = merging.merge(tmp_path)
    assert [d.state for d in run.devices] == ["complete", "lost", "complete"] and run.state == "interrupted"
    assert "damaged at line 4; remove" in run.devices[1].reason and "rank-1 and resume" in run.devices[1].reason
    assert sorted(p.device for p in run.points) == [0, 2]
    for rank in (0, 2):
        (merging.rank_folder(tmp_path, rank) / "journal.jsonl").write_bytes(b"garbage\n")
    with pytest.raises(Stop, match="empty or damaged"):
        merging.merge(tmp_path)


def test_what_does_not_belong_together_is_not_merged(tmp_path):
    with pytest.raises(Stop, match="holds no fleet"):
        merging.merge(tmp_path)
    fabricated(tmp_path, 0)
    journal = merging.rank_folder(tmp_path, 0) / "journal.jsonl"
    (tmp_path / "rank-1").mkdir()
    (tmp_path / "rank-1" / "journal.jsonl").write_bytes(journal.read_bytes().replace(b'["k"]', b'["l"]'))
    with pytest.raises(Stop, match="other cases"):
        merging.merge(tmp_path)


KERNEL = (
    GOOD.replace("{fault}", "misbehave(shape.B)")
    + '''
import pathlib, time

def misbehave(batch):
    """Rank 1 loses its worker at one case; where a file asks for it, rank 2 is killed while the others measure on."""
    rank, fatal = int(os.environ["RANK"]), pathlib.Path("fatal")
    if rank == 1 and batch == 3:
        os.kill(os.getpid(), 9)
    if rank == 2 and batch == 4 and fatal.exists():
        fatal.unlink()
        os.kill(os.getppid(), 9)
    if rank != 2 and batch > 4:
        time.sleep(0.05)
'''
)


def launch(folder, roofs, *more, ranks=4, batches="2|3|4|5|6|7"):
    start = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}"]
    torchrun = [*start, "-m", "seqroof.scripts.fleet"]
    words = ["profile", "tiny.py", "--shape", f"B={batches}", "--dtype", "fp32", "--implementation", "torch"]
    flags = ["--rounds", "6", "--device", "cpu", "--roofs", str(roofs), "--out", "f", *more]
    command = [*torchrun, *words, *flags]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500)


def merged(folder):
    command = [sys.executable, "-m", "seqroof.scripts.fleet", "--merge", "f"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    return done, json.loads((folder / "f" / "run.json").read_text())


def test_a_fleet_loses_a_rank_then_finishes(tmp_path, roofs):
    """Four ranks on a CPU: rank 2 is killed in the middle, the others keep what they have; --resume completes it."""
    (tmp_path / "tiny.py").write_text(KERNEL)
    (tmp_path / "fatal").touch()
    done = launch(tmp_path, roofs)
    assert done.returncode != 0
    done, run = merged(tmp_path)
    assert done.returncode == 130, done.stderr
    states = {d["rank"]: d["state"] for d in run["devices"]}
    assert states.pop(2) == "lost" and set(states.values()) <= {"interrupted", "complete"} and len(states) == 3
    assert "Device 2 is lost: it ended without a word" in done.stdout
    before = {rank: finished(tmp_path, rank) for rank in range(4)}
    assert all(before.values()) and len(before[2]) < 6
    report = subprocess.run(
        [sys.executable, "-m", "seqroof.scripts.main", "report", "f", "--format", "csv"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert report.returncode == 0 and len(report.stdout.splitlines()) == 1 + len(run["points"])

    done = launch(tmp_path, roofs, "--resume")
    assert "exitcode" in done.stderr and done.returncode == 1  # rank 0 has said that a case crashed
    run = json.loads((tmp_path / "f" / "run.json").read_text())
    assert run["state"] == "complete" and [d["state"] for d in run["devices"]] == ["complete"] * 4
    assert "ended early once and was resumed" in run["devices"][2]["reason"]
    for rank in range(4):
        assert finished(tmp_path, rank)[: len(before[rank])] == before[rank] and len(finished(tmp_path, rank)) == 6
        own = [p for p in run["points"] if p["device"] == rank and p["headline"] and p["implementation"] == "torch"]
        lost = {p["shape"]["B"]: p["status"] for p in own if p["status"] != "ok"}
        assert len(own) == 6 and lost == ({3: "oom"} if rank == 1 else {})
    starts = [d["start_s"] for d in run["devices"]]
    assert all(value is not None and value >= 0 for value in starts)


def test_a_fleet_that_is_replaced_by_a_smaller_one_leaves_no_rank_in_its_record(tmp_path, roofs):
    (tmp_path / "tiny.py").write_text(KERNEL)
    merging.write_fleet(tmp_path / "f", 3, 1)
    for rank in range(3):
        fabricated(tmp_path / "f", rank, end("complete"))
    store.save(merging.merge(tmp_path / "f"), tmp_path / "f" / "rank-2")
    done = launch(tmp_path, roofs, "--force", ranks=1, batches="2")
    assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "f" / "run.json").read_text())
    assert [(d["rank"], d["state"]) for d in run["devices"]] == [(0, "complete")]
    assert {p["kernel"] for p in run["points"]} == {"tiny"}
    assert sorted(path.name for path in (tmp_path / "f").glob("rank-*")) == ["rank-0"]


def test_only_what_a_fleet_has_left_is_removed(tmp_path):
    merging.write_fleet(tmp_path, 4, 1)
    for rank in range(3):  # and the fourth is lost
        fabricated(tmp_path, rank, end("complete"))
    (tmp_path / "run.json").write_text("{}")
    merging.forget(tmp_path, 4)
    assert not (tmp_path / "run.json").exists()
    assert [d.state for d in merging.merge(tmp_path).devices] == ["complete"] * 3 + ["lost"]
    busy = Journal(merging.rank_folder(tmp_path, 2))
    with pytest.raises(Stop, match="Another process is measuring"):
        merging.forget(tmp_path, 1)
    busy.close()
    (tmp_path / "rank-2" / "note.txt").write_text("mine")
    with pytest.raises(Stop, match="cannot be removed"):
        merging.forget(tmp_path, 1)
    assert (tmp_path / "rank-2" / "note.txt").exists() and not (tmp_path / "rank-1").exists()


def finished(folder, rank):
    return [data for kind, data in read(merging.rank_folder(folder / "f", rank)) if kind == "group"]


@pytest.fixture
def requests(monkeypatch):
    """What the ranks are asked for, in an environment as torchrun makes it."""
    asked = []
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(fleet_script, "_measure", lambda request, *rest: asked.append(request))
    return asked


def test_options_reach_every_rank(tmp_path, requests):
    fleet_script.profile(tmp_path, device="cpu", deadline="30s")
    fleet_script.profile(tmp_path, device="cpu", counters=True, attribution=True)
    fleet_script.profile(tmp_path, device="cpu", suite="standard", attribution=False)
    found = [(request.deadline_s, request.counters, request.attribution) for request in requests]
    assert found == [(30.0, False, False), (None, True, True), (None, False, False)]


def test_the_page_names_the_options_of_a_fleet():
    (told,) = re.findall(r"of its options these: (.*?)\. Rank N", PAGE.read_text(), re.DOTALL)
    named = re.findall(r"`(--[a-z]+)`", told)
    options = [name for option in get_command(fleet_script.app).commands["profile"].params for name in option.opts]
    assert sorted(named) == sorted(name for name in options if name.startswith("--"))
