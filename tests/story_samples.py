"""A made-up run that fills every section of a page: claims, equal layers, maps, and points of the chart."""

from __future__ import annotations

import claim_samples
import samples
from round_machine import point

from seqroof.roofline import regime
from seqroof.roofline.experiments import Attribution
from seqroof.roofline.machine import Machine
from seqroof.roofline.record import Grid, Point, Run
from seqroof.roofline.work import Work, terms

# Sections of the page in the order of the story.
SECTIONS = ["question", "machine", "roofline", "walks", "map", "contrast", "claims", "helps", "method"]


def recurrence(B: int, H: int, T: int) -> Work:
    """The sums of an LSTM that decide its wall, in fp32."""
    weights, state = 32 * H * H, 4 * B * H
    lines = (
        *terms("matmul_flops", ("products", 16 * B * T * H * H, "")),
        *terms("read_bytes", ("weights and inputs", weights + T * state, "")),
        *terms("write_bytes", ("outputs", T * state, "")),
        *terms("streamed_bytes", ("at every step", T * (weights + 2 * state), "")),
        *terms("hoisted_bytes", ("at every step", T * (weights // 2 + 2 * state), "")),
        *terms("exchange_bytes", ("state", state, "")),
    )
    return Work(terms=lines, depth=T, weight_bytes=weights, recurrent_bytes=weights // 2, tokens=B * T)


def grids(kernel: str = "lstm", on: Machine | None = None) -> tuple[Grid, Grid]:
    """Maps of a recurrence as a record keeps them."""
    streamed, best = regime.grids(kernel, recurrence, "fp32", on or samples.machine("cpu"))
    return regime.stored(streamed), regime.stored(best)


def spot(T: int, bound: str = "cache", seen: str = "serial", **changes: object) -> Point:
    """A measured LSTM on its map, whose experiments name a wall."""
    shape = {"B": 4, "T": T, "I": 128, "H": 128, "L": 1, "D": 1, "dilation": 1, "ragged": 0}
    fields = {"kernel": "lstm", "shape": shape, "dtype": "fp32", "cache": "warm", "bound": bound}
    fields |= {"status": "ok", "headline": True, "time_s": samples.timing(1e-3), "direction": "forward"}
    seen_as = Attribution(wall=seen, threads=2, reason="slower with twice the steps")  # type: ignore[arg-type]
    return point(samples.timing(1e-3)).model_copy(update=fields | {"attribution": seen_as} | changes)


def story_run(turned: str = "", **changes: object) -> Run:
    """A run with charted points, spots on its maps, the claims' rows and their evidence."""
    base = samples.run("cpu")
    charted = (p.model_copy(update={"estimate_s": 0.8 * p.time_s.median} if p.time_s else {}) for p in base.points)
    points = (*charted, *claim_samples.points(turned), spot(128), spot(1024, bound="serial"))
    fields = {"points": points, "grids": (*grids(), *grids("gru")), "evidence": claim_samples.evidence(turned)}
    return base.model_copy(update=fields | {"suite": "claims"} | changes)
