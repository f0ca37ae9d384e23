"""Settings of the process: what a kernel file changes is named and put back."""

import os

import pytest
import torch

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
