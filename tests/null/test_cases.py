"""One group in this process, from a kernel file as a user might write it to the events that its parent is told."""

import pytest
from user_kernels import GOOD

from seqroof.kernels import _catalog
from seqroof.profiler.calls import Group
from seqroof.profiler.cases import run_group
from seqroof.profiler.devices import CpuDevice

CLOCKS = [("cold", "host"), ("warm", "host")]


class SmallCpu(CpuDevice):
    """A processor with so small a cache that few copies rotate."""

    def last_cache_bytes(self):
        return 2**16


class Forgetful(SmallCpu):
    """Whose memory cannot be measured of the third subject."""

    asked = 0

    def peak_memory(self, call):
        self.asked += 1
        if self.asked == 3:
            raise RuntimeError("out of memory")


def run(
    folder, text, told, names=("reference", "torch"), timed=False, device=SmallCpu, dtype="fp32", direction="forward"
):
    """Check, and with `timed` time, a group of the kernel file `text`; collects its events in `told`."""
    path = folder / "mine.py"
    path.write_text(text.replace("{fault}", "pass"))
    kernel = _catalog.load(str(path))
    group = Group(device(keep_threads=True), kernel, kernel.shape(B=4, N=8), dtype, direction, 0)
    options = {"time": timed, "budget_s": 0.01, "rounds": 1, "clocks": CLOCKS}
    run_group(group, list(names), 1.0, options, lambda event, **data: told.append({"event": event, **data}))
    return told


def failures(told):
    return {event["implementation"]: event["reason"] for event in told if event["event"] == "failed"}


def begun(told):
    return [(event["implementation"], event["stage"]) for event in told if event["event"] == "begin"]


TIRES = "faulty.calls = getattr(faulty, 'calls', 0) + 1\n    if faulty.calls > 2: raise RuntimeError('tired')"


def test_whoever_fails_while_its_graphs_are_built_was_told_of_last(tmp_path):
    told = []
    with pytest.raises(RuntimeError, match="tired"):
        run(tmp_path, GOOD.replace("{fault}", TIRES), told, timed=True, direction="both")
    assert begun(told)[-2:] == [("reference", "prepare"), ("torch", "prepare")]


def test_whoever_fails_while_its_memory_is_measured_was_told_of_last(tmp_path):
    told = []
    with pytest.raises(RuntimeError, match="out of memory"):
        run(tmp_path, GOOD, told, timed=True, device=Forgetful)
    assert begun(told)[-1] == ("torch", "memory cold host")
    assert [event["implementation"] for event in told if event["event"] == "point"] == ["reference", "reference"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (".to(kinds[dtype])", "", "torch.float32 on cpu only; torch.bfloat16 on cpu was asked for"),
        ("generator=source, ", "", "other values of x when it was called with the same seed"),
        ("return (x * 2,)", "return x * 2", "reference() returned Tensor; a tuple of real tensors"),
        ("return (x * 2,)", "return x * 2, None", "reference() returned NoneType as output 1"),
        ("return (x * 2,)", "return ()", "reference() returned nothing"),
        ("return (x * 2,)", "return (torch.complex(x, x),)", "complex numbers as output 0"),
    ],
)
@pytest.mark.parametrize("timed", [False, True])
def test_what_the_file_returns_instead_of_what_was_asked_is_said_once_for_all_rows(tmp_path, old, new, says, timed):
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    found = failures(run(tmp_path, text, [], timed=timed, dtype="bf16"))
    assert list(found) == ["reference", "torch"]
    assert all(says in reason and "raised" not in reason for reason in found.values()), found


IN_PLACE = """
def inputs(shape, dtype, device, seed):
    source = torch.Generator(device=device).manual_seed(seed)
    state = torch.randn(shape.B, shape.N, generator=source, device=device)
    return {"x": torch.ones_like(state), "state": state, "steps": torch.ones(shape.B, 1, dtype=torch.int64)}

def reference(shape, x, state, steps):
    state += x
    steps += 1
    return (state * steps,)

IMPLEMENTATIONS = {
    "reference": Implementation(reference),
    "torch": Implementation(lambda shape, x, state, steps: ((state + x) * (steps + 1),)),
}
"""


def test_a_reference_that_overwrites_its_inputs_harms_nobody_else(tmp_path):
    told = run(tmp_path, GOOD + IN_PLACE, [])
    assert failures(told) == {"reference": "overwrites its input state, steps"}
    assert [event["implementation"] for event in told if event["event"] == "checked"] == ["torch"]


LARGEST = """
def reference(shape, x):
    return tuple(x.topk(3)) + (x > 0,)

def shifted(shape, x):
    values, places, positive = reference(shape, x)
    return values, (places + 1) % shape.N, positive

IMPLEMENTATIONS = {"reference": Implementation(reference), "torch": Implementation(shifted)}
"""


def test_outputs_of_integers_are_held_to_the_reference_exactly(tmp_path):
    for dtype in ("fp32", "bf16"):
        found = failures(run(tmp_path, GOOD + LARGEST, [], dtype=dtype))
        assert list(found) == ["torch"] and "output 1" in found["torch"]


VIEWS = """
def inputs(shape, dtype, device, seed):
    source = torch.Generator(device=device).manual_seed(seed)
    both = torch.randn(shape.B, 2 * shape.N, generator=source, device=device)
    mask = torch.randn(1, shape.N, generator=source, device=device).expand(shape.B, -1)
    return {"q": both[:, : shape.N], "k": both[:, shape.N :], "mask": mask}

def reference(shape, q, k, mask):
    return (q * k + mask,)

def without_strides(shape, q, k, mask):
    q, k = (tensor.as_strided(tensor.shape, (shape.N, 1)) for tensor in (q, k))
    return (q * k + mask,)

IMPLEMENTATIONS = {"reference": Implementation(reference, grad=True), "torch": Implementation(without_strides)}
"""


def test_a_kernel_that_ignores_strides_is_wrong(tmp_path):
    assert list(failures(run(tmp_path, GOOD + VIEWS, []))) == ["torch"]


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_views_of_one_tensor_and_expanded_ones_are_timed_and_looked_at_again(tmp_path, direction):
    told = run(tmp_path, GOOD + VIEWS, [], names=["reference"], timed=True, direction=direction)
    assert not failures(told)
    doubts = [[name for name, _ in event["doubts"]] for event in told if event["event"] == "point"]
    assert len(doubts) == 2 and not any("output-changed-after-timing" in names for names in doubts), told
