"""The command that is worth typing after a run: never what was just done, nor another kernel than the user's own."""

import pytest
import samples
from round_machine import ROUND, point, timing, work

from seqroof.roofline import page
from seqroof.roofline.next_command import next_command
from seqroof.roofline.record import DeviceRun
from seqroof.roofline.verdict import judge

CPU = samples.run("cpu")


def after(**changes):
    """The advice after the sample run with these fields."""
    return next_command(CPU.model_copy(update=changes))


def failed(*kernels, status="wrong"):
    return tuple(point(kernel=kernel, status=status, reason="because") for kernel in kernels)


def chain(*lengths):
    """A recurrence at these numbers of steps."""
    how = {"chain": "barrier", "weights": "kept"}
    shapes = [{"B": 1, "T": count, "H": 7} for count in lengths]
    works = [work(read=10, depth=count, matmul_flops=1e4) for count in lengths]
    times = [timing(3.0 * count) for count in lengths]
    return tuple(judge(point(t, shape=s, work=w, **how), ROUND) for t, s, w in zip(times, shapes, works))


@pytest.mark.parametrize(
    ("typed", "advised"),
    [
        ("seqroof profile lstm --shape 'T=16|32' --out old --force", "seqroof profile lstm --shape 'T=16|32'"),
        ("seqroof contrast --measure --out=old --resume", "seqroof contrast --measure"),
        ("seqroof profile 'odd", """seqroof profile ''"'"'odd'"""),
        ("", "seqroof profile"),
    ],
)
def test_an_interrupted_run_is_finished_first(typed, advised):
    run = CPU.model_copy(update={"state": "interrupted", "command": typed, "suite": "standard"})
    assert next_command(run) == f"{advised} --out RUN --resume"
    assert next_command(run, "'my runs'") == f"{advised} --out 'my runs' --resume"


def test_a_fleet_is_not_finished_by_a_single_run():
    lost = DeviceRun(rank=0, state="lost")
    assert "--resume" not in after(state="interrupted", devices=(lost,))


def test_kernels_that_failed_are_verified_where_nothing_was_measured():
    assert after(points=failed("lstm", "gru", "lstm")) == "seqroof verify lstm gru"
    assert after(points=(*failed("lstm"), *CPU.points), suite="standard") == "seqroof profile --suite claims"
    typed = {"command": "seqroof profile './my kernel.py'"}
    assert after(points=failed("my kernel", status="crashed"), **typed) == "seqroof verify './my kernel.py'"
    assert "verify" not in after(points=failed("lstm", status="skipped"))


def test_what_would_help_follows_a_kernel_of_ones_own():
    (measured,) = chain(64)
    assert measured.estimate_s
    run = CPU.model_copy(update={"command": "seqroof profile ./k.py --shape T=64", "points": (measured,)})
    assert next_command(run, "runs/it") == "seqroof what-if runs/it"
    unknown = run.model_copy(update={"points": (measured.model_copy(update={"estimate_s": None}),)})
    assert "what-if" not in next_command(unknown), "it has nothing to say of a time without an estimate"


@pytest.mark.parametrize(
    ("suite", "advised"),
    [
        ("standard", "seqroof profile --suite claims"),
        ("full", "seqroof profile --suite claims"),
        ("claims", "seqroof claims RUN"),
        ("quick", "seqroof profile --suite standard"),
    ],
)
def test_a_suite_is_followed_by_what_it_does_not_hold(suite, advised):
    assert after(suite=suite) == advised


def test_a_recurrence_is_swept_over_its_steps_where_it_was_not():
    run = samples.run(points=chain(32))
    assert next_command(run) == "seqroof profile k --shape T=16:1024:x2,B=1,H=7"
    assert "T=16" not in next_command(samples.run(points=chain(16, 32, 64, 128)))


def test_a_run_without_sweeps_is_followed_by_one():
    assert after(points=()) == "seqroof profile lstm_step --shape B=1:256:x2,I=2048,H=2048"


def test_the_page_ends_with_it():
    pytest.importorskip("jinja2", reason="the page needs the report extra")
    pytest.importorskip("vl_convert", reason="the page needs the report extra")
    text = page.render([CPU.model_copy(update={"state": "interrupted", "command": "seqroof profile gru"})])
    assert '<code class="next">seqroof profile gru --out RUN --resume</code>' in text
