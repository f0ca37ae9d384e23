"""Where the noise of a machine is kept: one file per device, beside the roofs."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError

from seqroof.profiler.health import Finding
from seqroof.roofline.compare import belongs
from seqroof.roofline.comparison_model import Noise
from seqroof.roofline.noise import in_words
from seqroof.roofline.record import Observation, Run
from seqroof.roofline.store import write_atomically

NOISE = Path("seqroof-runs") / "noise"


def stored_noise(machine: str) -> Noise | None:
    """The noise of a machine that `seqroof doctor --aa` measured here; None where there is none, or none readable."""
    if not re.fullmatch(r"[a-z0-9-]+", machine):  # the id comes from a file, and names one here
        return None
    try:
        return Noise.model_validate_json((NOISE / f"{machine}.json").read_bytes())
    except (OSError, ValidationError):
        return None


def resolution() -> list[Finding]:
    """What the doctor says of the resolution: every self-test that is kept here, or how to make one."""
    files = sorted(NOISE.glob("*.json"))
    known = [noise for noise in (stored_noise(file.stem) for file in files) if noise is not None]
    if not known:
        fix = "seqroof doctor --aa (half a minute)"
        return [Finding("resolution", "limited", "the smallest change that can be seen was not measured here", fix)]
    told = [(noise, "; ".join(f"{what}: {text}" for what, text in in_words(noise))) for noise in known]
    return [
        Finding(f"resolution of {noise.machine}", "ok", f"{text} (measured {noise.when[:10]})") for noise, text in told
    ]


def store_noise(noise: Noise) -> Path:
    """Keep a noise; returns its file."""
    NOISE.mkdir(parents=True, exist_ok=True)
    return write_atomically(NOISE / f"{noise.machine}.json", noise.model_dump_json(indent=1).encode())


def with_noise(run: Run) -> Run:
    """The run with the noise of its machine, so that it can be compared elsewhere; as it is where that is unknown."""
    noise = stored_noise(run.machine.id)
    if noise is None or not belongs(noise, run):
        return run
    told = "; ".join(f"{what}, {text}" for what, text in in_words(noise))
    text = f"What this machine resolves (identical code against itself, measured {noise.when[:10]}): {told}."
    numbers = {"paired_change": noise.paired_change, "between_change": noise.between_change}
    finding = Observation(id="resolution", text=text, numbers=numbers)
    return run.model_copy(update={"noise": noise, "observations": (*run.observations, finding)})
