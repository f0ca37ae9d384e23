"""Counting tools as child processes: programs that stand in for ncu and perf succeed, refuse, babble and hang."""

import contextlib
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from round_machine import point, timing
from user_kernels import kernel_file

from seqroof.profiler import counted_case, counters, counting, obstacles, perf
from seqroof.profiler.counters import CountersDenied, Ncu, NotOffered, Perf, counted_bytes, probe
from seqroof.profiler.group_runs import _Attempt
from seqroof.profiler.supervisor import WorkerDied
from seqroof.roofline import ncu
from seqroof.roofline.record import Point

NCU = """
import json, sys
words = sys.argv[1:]
log, status = words[words.index("--log-file") + 1], words[words.index("--status") + 1]
request = json.loads(words[words.index("--request") + 1])
names = request.get("implementations", ["negation"])
metrics = words[words.index("--metrics") + 1].split(",")
for option in ("--clock-control", "--cache-control"):
    assert words[words.index(option) + 1] == "none"
def table(launches, passes=1):
    with open(log, "w") as file:
        print("==PROF== Connected", file=file)
        for number, (kernel, amount) in enumerate(launches):
            print(f'==PROF== Profiling "{kernel}" - {number}: 0%....50%....100% - {passes} pass', file=file)
        print('"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"', file=file)
        for number, (kernel, amount) in enumerate(launches):
            for metric in metrics:
                print(f'"{number}","{kernel}","{metric}","byte","{amount:,}"', file=file)
def told(**more):
    open(status, "w").write(json.dumps({"begun": names, "failed": {}, "calls": 1} | more))
"""
GOOD = (
    NCU
    + """
launches = []
for place, name in enumerate(names):
    launches += [("spin_kernel", 0), ("first", 1000 * (place + 1)), ("second", 24)]
table(launches); told()
"""
)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Write a program of this name that does `body`, and put it first on PATH."""

    def make(name, body):
        path = tmp_path / name
        path.write_text(f"#!{sys.executable}\n{body}")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        return str(path)

    return make


def test_a_kernel_of_known_traffic_is_counted(program):
    tool = Ncu(program("ncu", GOOD))
    found = probe(tool, "cuda:0")
    assert (found.dram_read_bytes, found.dram_write_bytes, found.launches) == (1024.0, 1024.0, 2)
    assert found.kernels == ("first", "second"), "the marker is no part of the case"
    assert counters.tool_for("cuda").name == "ncu"


def test_cases_are_parted_at_their_markers(program):
    tool = Ncu(program("ncu", GOOD))
    found = tool.count({"device": "cuda:0", "implementations": ["torch", "triton"], "cache": "warm"}, 60)
    assert {name: entry.dram_read_bytes for name, entry in found.items()} == {"torch": 1024.0, "triton": 2024.0}
    assert "as the call before left them" in found["torch"].how and "not counted" in found["torch"].how


def test_one_failed_case_leaves_the_others(program):
    body = NCU + 'table([("spin_kernel", 0), ("k", 7)]); told(begun=["triton"], failed={"torch": "RuntimeError: no"})'
    found = Ncu(program("ncu", body)).count({"implementations": ["torch", "triton", "late"]}, 60)
    assert found["torch"].reason == "RuntimeError: no" and found["triton"].dram_read_bytes == 7.0
    assert "did not come to its turn" in found["late"].reason


def test_a_metric_that_the_device_lacks_is_left_out(program):
    body = NCU + (
        'if len(metrics) > 2 or "tensor" in metrics[0]:\n    print("==ERROR== Failed to find metric"); sys.exit(1)\n'
        'table([("spin_kernel", 0), ("k", 7)]); told()'
    )
    request = {"device": "cuda:0", "implementations": ["torch"]}
    found = counted_bytes(Ncu(program("ncu", body)), request)
    assert found.dram_read_bytes == 7.0 and found.cache_bytes is None and found.tensor_share is None


def test_cold_bytes_are_those_of_a_single_run_of_every_kernel(program):
    """A second run of a kernel meets what the first left in the caches."""
    body = NCU + 'table([("spin_kernel", 0), ("k", 7)], passes=1 if len(metrics) <= 2 else 3); told()'
    request = {"device": "cuda:0", "implementations": ["torch"], "cache": "cold"}
    found = counted_bytes(Ncu(program("ncu", body)), request)
    assert found.dram_read_bytes == 7.0 and found.cache_bytes is None and found.tensor_share == 7.0
    tool = Ncu(program("ncu", NCU + 'table([("spin_kernel", 0), ("k", 7)], passes=2); told()'))
    assert "2 times" in counted_bytes(tool, request).reason
    warm = counted_bytes(tool, request | {"cache": "warm"})
    assert warm.dram_read_bytes == 7.0


@pytest.mark.parametrize(
    ("body", "cause", "fix"),
    [
        ('print("==ERROR== ERR_NVGPUCTRPERM - The user does not have permission")', "administrators", "NVreg_Restrict"),
        ('print("==ERROR== Failed to initialize the profiler: LibraryNotLoaded")', "sandboxes", "host"),
        ('print("==WARNING== No kernels were profiled.")', "no kernel", "by hand"),
        ("import os; os.write(1, bytes(range(256)) * 40)", "no table", "by hand"),
        ("raise SystemExit(1)", "no table", "by hand"),
        (NCU + 'open(log, "wb").write(bytes(range(256)))', "no table", "by hand"),
    ],
    ids=["permission", "sandbox", "nothing", "garbage", "exit", "binary"],
)
def test_refusals_have_a_cause_and_a_fix(program, body, cause, fix):
    with pytest.raises(CountersDenied, match=cause) as denied:
        probe(Ncu(program("ncu", body)), "cuda:0")
    assert fix in denied.value.fix


def test_only_what_a_machine_does_not_offer_is_no_reason_to_worry(program, monkeypatch, tmp_path):
    """A test on a GPU may skip where counters are not offered; a tool that sees no kernel is a fault of ours."""
    with pytest.raises(NotOffered):
        probe(Ncu(program("ncu", 'print("==ERROR== ERR_NVGPUCTRPERM")')), "cuda:0")
    with pytest.raises(CountersDenied) as unseen:
        probe(Ncu(program("ncu", 'print("==WARNING== No kernels were profiled.")')), "cuda:0")
    assert not isinstance(unseen.value, NotOffered)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(counters, "_NCU_PLACES", ())
    with pytest.raises(NotOffered):
        counters.tool_for("cuda")


def test_a_cold_case_of_a_gpu_is_flushed_once_before_it_is_counted(monkeypatch, tmp_path):
    pytest.importorskip("torch")
    seen = []
    device = SimpleNamespace(kind="cuda", torch_device="cpu", finish=lambda: None, flush=lambda: seen.append("flush"))

    @contextlib.contextmanager
    def counting_by_name(device, control):
        seen.append("count")
        yield

    monkeypatch.setattr(counted_case, "open_device", lambda name: device)
    monkeypatch.setattr(counted_case, "_counting", counting_by_name)
    for cache, wanted in (("cold", ["flush", "count"]), ("warm", ["count"])):
        seen.clear()
        request = {"device": "cuda:0", "probe_bytes": 4096, "cache": cache}
        monkeypatch.setattr(sys, "argv", counters.runner(request, tmp_path / "status")[2:])
        counted_case.main()
        assert seen == wanted


def test_the_probe_reads_one_array_and_writes_another():
    torch = pytest.importorskip("torch")
    source = torch.randn(64)
    call = counted_case._negation(source)
    first, second = call(), call()
    assert torch.equal(first, -source) and first.data_ptr() == second.data_ptr() != source.data_ptr()


def test_a_tool_that_hangs_is_killed_with_its_children(program, tmp_path):
    body = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\ntime.sleep(60)"
    )
    tool = Ncu(program("ncu", body))
    with pytest.raises(CountersDenied, match="was killed"):
        tool.count({}, 2.0)
    state = Path("/proc", (tmp_path / "pid").read_text(), "stat")
    for _ in range(100):  # a killed process on a busy machine takes a moment to go
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the child of a killed tool still runs")


def test_absent_tools_say_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(counters, "_NCU_PLACES", ())
    for kind, words in (("cuda", "ncu is not installed"), ("cpu", "perf is not installed")):
        with pytest.raises(CountersDenied, match=words) as denied:
            counters.tool_for(kind)
        assert "install" in denied.value.fix.lower()


PERF = """
import json, sys, threading
words = sys.argv[1:]
out = words[words.index("-o") + 1]
control, ack = words[words.index("--control", words.index("--")) + 1:][:2]
status = words[words.index("--status") + 1]
heard = []
def runner():
    for word in ("enable", "disable"):
        open(control, "w").write(word + "\\n")
        heard.append(open(ack).readline())
    open(status, "w").write(json.dumps({"begun": ["torch"], "failed": {}, "calls": 20}))
