"""What ncu prints, in both layouts and several locales, becomes bytes; imported kernels find their points by name."""

import pytest
import samples
from typer.testing import CliRunner

from seqroof.roofline import counted, ncu
from seqroof.roofline.second_clock import SecondClock
from seqroof.roofline.store import save
from seqroof.roofline.telemetry import Counted
from seqroof.scripts.main import app

READ, WRITE, CACHE, TENSOR = ncu.DRAM_READ, ncu.DRAM_WRITE, ncu.CACHE, ncu.TENSOR
LONG = f"""==PROF== Connected to process 4711
a line of the program
"ID","Process ID","Process Name","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"
"0","4711","python","copy_kernel(float*, float*)","","{READ}","Mbyte","2.5"
"0","4711","python","copy_kernel(float*, float*)","","{WRITE}","Kbyte","640"
"0","4711","python","copy_kernel(float*, float*)","","{CACHE}","byte","3,400,000"
"0","4711","python","copy_kernel(float*, float*)","","{TENSOR}","%","62.5"
"0","4711","python","copy_kernel(float*, float*)","","gpu__time_duration.sum","usecond","41.28"
"1","4711","python","other","","{READ}","byte","n/a"
"1","4711","python","other","","{WRITE}","byte","1,024"
==PROF== Disconnected from process 4711
"""
WIDE = f""""ID","Kernel Name","Block Size","{READ}","{WRITE}","{TENSOR}"
"","","","Gbyte","byte","%"
"0","lstm_step_kernel","(128, 1, 1)","1.5","4000","50"
"1","spin_kernel","(1, 1, 1)","0","0","0"
"""


def test_the_long_layout():
    first, second = ncu.parse(LONG)
    assert first.name == "copy_kernel(float*, float*)"
    assert first.values == {READ: 2.5e6, WRITE: 640e3, CACHE: 3.4e6, TENSOR: 0.625}
    assert second.values == {WRITE: 1024.0}, "n/a is unknown, not nought"


def test_the_wide_layout():
    first, second = ncu.parse(WIDE)
    assert first.values == {READ: 1.5e9, WRITE: 4000.0, TENSOR: 0.5} and second.name == "spin_kernel"
    without_units = "\n".join(line for line in WIDE.splitlines() if not line.startswith('"",'))
    assert ncu.parse(without_units)[0].values[WRITE] == 4000.0


def test_a_spreadsheet_of_another_locale():
    text = (
        "\ufeffID;Kernel Name;Metric Name;Metric Unit;Metric Value\n"
        f"0;k;{READ};Mbyte;1.234,5\n0;k;{WRITE};byte;1.024\n0;k;{TENSOR};%;9,25\n"
    )
    assert ncu.parse(text)[0].values == {READ: 1234.5e6, WRITE: 1024.0, TENSOR: 0.0925}


@pytest.mark.parametrize(
    ("text", "comma", "value"),
    [
        ("1,234,567", False, 1234567.0),
        ("1 234 567,5", True, 1234567.5),
        ("1'024.5", False, 1024.5),
        ("1.5e+09", False, 1.5e9),
        ("N/A", False, None),
        ("nan", False, None),
        ("inf", False, None),
        ("", False, None),
    ],
)
def test_numbers(text, comma, value):
    assert ncu.number(text, comma) == value


def test_sectors_are_bytes_and_unknown_units_are_unknown():
    titles = '"Kernel Name","Metric Name","Metric Unit","Metric Value"'
    text = f'{titles}\n"k","dram__sectors_read.sum","sector","10"\n"k","{WRITE}","furlong","3"\n'
    assert ncu.parse(text)[0].values == {READ: 320.0}


@pytest.mark.parametrize(
    "text", ["", "garbage\x00\xff", "Kernel Name\n", '"Kernel Name","Metric Name"\n"k","x"\n', "a,b\n1,2"]
)
def test_what_ncu_did_not_write_is_refused_with_a_sentence(text):
    with pytest.raises(ncu.NcuError, match=r"Kernel Name|Metric Value|dram__bytes_read"):
        ncu.parse(text)


def test_launches_are_summed_per_call():
    launches = [ncu.Launch("a", {READ: 10.0, WRITE: 1.0, TENSOR: 0.5, ncu.CYCLES: 3.0}) for _ in range(2)]
    launches += [ncu.Launch("b", {READ: 2.0, WRITE: 3.0, TENSOR: 0.1, ncu.CYCLES: 1.0}) for _ in range(2)]
    found = ncu.summed(launches, 2, "by hand")
    assert (found.dram_read_bytes, found.dram_write_bytes, found.dram_bytes) == (12.0, 4.0, 16.0)
    assert found.launches == 2 and found.kernels == ("a", "b") and found.cache_bytes is None
    assert found.tensor_share == pytest.approx(0.4) and found.provenance == "measured"
    partly = ncu.summed([*launches, ncu.Launch("c", {READ: 5.0})], 1, "by hand")
    assert partly.dram_write_bytes is None and WRITE in partly.reason
    assert ncu.summed([], 1, "by hand").reason == "no kernel was seen"


