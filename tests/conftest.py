"""Options that all tests share."""

import os
from pathlib import Path

import pytest
from round_machine import ROUND

from seqroof.roofline.machine import Machine


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the exhaustive variants too")


def pytest_configure(config: pytest.Config) -> None:
    """Give every process of pytest-xdist cores of its own: threads of two that share cores wait for one another."""
    worker, count = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        own = cores[int(worker.removeprefix("gw")) % count :: count]
        os.sched_setaffinity(0, own or cores)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    for item in items:
        if "long" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="exhaustive; run with --long"))


@pytest.fixture(scope="session")
def roofs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Roofs of this machine that are far away, so that a run measures none and no test depends on its speed."""
    from seqroof.profiler.devices import machine_id
    from seqroof.profiler.host import processor_name

    distant = tuple(
        ceiling.model_copy(update={"value": 1e-15 if ceiling.unit == "s" else 1e15, "low": None, "high": None})
        for ceiling in ROUND.ceilings
    )
    machine: Machine = ROUND.model_copy(update={"id": machine_id(processor_name()), "ceilings": distant})
    file = tmp_path_factory.mktemp("roofs") / "roofs.json"
    file.write_text(machine.model_dump_json())
    return file
