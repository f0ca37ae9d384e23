"""The maps that a run keeps: what the worker computes, what the journal holds, and what the command reads back."""

from __future__ import annotations

import pytest
import story_samples
from samples import machine, run
from scripted import Scripted, session, whole
from typer.testing import CliRunner

from seqroof.profiler.mapping import Mapping
from seqroof.profiler.supervisor import Refused, WorkerDied
from seqroof.roofline import regime
from seqroof.roofline.store import save
from seqroof.scripts import mapping
from seqroof.scripts.exits import Exit, Stop
from seqroof.scripts.main import app

PLAIN = [grid.model_dump(mode="json") for grid in story_samples.grids()]


class Mapped:
    """A worker that answers with maps, or with an exception."""

    def __init__(self, answer):
        self.answer, self.asked, self.restarts = answer, [], 0

    def one(self, op, deadline_s, wanted, **request):
        self.asked.append((op, request))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def restart(self):
        self.restarts += 1


@pytest.mark.parametrize(
    ("profiled", "device", "names", "dtype"),
    [(["gru", "attention", "lstm", "gru"], "cpu", ["lstm", "gru"], "fp32"), (["attention"], "cuda", ["lstm"], "bf16")],
)
def test_the_recurrences_of_a_run_are_mapped_in_the_dtype_of_its_device(profiled, device, names, dtype):
    worker, written = Mapped({"event": "mapped", "grids": PLAIN}), []
    made = Mapping(worker)  # type: ignore[arg-type]
    made.run(profiled, machine("gpu" if device == "cuda" else "cpu"), lambda kind, data: written.append((kind, data)))
    ((op, request),) = worker.asked
    assert (op, request["kernels"], request["dtype"]) == ("map", names, dtype)
    again = Mapping(worker)  # type: ignore[arg-type]
    again.recall(written[0][1])
    assert again.grids == made.grids == story_samples.grids()


@pytest.mark.parametrize(
    ("failure", "restarts"), [(Refused("no such kernel", "ContractError"), 0), (WorkerDied("hung", "busy"), 1), ({}, 0)]
)
def test_a_worker_that_fails_at_maps_costs_only_the_maps(failure, restarts):
    worker, written = Mapped(failure), []
    made = Mapping(worker)  # type: ignore[arg-type]
    made.run(["lstm"], machine("cpu"), lambda *line: written.append(line))
    assert made.grids == () and written == [] and worker.restarts == restarts


def test_a_resumed_session_takes_its_maps_from_the_journal(tmp_path):
    first = session(tmp_path, Scripted(whole("reference", "torch")))
    first.run()
    first.mapping.recall({"grids": PLAIN})
    first._write("map", {"grids": PLAIN})
    first.close("interrupted")
    again = session(tmp_path, Scripted(), resume=True)
    assert again.record("complete", "", "", "2026-01-01T00:00:00", "seqroof", "").grids == story_samples.grids()
    again.close("complete")


def test_the_worker_computes_what_the_command_shows():
    from seqroof.kernels import _catalog
    from seqroof.profiler.worker import Worker

    answers = []
    worker = Worker(lambda event, **data: answers.append((event, data)), _catalog)
    worker.handle({"op": "map", "kernels": ["gru"], "dtype": "fp32", "machine": machine("cpu").model_dump(mode="json")})
    (event, data), done = answers
    expected = regime.grids("gru", regime.work_of(_catalog.load("gru"), "fp32"), "fp32", machine("cpu"))
    assert event == "mapped" and done[0] == "done"
    assert data["grids"] == [regime.stored(grid).model_dump(mode="json") for grid in expected]


def test_a_stored_map_has_the_walls_of_the_whole_one():
    for grid in story_samples.grids():
        for wall, floors in grid.floors_s.items():
            assert all(
                floor is None or len(f"{floor:e}".split("e")[0].rstrip("0").replace(".", "")) <= 3 for floor in floors
            )
            assert len(floors) == len(regime.BATCHES) * len(regime.HIDDEN) * len(regime.STEPS), wall


def test_the_command_reads_the_maps_of_a_run_without_torch(tmp_path, monkeypatch):
    """Floors that no machine has: the command shows them only if it reads them."""
    odd = tuple(
        grid.model_copy(update={"floors_s": grid.floors_s | {"serial": (1e9,) * len(grid.floors_s["serial"])}})
        for grid in story_samples.grids()
    )
    save(run("cpu").model_copy(update={"grids": odd}), tmp_path)

    def without_torch(name):
        raise Stop(f"{name} needs torch", Exit.NO_DEVICE)

    monkeypatch.setattr(mapping, "kernel_named", without_torch)
    found = CliRunner().invoke(app, ["map", "lstm", "--on", str(tmp_path)], env={"COLUMNS": "80"})
    assert found.exit_code == 0, found.output
    assert "the chain at every batch" in found.output
    other = CliRunner().invoke(app, ["map", "rnn", "--on", str(tmp_path)])
    assert other.exit_code != 0 and "rnn needs torch" in str(other.exception)
