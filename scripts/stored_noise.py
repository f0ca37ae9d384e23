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


def stored_noise(run: Run) -> Noise | None:
    """The newest noise that `seqroof doctor --aa` measured here on the machine and in the set-up of a run, or None."""
    return max((noise for noise in _kept() if belongs(noise, run)), key=lambda noise: noise.when, default=None)


def _kept() -> list[Noise]:
    """Every self-test that is kept here and can be read."""
    found = []
    for file in sorted(NOISE.glob("*.json")):
        try:
            found.append(Noise.model_validate_json(file.read_bytes()))
        except (OSError, ValidationError):
            continue
    return found


def resolution() -> list[Finding]:
    """What the doctor says of the resolution: every self-test that is kept here, or how to make one."""
    known = _kept()
    if not known:
        fix = "seqroof doctor --aa (half a minute)"
        return [Finding("resolution", "limited", "the smallest change that can be seen was not measured here", fix)]
    told = [(noise, "; ".join(f"{what}: {text}" for what, text in in_words(noise))) for noise in known]
    return [
        Finding(f"resolution of {_named(noise)}", "ok", f"{text} (measured {noise.when[:10]})") for noise, text in told
    ]


def _named(noise: Noise) -> str:
    return noise.machine + (f" with {noise.threads} threads" if noise.threads else "")


def store_noise(noise: Noise) -> Path:
    """Keep a noise, one for every device and number of threads; returns its file."""
    NOISE.mkdir(parents=True, exist_ok=True)
    which = (noise.machine, noise.device_hash or noise.computer_hash, noise.threads and f"{noise.threads}-threads")
    name = re.sub(r"[^a-z0-9-]+", "-", "-".join(str(part) for part in which if part).lower())
    return write_atomically(NOISE / f"{name}.json", noise.model_dump_json(indent=1).encode())


def with_noise(run: Run) -> Run:
    """The run with the noise of its machine, so that it can be compared elsewhere; as it is where that is unknown."""
    noise = stored_noise(run)
    if noise is None:
        return run
    told = "; ".join(f"{what}, {text}" for what, text in in_words(noise))
    text = f"What this machine resolves (identical code against itself, measured {noise.when[:10]}): {told}."
    numbers = {"paired_change": noise.paired_change, "between_change": noise.between_change}
    finding = Observation(id="resolution", text=text, numbers=numbers)
    return run.model_copy(update={"noise": noise, "observations": (*run.observations, finding)})
