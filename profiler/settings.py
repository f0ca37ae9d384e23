"""Settings of the whole process that decide what every later call costs or computes, and whether they have changed.

Threads, processors, how precisely products are made, and what else makes the operators of torch slower, or other ones:
deterministic algorithms, the search for anomalies, a default device, backends that are switched off. They are
remembered before code of a kernel file runs and compared afterwards; what has changed is named and put back.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _device

_BACKENDS = torch.backends
_THREADS = (torch.get_num_threads, torch.set_num_threads)
_PRECISION = (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision)
_DTYPE = (torch.get_default_dtype, torch.set_default_dtype)
# Attributes of torch.backends; those that this version of torch does not have are left out.
_SWITCHES = (
    "cuda.matmul.fp32_precision",
    "cuda.matmul.allow_fp16_reduced_precision_reduction",
    "cuda.matmul.allow_bf16_reduced_precision_reduction",
    "cudnn.conv.fp32_precision",
    "cudnn.rnn.fp32_precision",
    "cudnn.enabled",
    "cudnn.benchmark",
    "cudnn.deterministic",
    "mkldnn.matmul.fp32_precision",
    "mkldnn.conv.fp32_precision",
    "mkldnn.rnn.fp32_precision",
    "mkldnn.enabled",
    "mkldnn.deterministic",
)
# Switches of the backends of scaled_dot_product_attention, which are functions.
_ATTENTION = ("flash_sdp", "mem_efficient_sdp", "math_sdp", "cudnn_sdp")
# Where nothing is chosen, torch computes as IEEE 754 says; both names mean the same.
_SAME = {"none": "ieee"}


@dataclass(frozen=True)
class Setting:
    """One setting: what people call it, and how it is read and written."""

    called: str
    get: Callable[[], Any]
    put: Callable[[Any], object]

    def read(self) -> Any:
        """The value; where torch refuses to tell because two of its switches contradict each other, that it does."""
        try:
            return self.get()
        except RuntimeError:
            return "contradictory"


def _switch(path: str) -> Setting | None:
    *words, name = path.split(".")
    owner: Any = _BACKENDS
    for word in words:
        owner = getattr(owner, word, None)
    if owner is None or not hasattr(owner, name):
        return None
    return Setting(f"torch.backends.{path}", lambda: getattr(owner, name), lambda value: setattr(owner, name, value))


def _attention(name: str) -> Setting:
    return Setting(
        f"torch.backends.cuda.enable_{name}",
        getattr(_BACKENDS.cuda, f"{name}_enabled"),
        getattr(_BACKENDS.cuda, f"enable_{name}"),
    )


def choose_determinism(mode: int) -> None:
    """Choose deterministic algorithms by torch's debug modes: 0 for none, 1 to warn and 2 to raise where there is none.

    torch.set_deterministic_debug_mode would leave the switch of torch.compile as it was.
    """
    torch.use_deterministic_algorithms(mode > 0, warn_only=mode == 1)


def _all() -> list[Setting]:
    """In the order in which they can be put back: the precision of all backends first, then that of each."""
    found = [
        Setting("the number of threads", *_THREADS),
        Setting("the default dtype", *_DTYPE),
        Setting("torch's float32_matmul_precision", *_PRECISION),
        Setting("torch's deterministic_debug_mode", torch.get_deterministic_debug_mode, choose_determinism),
        Setting("torch's anomaly detection", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        # torch.get_default_device() says "cpu" for none too, and one that is set makes every call take longer.
        Setting("the default device", lambda: _device.CURRENT_DEVICE, torch.set_default_device),
    ]
    if hasattr(os, "sched_setaffinity"):
        affinity = (lambda: os.sched_getaffinity(0), lambda cores: os.sched_setaffinity(0, cores))
        found.append(Setting("the processors that it may use", *affinity))
    found += map(_attention, _ATTENTION)
    return found + [switch for path in _SWITCHES if (switch := _switch(path)) is not None]


class Settings:
    """All settings as they were remembered."""

    def __init__(self) -> None:
        self._settings = _all()
        self._known: list[Any] = []

    def remember(self) -> None:
        """Take the settings as they are for those of the run."""
        self._known = [setting.read() for setting in self._settings]

    def changed(self) -> list[str]:
        """Name what has changed since, with both values, and put it back; empty where nothing was touched."""
        pairs = [(setting, known, setting.read()) for setting, known in zip(self._settings, self._known)]
        different = [pair for pair in pairs if _plain(pair[1]) != _plain(pair[2])]
        if different:
            for setting, known, _ in pairs:  # all: one switch may move others along
                with contextlib.suppress(RuntimeError, OSError):
                    setting.put(known)
        return [f"{setting.called} (from {_text(known)} to {_text(now)})" for setting, known, now in different]


def _plain(value: Any) -> Any:
    return _SAME.get(value, value) if isinstance(value, str) else value


def _text(value: Any) -> str:
    return f"{len(value)} of them" if isinstance(value, set) else str(value)


SETTINGS = Settings()
