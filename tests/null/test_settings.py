"""Settings of the process: what a kernel file changes is named and put back."""

import os

import pytest
import torch

from seqroof.kernels import _catalog
from seqroof.profiler.poison import poisoned_memory
from seqroof.profiler.settings import Settings


@pytest.fixture
def settings():
    made = Settings()
    made.remember()
    yield made
    made.changed()


CHANGES = {
    "the number of threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "the default dtype": lambda: torch.set_default_dtype(torch.float64),
    "float32_matmul_precision": lambda: torch.set_float32_matmul_precision("medium"),
    "mkldnn.matmul.fp32_precision": lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
    "cuda.matmul.fp32_precision": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "cudnn.benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "cudnn.deterministic": lambda: setattr(torch.backends.cudnn, "deterministic", True),
    "deterministic_debug_mode (from 0 to 2)": lambda: torch.use_deterministic_algorithms(True),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "the default device (from None to cpu)": lambda: torch.set_default_device("cpu"),
    "enable_math_sdp": lambda: torch.backends.cuda.enable_math_sdp(False),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_changed_is_named_and_put_back(settings, name):
    assert settings.changed() == []
    CHANGES[name]()
    found = settings.changed()
    assert any(name in text and "from" in text for text in found), found
    assert settings.changed() == []
    assert torch.get_float32_matmul_precision() == "highest", "torch's own switches agree again"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_processors_are_put_back(settings):
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("there is one processor")
    os.sched_setaffinity(0, {min(cores)})
    assert "processors" in settings.changed()[0] and os.sched_getaffinity(0) == cores


def test_saying_what_holds_anyway_is_no_change(settings):
    torch.set_float32_matmul_precision("highest")
    torch.set_num_threads(torch.get_num_threads())
    assert settings.changed() == []


def test_looking_for_what_is_never_written_changes_nothing(settings):
    with poisoned_memory():
        assert torch.empty(4).isnan().all()
    assert settings.changed() == []


def test_a_choice_made_while_memory_is_poisoned_is_found(settings):
    with poisoned_memory():
        torch.use_deterministic_algorithms(True)
    assert "deterministic_debug_mode (from 0 to 2)" in settings.changed()[0]
    assert not torch.are_deterministic_algorithms_enabled()


def test_deterministic_algorithms_of_the_user_outlive_a_check():
    torch.use_deterministic_algorithms(True)
    try:
        with poisoned_memory():
            pass
        assert torch.get_deterministic_debug_mode() == 2
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("source", ["attention", "attention_decode"])
def test_choosing_a_backend_of_attention_for_a_call_changes_nothing(settings, source):
    kernel = _catalog.load(source)
    shape = min(kernel.suite("quick"), key=lambda shape: kernel.module.work(shape, "fp32", "forward").flops)
    inputs = kernel.module.inputs(shape, "fp32", "cpu", 0)
    kernel.implementations["torch.math"].run(shape, **inputs)
    assert settings.changed() == []
