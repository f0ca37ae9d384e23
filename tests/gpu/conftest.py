"""Everything here needs an NVIDIA GPU; without one it is skipped with that reason."""

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if "/gpu/" in str(item.path):
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU: scripts/gpu_suite runs it there"))