def test_amplification():
    on = samples.machine()
    point = samples.point("lstm_step", "triton", {"B": 1, "I": 64, "H": 64}, "bf16", 0.5, on)
    found = counted.with_counts(point, Counted(dram_read_bytes=3.0 * point.work.compulsory_bytes, dram_write_bytes=0.0))
    assert found.counted.amplification == pytest.approx(3.0)
    assert counted.with_counts(point, Counted(dram_read_bytes=1.0)).counted.amplification is None


def run_of(*shapes):
    on = samples.machine()
    points = [
        samples.point("lstm_step", name, shape, "bf16", 0.5, on) for shape in shapes for name in ("torch", "triton")
    ]
    return samples.run(points=tuple(points))


SHAPE = {"B": 1, "I": 2048, "H": 2048}


def test_an_imported_kernel_finds_its_point_by_name():
    run = counted.imported(run_of(SHAPE), WIDE, "counters.csv")
    torch, triton = run.points
    assert torch.counted is None and triton.counted.dram_read_bytes == 1.5e9
    assert triton.counted.amplification > 1.25 and "declared-bytes-differ" in {w.id for w in triton.warnings}
    assert "counters.csv" in triton.counted.how
    evidence = run.evidence[-1]
    assert (
        evidence.values == {"points": 1, "kernels": 1, "kernels_left_out": 1} and "spin_kernel: fits 0" in evidence.how
    )


def test_several_imported_kernels_get_no_amplification():
    """ncu flushes caches before each kernel by default, so what the second found there was lost."""
    run = run_of(SHAPE)
    seen = {"kernels_observed": "spin_kernel; lstm_step_kernel"}
    known = run.points[0].model_copy(update={"compiler": seen, "launches": 2})
    run = counted.imported(run.model_copy(update={"points": (known,)}), WIDE, "f")
    found = run.points[0].counted
    assert found.launches == 2 and found.dram_bytes > 0
    assert found.amplification is None and "no amplification" in found.how


ROWS = "".join(f'"{number}","lstm_step_{name}","(128, 1, 1)","1.0","0","50"\n' for number, name in enumerate("abb"))
THREE = "\n".join(WIDE.splitlines()[:2]) + "\n" + ROWS


@pytest.mark.parametrize(("calls", "launches", "each"), [(5, 15, 3e9), (5, 5, 1e9), (None, None, 2e9)])
def test_calls_in_a_file_follow_from_the_launches_that_the_second_clock_saw(calls, launches, each):
    """Three launches are one call of three or three calls of one; uncounted, a call has one of each name."""
    second = SecondClock(source="profiler", time_s=1e-3, calls=calls, launches=launches)
    point = run_of(SHAPE).points[1].model_copy(update={"second_clock": second, "launches": None, "direction": "both"})
    found = counted.imported(samples.run(points=(point,)), THREE, "f").points[0].counted
    assert found.dram_read_bytes == pytest.approx(each)


def test_a_kernel_that_fits_two_points_is_left_out_and_named():
    run = counted.imported(run_of(SHAPE, {**SHAPE, "B": 2}), WIDE, "counters.csv")
    assert (
        all(point.counted is None for point in run.points) and "lstm_step_kernel: fits 2 points" in run.evidence[-1].how
    )


def test_kernels_seen_before_are_known_again():
    run = run_of(SHAPE)
    known = run.points[0].model_copy(update={"compiler": {"kernels_observed": "sm90_gemm_tn; elementwise"}})
    run = run.model_copy(update={"points": (known, run.points[1])})
    run = counted.imported(run, WIDE.replace("spin_kernel", "sm90_gemm_tn_64x64"), "f")
    assert run.points[0].counted.dram_read_bytes == 0.0 and run.points[1].counted is not None


def test_report_shows_imported_counters_and_leaves_the_file_alone(tmp_path):
    file = save(run_of(SHAPE), tmp_path)
    before = file.read_bytes()
    (tmp_path / "counters.csv").write_text(WIDE)
    shown = CliRunner().invoke(app, ["report", str(tmp_path), "--ncu", str(tmp_path / "counters.csv")])
    assert shown.exit_code == 0 and "DRAM moved 1.50 GB" in shown.stdout and file.read_bytes() == before
    (tmp_path / "other.csv").write_text("nothing")
    refused = CliRunner().invoke(app, ["report", str(tmp_path), "--ncu", str(tmp_path / "other.csv")])
    assert refused.exit_code != 0 and "no table of ncu" in str(refused.exception)