thread = threading.Thread(target=runner); thread.start()
for _ in range(2):
    assert open(control).readline().strip() in ("enable", "disable")
    open(ack, "w").write("ack\\n")
thread.join()
assert heard == ["ack\\n"] * 2
"""


def test_perf_counts_between_two_words(program):
    lines = "# started\n\n2000,,LLC-load-misses,1,100.00,,\n100,,LLC-store-misses,1,100.00,,\n"
    body = PERF + f'open(out, "w").write({lines!r})'
    found = Perf(program("perf", body)).count({"implementations": ["torch"]}, 60)["torch"]
    assert (found.dram_read_bytes, found.dram_write_bytes) == (2000 * 64 / 20, 100 * 64 / 20)
    assert found.provenance == "derived" and "lower bound" in found.how


def test_memory_controllers_are_preferred_where_they_may_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    strict = tmp_path / "proc/sys/kernel/perf_event_paranoid"
    strict.parent.mkdir(parents=True)
    for name in ("cas_count_read", "cas_count_write"):
        event = tmp_path / "sys/bus/event_source/devices/uncore_imc_0/events" / name
        event.parent.mkdir(parents=True, exist_ok=True)
        event.write_text("event=0x04\n")
    strict.write_text("2\n")
    assert perf.events(tmp_path / "sys", tmp_path / "proc")[2] == "derived"
    strict.write_text("0\n")
    options, how, provenance = perf.events(tmp_path / "sys", tmp_path / "proc")
    assert "-a" in options and provenance == "measured"
    text = "12.5,MiB,uncore_imc/cas_count_read/,1,100.00,,\n2,MiB,uncore_imc/cas_count_write/,1,100.00,,\n"
    found = perf.counted(text, 2, how, provenance)
    assert (found.dram_read_bytes, found.dram_write_bytes) == (12.5 * 2**20 / 2, 2**20)


def test_perf_without_counters_or_permission(program):
    none = perf.counted("<not supported>,,LLC-load-misses,0,100.00,,\n", 1, "how", "derived")
    assert none.dram_read_bytes is None and "not offered" in none.reason
    refusal = "Access to performance monitoring is limited: perf_event_paranoid setting is 4"
    body = f"import sys; print({refusal!r}); sys.exit(255)"
    with pytest.raises(CountersDenied, match="does not let this user count") as denied:
        probe(Perf(program("perf", body)), "cpu")
    assert "perf_event_paranoid" in denied.value.fix


GROUP = {"source": "k", "shape": {"B": 1}, "dtype": "fp32", "direction": "forward", "kind": "cuda", "sequence": False}


def points():
    cold = point(timing(200.0), clock="events")
    return [cold, cold.model_copy(update={"cache": "warm", "headline": False})]


def counted_points(wanted):
    asked = counting.Counting(SimpleNamespace(opened={"torch_device": "cuda:0"}, code={"k.py": "ab"}), wanted)  # type: ignore[arg-type]
    found: list[Point] = asked.add(GROUP, points(), 0)
    return found, asked.evidence()


def test_headline_points_get_their_counts_and_the_run_its_probe(program):
    program("ncu", GOOD)
    (cold, warm), (evidence,) = counted_points(True)
    assert cold.counted.dram_read_bytes == 1024.0 and cold.counted.amplification == pytest.approx(2048 / 10_000)
    assert warm.counted is None and evidence.values["state"] == "ok" and evidence.values["probe_read_bytes"] == 1024.0


def test_a_run_without_permission_goes_on_and_says_so(program):
    program("ncu", 'print("==ERROR== ERR_NVGPUCTRPERM")')
    found, (evidence,) = counted_points(True)
    assert all(point.counted is None for point in found)
    assert evidence.values["state"] == "denied" and "NVreg" in str(evidence.values["fix"])


def test_nothing_is_started_unless_it_was_asked_for(program):
    program("ncu", "raise SystemExit('must not run')")
    found, evidence = counted_points(False)
    assert found == points() and evidence == ()


def test_doctor_names_cause_and_fix(program):
    program("ncu", 'print("==ERROR== ERR_NVGPUCTRPERM")')
    denied = obstacles.gpu_counters()
    assert denied.state == "limited" and "modelled" in denied.detail and "NVreg" in denied.fix
    program("ncu", GOOD)
    assert obstacles.gpu_counters().state == "ok"
    program("perf", 'import sys; print("<not supported>,,LLC-load-misses,0,100,,", file=sys.stderr)')
    assert obstacles.cpu_counters().state == "missing"
    program("perf", 'import sys; print("5,,LLC-load-misses,0,100,,", file=sys.stderr)')
    assert obstacles.cpu_counters().state == "ok"
    assert set(ncu.BYTES) <= set(ncu.MEMORY)


def test_the_runner_tells_what_it_has_done(monkeypatch, tmp_path):
    status = tmp_path / "status.json"

    def told(request):
        monkeypatch.setattr(sys, "argv", counters.runner(request, status)[2:])
        counted_case.main()
        return json.loads(status.read_text())

    assert told({"device": "cpu", "probe_bytes": 4096})["begun"] == ["negation"]
    group = {"dtype": "fp32", "direction": "forward", "seed": 0, "cache": "warm", "shape": {"B": 2, "N": 8}}
    group |= {"device": "cpu", "source": str(kernel_file(tmp_path, fault="raise RuntimeError('no')"))}
    found = told({**group, "implementations": ["torch", "reference"]})
    assert found["begun"] == ["reference"] and found["failed"] == {"torch": "RuntimeError: no"}
    assert found["calls"] == counted_case.CPU_CALLS
    other = told({**group, "implementations": ["reference"], "code": {"mine.py": "of another text"}})
    assert other["begun"] == [] and "mine.py changed since this run began" in other["failed"]["reference"]


def test_a_case_that_fails_before_it_is_counted_says_why(program):
    body = NCU + 'print("==WARNING== No kernels were profiled."); told(begun=[], failed={"torch": "CodeChanged: k.py"})'
    with pytest.raises(CountersDenied, match=r"CodeChanged: k\.py"):
        Ncu(program("ncu", body)).count({"implementations": ["torch"]}, 60)


def test_a_counting_process_is_told_what_code_was_timed(program):
    known = 'assert "probe_bytes" in request or request["code"] == {"k.py": "ab"}\n'
    program("ncu", GOOD.replace("launches = []", known + "launches = []"))
    (cold, _), _ = counted_points(True)
    assert cold.counted.dram_read_bytes == 1024.0


def test_a_worker_that_dies_measuring_energy_costs_the_energy_alone():
    options = {"attribution": False, "watch": False, "idle_w": 60.0}
    attempt = _Attempt({**GROUP, "sequence": False}, ["torch"], options)
    attempt.points = points()
    attempt.take({"event": "begin", "implementation": "torch", "stage": "energy"})
    found, culprit = attempt.blame(WorkerDied("crashed", "SIGSEGV"))
    assert culprit is None and [point.time_s is not None for point in found] == [True, True]
    assert found[0].energy is not None and found[0].energy.reason == "SIGSEGV" and found[1].energy is None
