"""A GPU that torch cannot use: the doctor names cause and cure, and a run that goes to the CPU says so once."""

import sys

import pytest
import scripted

from seqroof.profiler import health, unused_gpu
from seqroof.profiler.unused_gpu import DriverSilent, Torch, listed, obstacle, passed_over
from seqroof.scripts import progress

CPU_BUILD = Torch("2.13.0+cpu", "", False)
OLD_DRIVER = Torch("2.13.0", "13.0", False, "CUDA initialization: The NVIDIA driver on your system is too old")
WORKS = Torch("2.13.0", "13.0", True)


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Puts a program of the given lines on the path as nvidia-smi."""

    def place(*lines):
        tool = tmp_path / "nvidia-smi"
        tool.write_text("\n".join(("#!/bin/sh", *lines, "")))
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return place


def gpu_line():
    (found,) = [finding for finding in health.examine() if finding.what == "GPU"]
    return found


@pytest.mark.parametrize(
    ("torch", "state", "cause", "cure"),
    [
        (CPU_BUILD, "limited", "2.13.0+cpu is a build without CUDA", "remove .venv and run scripts/profile again"),
        (OLD_DRIVER, "limited", "driver on your system is too old", "update the driver to one for CUDA 13.0"),
        ("torch cannot be imported: no libcudart", "limited", "no libcudart", "remove .venv"),
        (WORKS, "ok", "NVIDIA H200", ""),
    ],
)
def test_the_doctor_asks_torch_about_the_gpu_that_the_driver_lists(driver, monkeypatch, torch, state, cause, cure):
    driver("echo 'NVIDIA H200, 580.1, Disabled, 143771 MiB'")
    monkeypatch.setattr(health, "torch_of_child", lambda: torch)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = gpu_line()
    assert (found.state, cause in found.detail, cure in found.fix) == (state, True, True), found
    assert "NVIDIA H200" in found.detail


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_was_hidden_on_purpose_is_told_from_an_old_driver(monkeypatch, hidden):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    cause, cure = obstacle(OLD_DRIVER)
    assert "CUDA_VISIBLE_DEVICES" in cause and cure == "unset CUDA_VISIBLE_DEVICES"
    assert obstacle(WORKS) is None


def test_a_child_tells_its_torch(monkeypatch):
    torch = pytest.importorskip("torch")
    found = unused_gpu.torch_of_child()
    assert found == Torch(torch.__version__, torch.version.cuda or "", torch.cuda.is_available(), found.complaint)


def test_a_child_that_cannot_import_torch_is_no_traceback(monkeypatch):
    monkeypatch.setattr(unused_gpu, "ASK", "import no_such_torch")
    assert "no_such_torch" in unused_gpu.torch_of_child()
    monkeypatch.setattr(unused_gpu, "ASK", "import time; time.sleep(60)")
    monkeypatch.setattr(unused_gpu, "DEADLINE_S", 0.1)
    assert "does not answer" in unused_gpu.torch_of_child()
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert "does not answer" in unused_gpu.torch_of_child()


def test_a_driver_that_hangs_or_fails_is_a_finding(driver, monkeypatch):
    driver("echo 'Failed to initialize NVML' >&2", "exit 9")
    found = gpu_line()
    assert found.state == "limited" and "Failed to initialize NVML" in found.detail
    driver("exec sleep 60")
    monkeypatch.setattr(unused_gpu, "DEADLINE_S", 0.1)
    found = gpu_line()
    assert found.state == "limited" and "does not answer" in found.detail
    with pytest.raises(DriverSilent):
        listed()
    assert passed_over() == ""


def test_a_sentence_says_what_is_passed_over(driver, monkeypatch):
    driver("echo 'NVIDIA H200'")
    monkeypatch.setattr(unused_gpu, "torch_of_child", lambda: CPU_BUILD)
    assert passed_over().startswith("NVIDIA H200 is here, but torch 2.13.0+cpu is a build without CUDA: remove .venv")
    monkeypatch.setattr(unused_gpu, "torch_of_child", lambda: WORKS)
    assert passed_over() == ""


def test_a_device_that_was_asked_for_says_why_it_cannot_be_had(driver, monkeypatch):
    devices = pytest.importorskip("seqroof.profiler.devices", exc_type=ImportError)
    if devices.torch.cuda.is_available():
        pytest.skip("torch can use the GPU of this machine")
    monkeypatch.setattr(unused_gpu, "torch_of_child", lambda: CPU_BUILD)
    driver("echo 'NVIDIA H200'")
    with pytest.raises(devices.DeviceError, match="is a build without CUDA: remove"):
        devices.open_device("cuda")


def test_a_run_that_went_to_the_cpu_says_so_in_its_record(tmp_path):
    supervisor = scripted.Scripted()
    supervisor.opened |= {"unused_gpu": "NVIDIA H200 is here, but torch cannot use it."}
    made = scripted.session(tmp_path, supervisor)
    facts = {"command": "seqroof profile", "commit": "", "created": "2026-11-22T00:00:00", "tool": "seqroof 0"}
    run = made.record("complete", advice="", **facts)
    assert [found.text for found in run.observations if found.id == "unused-gpu"] == [supervisor.opened["unused_gpu"]]


def test_a_sentence_is_said_once(capsys):
    for _ in range(3):
        progress.say_once("a GPU of this test is here")
        progress.say_once("")
    assert capsys.readouterr().err == "seqroof: a GPU of this test is here\n"


def test_triton_of_a_nightly_torch_is_known(monkeypatch):
    from seqroof.profiler import packages

    def version(name):
        if name == "pytorch-triton":
            return "3.9.0+git1"
        raise packages.metadata.PackageNotFoundError

    monkeypatch.setattr(packages.metadata, "version", version)
    assert packages.version_of("triton") == "3.9.0+git1" and packages.version_of("torch") == ""
    (found,) = [finding for finding in health.examine() if finding.what == "triton"]
    assert found.state == "ok"
