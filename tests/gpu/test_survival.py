"""What a kernel can do to a GPU costs its case: the worker is replaced, and the device goes on. And a fleet of GPUs."""

import json
import subprocess
import sys

import pytest
import torch
from user_kernels import GOOD

from seqroof.profiler.supervisor import Supervisor, WorkerDied

# More cycles than a GPU has in a day: a kernel that never ends.
ENDLESS = "if shape.B == 2: torch.cuda._sleep(10**15)"
# Reads far outside of its tensor: the device reports an error from then on, whatever it is asked.
STRAY = "if shape.B == 2: torch.arange(4, device=x.device)[torch.full((4,), 10**9, device=x.device)]"
# Half of the time that torchrun leaves the other ranks, and far more than a first call takes.
DEADLINE_S = 15.0


def asked(supervisor, path, batch):
    request = {"source": str(path), "shape": {"B": batch, "N": 64}, "dtype": "fp32", "direction": "forward"}
    more = {"implementations": ["torch"], "flops": 1, "seed": 0, "options": {"time": False}}
    return {event["event"] for event in supervisor.ask("group", DEADLINE_S, **request, **more)}


@pytest.mark.parametrize(("fault", "status"), [(ENDLESS, "hung"), (STRAY, "crashed")])
def test_the_gpu_can_be_used_after_a_worker_was_lost_on_it(tmp_path, fault, status):
    path = tmp_path / "faulty.py"
    path.write_text(GOOD.replace("{fault}", fault))
    with Supervisor("cuda:0") as supervisor:
        assert "checked" in asked(supervisor, path, 3)
        with pytest.raises(WorkerDied) as death:
            asked(supervisor, path, 2)
        assert death.value.status == status
        supervisor.restart()
        assert "checked" in asked(supervisor, path, 3)


@pytest.mark.timeout(200)
def test_a_fleet_of_all_gpus_yields_one_record(tmp_path):
    # As the quick suite, not as a size that is named, for which the roofs would be measured for more than a minute.
    usual = "[Shape(2), Shape(3, 50)]"
    assert usual in GOOD
    (tmp_path / "mine.py").write_text(GOOD.replace("{fault}", "pass").replace(usual, "[Shape(64, 65536)]"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=gpu", "-m", "seqroof.scripts.fleet"]
    words = ["profile", "mine.py", "--dtype", "fp32", "--budget", "10s", "--out", "f"]
    done = subprocess.run([*torchrun, *words], cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "f" / "run.json").read_text())
    assert [device["state"] for device in run["devices"]] == ["complete"] * torch.cuda.device_count()
    assert {point["device"] for point in run["points"]} == set(range(torch.cuda.device_count()))
    assert all(point["status"] == "ok" for point in run["points"] if point["implementation"] == "torch")
