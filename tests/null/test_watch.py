"""Readings of a CPU from trees that a test lays out, and looks that stay between the samples."""

import os
from types import SimpleNamespace

import pytest
from round_machine import point, timing

from seqroof.profiler import surroundings
from seqroof.profiler.clock import Subject, measure
from seqroof.profiler.energy import RaplMeter
from seqroof.profiler.sensors import CpuSensors
from seqroof.profiler.supervisor import WorkerDied
from seqroof.profiler.watch import LEAST_GAP_S, Watch, summary
from seqroof.roofline._seen import cells
from seqroof.roofline._view import Row

CORES = sorted(os.sched_getaffinity(0))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def stat(proc, user, idle, steal=0):
    lines = [f"cpu{core} {user} 0 0 {idle} 0 0 0 {steal} 0 0" for core in CORES]
    write(
        proc / "stat", "\n".join(["cpu  1 2 3 4 5 6 7 8 9 0", *lines, f"cpu{max(CORES) + 1} 9 9 9 9 9 9 9 9", "intr 1"])
    )


def still(monkeypatch, user_s=0.0):
    """This process has used so much processor time."""
    monkeypatch.setattr(os, "times", lambda: os.times_result((user_s, 0.0, 0.0, 0.0, 0.0)))


def test_frequency_and_temperature_from_a_tree(tmp_path):
    for core in CORES:
        write(tmp_path / f"devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", str(2_000_000 + 1000 * core))
        write(tmp_path / f"devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq", "3700000")
    write(tmp_path / "class/hwmon/hwmon0/name", "nvme\n")
    write(tmp_path / "class/hwmon/hwmon0/temp1_input", "99000")
    write(tmp_path / "class/hwmon/hwmon1/name", "k10temp\n")
    write(tmp_path / "class/hwmon/hwmon1/temp1_input", "61500")
    sensors = CpuSensors(tmp_path / "proc", tmp_path)
    seen = sensors.read()
    assert seen["clock_hz"] == 2e9 + 1e6 * max(CORES) and sensors.reference_clock_hz == 3.7e9
    assert seen["temperature_c"] == 61.5


def test_what_is_missing_has_a_reason(tmp_path):
    sensors = CpuSensors(tmp_path, tmp_path)
    seen = sensors.read()
    assert seen.pop("pace_s") > 0, "it needs no file"
    assert set(seen.values()) == {None} and set(seen) <= set(sensors.reasons)
    write(tmp_path / "class/hwmon/hwmon0/name", "coretemp")
    write(tmp_path / "class/hwmon/hwmon0/temp1_input", "not a number")
    assert sensors.read()["temperature_c"] is None


def test_other_programs_and_other_guests_are_told_from_this_process(tmp_path, monkeypatch):
    still(monkeypatch)
    stat(tmp_path, user=1000, idle=1000)
    sensors = CpuSensors(tmp_path, tmp_path)
    stat(tmp_path, user=1060, idle=1030, steal=10)
    still(monkeypatch, user_s=0.2 * len(CORES))  # 20 ticks of a hundredth of a second on every core
    seen = sensors.read()
    assert seen["busy_share"] == pytest.approx(0.6)
    assert seen["other_share"] == pytest.approx(0.4)
    assert seen["steal_share"] == pytest.approx(0.1)
    assert sensors.read()["other_share"] is None, "no time has passed since"


def test_the_pace_of_the_processor_is_a_fixed_loop(tmp_path, monkeypatch):
    """The shortest of three tries: an interrupt in one of them is no slower processor."""
    now = iter([0.0, 5e-5, 1.0, 1.0 + 9e-3, 2.0, 2.0 + 6e-5])
    monkeypatch.setattr("seqroof.profiler.sensors.perf_counter", lambda: next(now))
    assert CpuSensors(tmp_path, tmp_path).read()["pace_s"] == pytest.approx(5e-5)
    looks = [{"pace_s": value} for value in (1e-4, 1e-4, 2e-4)]
    assert summary(looks, Counting(), "").pace_s.median == 1e-4


class Counting:
    """Sensors that count how often they are read."""

    reference_clock_hz = 2e9
    power_of = ""

    def __init__(self):
        self.reasons = {"power_w": "no meter"}
        self.reads = 0

    def read(self):
        self.reads += 1
        return {"clock_hz": 1e9 * self.reads, "power_w": None}


def test_the_power_of_a_slice_is_labelled_as_that_of_the_gpu():
    sensors = Counting()
    sensors.power_of = "the whole GPU"
    looks = [{"power_w": 400.0}]
    assert summary(looks, sensors, "").power_of == "the whole GPU"
    assert summary([{"power_w": None}], sensors, "").power_of == "", "no power, no label"
    watched = point(timing(1.0), telemetry=summary(looks, sensors, ""))
    assert "400 W (400 to 400), of the whole GPU" in cells([Row("1", 0, watched)])[0]


def test_looks_are_rare_and_a_subject_without_its_own_gets_those_of_its_group():
    now = [0.0]
    sensors = Counting()
    watch = Watch(sensors, clock=lambda: now[0])
    watch.look(0)
    watch.look(1)  # at the same moment
    assert sensors.reads == 2, "one when the watch began, one look"
    for _ in range(3):
        now[0] += LEAST_GAP_S
        watch.look(0)
    own, other = watch.telemetry(0), watch.telemetry(1)
    assert (own.samples, own.scope) == (4, "its own rounds") and own.clock_hz.median == 3.5e9
    assert (other.samples, other.scope) == (4, "the rounds of its group")
    assert own.power_w is None and own.reasons["power_w"] == "no meter" and "clock_hz" not in own.reasons


def test_dear_looks_become_rare():
    now = [0.0]

    class Slow(Counting):
        def read(self):
            now[0] += 0.1
            return super().read()

    sensors = Slow()
    watch = Watch(sensors, clock=lambda: now[0])
    for _ in range(100):
        watch.look(0)
        now[0] += 0.1
    assert sensors.reads <= 4, "at most two looks in ten seconds of looks that take a tenth of one, and two to spare"


def test_a_look_never_falls_into_a_sample():
    timing, told = [False], []

    class Stopwatch:
        def sample(self, calls, first, repeats):
            timing[0] = True
            calls[0]()
            timing[0] = False
            return [1e-3] * repeats

    subjects = [Subject(name, "cold", "host", [lambda: None], Stopwatch()) for name in "ab"]
    measure(subjects, 0.01, 3, 0, on_slice=lambda index: told.append((index, timing[0])))
    assert len(told) == 6 and {index for index, _ in told} == {0, 1} and not any(inside for _, inside in told)


def test_a_run_looks_before_and_after(monkeypatch, tmp_path):
    monkeypatch.setattr(surroundings, "HOST_WINDOW_S", 0.02)
    device = SimpleNamespace(sensors=CpuSensors(), meter=RaplMeter(tmp_path), finish=lambda: None)

    class Answering:
        def one(self, op, silence_s, wanted, idle):
            return surroundings.look_around(device, idle)

    around = surroundings.Surroundings(Answering())  # type: ignore[arg-type]
    around.look("before")
    around.look("after")
    before, after = around.evidence([])
    assert (before.id, after.id) == ("surroundings-before", "surroundings-after")
    assert before.values["host_load"] is not None and "idle_w" in before.values
    assert before.values["idle_w"] is None and "idle_w: this processor's energy counters (RAPL) are not" in before.how
    assert "idle_w" not in after.values


def test_a_worker_that_dies_looking_costs_nothing_else():
    class Dying:
        started = 0

        def one(self, *arguments, **request):
            raise WorkerDied("crashed", "SIGSEGV")

        def restart(self):
            self.started += 1

    supervisor = Dying()
    around = surroundings.Surroundings(supervisor)  # type: ignore[arg-type]
    around.look("before")
    assert supervisor.started == 1 and around.idle_w is None and "SIGSEGV" in around.evidence([])[0].how
