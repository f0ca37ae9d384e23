"""The record of a run: what the profiler writes, files store, and every table, chart and page reads.

Everything is in SI base units. What is not known is null, with the reason beside it.
"""

from __future__ import annotations

from html import escape as html
from typing import Literal, get_args

from pydantic import Field, model_validator

from ._model import Frozen
from .comparison_model import BesideVendor, Noise
from .experiments import Attribution
from .machine import Machine
from .second_clock import SecondClock
from .telemetry import Counted, Energy, Telemetry
from .units import percent, seconds
from .work import Work

SCHEMA_VERSION = 1

Status = Literal["ok", "wrong", "crashed", "hung", "oom", "skipped", "invalid"]
Wall = Literal["compute", "dram", "cache", "serial"]
WALLS: tuple[Wall, ...] = get_args(Wall)
Direction = Literal["forward", "backward", "both"]
CacheState = Literal["cold", "warm"]
Clock = Literal["events", "graph", "host"]


class Timing(Frozen):
    """Seconds per call.

    median, low, high : the median of all samples and its interval; the interval is the wider of the order-statistic
        interval (95 %, needs six samples) and the spread between rounds.
    rounds_s : the median of each round, for paired comparison. stop : why measuring ended.
    interleaved : times with the same value were taken in turn, round by round; empty where that is not known.
    """

    median: float = Field(gt=0)
    low: float = Field(gt=0)
    high: float = Field(gt=0)
    min: float = Field(gt=0)
    p95: float = Field(gt=0)
    n: int = Field(ge=1)
    rounds: int = Field(ge=1)
    rounds_s: tuple[float, ...] = ()
    stop: str = ""
    interleaved: str = ""

    @model_validator(mode="after")
    def _ordered(self) -> Timing:
        if not self.low <= self.median <= self.high:
            raise ValueError("low, median and high of a time must be in this order")
        return self


class Correctness(Frozen):
    """How far a result is from the float64 reference, beside a plain PyTorch baseline of the same dtype.

    max_error, rms_error : absolute errors, the largest over all outputs relative to what is allowed there.
    allowed_max, allowed_rms : what the rule allows at that output.
    """

    passed: bool
    max_error: float | None = None
    rms_error: float | None = None
    allowed_max: float | None = None
    allowed_rms: float | None = None
    detail: str = ""


class Floors(Frozen):
    """Least possible seconds by wall; null where the machine's ceiling is not known."""

    compute: float | None = None
    dram: float | None = None
    cache: float | None = None
    serial: float | None = None

    def largest(self) -> tuple[Wall, float] | None:
        """The highest of the known floors, or None when none is known."""
        known: list[tuple[Wall, float]] = [(w, value) for w in WALLS if (value := getattr(self, w)) is not None]
        return max(known, key=lambda pair: pair[1]) if known else None


class Fraction(Frozen):
    """A share of what is attainable (1 = all of it) with its interval, the ceiling's own uncertainty included."""

    value: float
    low: float
    high: float


class Intensity(Frozen):
    """Operations per byte."""

    compulsory: float | None = None
    streamed: float | None = None


class Achieved(Frozen):
    """Rates reached: operations and compulsory bytes per second, and streamed bytes per second."""

    flops_per_s: float
    bytes_per_s: float
    streamed_bytes_per_s: float


class Warning_(Frozen):
    """One entry of the closed list of things that can be wrong with a number."""

    id: str
    severity: Literal["warning", "invalid"]
    cause: str
    advice: str


class Part(Frozen):
    """A phase of a kernel, run alone, with walls of its own. Names are those of `Point`."""

    name: str
    time_s: Timing | None = None
    work: Work | None = None
    floors_s: Floors = Floors()
    bound: Wall | None = None
    best_floors_s: Floors | None = None
    best_bound: Wall | None = None
    attainable_fraction: Fraction | None = None
    best_fraction: Fraction | None = None


class Point(Frozen):
    """One implementation of one kernel at one shape, dtype and direction, under one clock and cache state.

    floors_s, bound : of the implementation's own class (`residency` says where its weights live).
    hoists : the input product is done once for all steps. depth : dependent steps of this implementation where they are
        not those of its work. padding_waste : the share of all steps that is padding, in a ragged batch.
    receptive_field : steps that an output sees, its own included, where the kernel limits them.
    launches : kernels of one call as the implementation declares them for the forward pass, null in other directions.
    step_s : time per dependent step. launch_tax_s : what launching adds to each: host clock minus graph clock.
    best_floors_s, best_bound : of the best possible implementation of the same work.
    attribution : the wall as experiments show it, beside the modelled `bound`; None where none were made.
    attainable_fraction : of this design; best_fraction : of the machine; roof_fraction : the classic roofline figure.
    gap : the way from the best floor to the measured time, in words.
    device : the rank of the device that it was measured on, in a run of several.
    estimate_s : modelled time per call (per dependent step: latency plus the largest other floor); never scored.
    normalised_time_s : the time at the device's highest clock, derived, where the wall moves with that clock.
    energy_j : per call without idle power; `energy` says how. counted : bytes as counters saw them.
    """

    kernel: str
    implementation: str
    shape: dict[str, int]
    dtype: str
    direction: Direction
    cache: CacheState
    clock: Clock
    status: Status
    reason: str = ""
    headline: bool = True
    correctness: Correctness | None = None
    time_s: Timing | None = None
    host_s: Timing | None = None
    second_clock: SecondClock | None = None
    work: Work | None = None
    weights: Literal["reread", "kept"] | None = None
    chain: Literal["launch", "graph", "barrier", "inside"] | None = None
    launches: int | None = None
    hoists: bool = False
    depth: int | None = None
    padding_waste: float | None = None
    receptive_field: int | None = None
    residency: Literal["dram", "cache", "chip"] | None = None
    floors_s: Floors | None = None
    floor_notes: dict[str, str] = Field(default_factory=dict)
    bound: Wall | None = None
    contested_with: Wall | None = None
    attribution: Attribution | None = None
    best_floors_s: Floors | None = None
    best_bound: Wall | None = None
    estimate_s: float | None = None
    attainable_fraction: Fraction | None = None
    best_fraction: Fraction | None = None
    roof_fraction: Fraction | None = None
    intensity: Intensity | None = None
    achieved: Achieved | None = None
    gap: str = ""
    step_s: float | None = None
    launch_tax_s: float | None = None
    beside_vendor: BesideVendor | None = None
    peak_memory_bytes: int | None = None
    normalised_time_s: float | None = None
    energy_j: float | None = None
    energy: Energy | None = None
    counted: Counted | None = None
    parts: tuple[Part, ...] = ()
    device: int | None = None
    telemetry: Telemetry = Telemetry()
    compiler: dict[str, int | float | str | None] = Field(default_factory=dict)
    warnings: tuple[Warning_, ...] = ()

    @property
    def key(self) -> str:
        """The identity of a point: kernel, implementation, shape, dtype, direction, cache, clock and device."""
        words = (self.kernel, self.implementation, self.shape_text, self.dtype, self.direction, self.cache, self.clock)
        return " ".join(words) + ("" if self.device is None else f" device {self.device}")

    @property
    def steps(self) -> int:
        """Dependent steps of one call: those of the implementation where it declares them, else those of the work."""
        return self.depth or (self.work.depth if self.work else 1)

    @property
    def shape_text(self) -> str:
        """The shape as it is typed: `B=1,I=2048,H=2048`."""
        return ",".join(f"{name}={value}" for name, value in self.shape.items())

    def facts(self) -> list[tuple[str, str]]:
        """What a single point has to say, as (name, text): for a notebook or a prompt."""
        time = f"{seconds(self.time_s.median)} (measured)" if self.time_s else "not measured"
        interval = f" [{seconds(self.time_s.low)} to {seconds(self.time_s.high)}]" if self.time_s else ""
        share = percent(self.best_fraction.value) if self.best_fraction else "-"
        rows = [
            ("point", f"{self.kernel} {self.implementation} {self.shape_text} {self.dtype} {self.cache}"),
            ("status", f"{self.status} {self.reason}".strip()),
            ("time", time + interval),
            ("second clock", f"{self.second_clock.text()} (measured)" if self.second_clock else "none"),
            ("bound", f"{self.best_bound or 'not known'} (modelled)"),
            ("of the machine", f"{share} (modelled floor over measured time)"),
            ("gap", self.gap),
        ]
        return rows + [(warning.id, f"{warning.cause}; {warning.advice}") for warning in self.warnings]

    def __rich__(self) -> str:
        """Show the point in a terminal that rich writes to."""
        from rich.markup import escape as markup

        return "\n".join(f"[bold]{name}[/bold]: {markup(text)}" for name, text in self.facts())

    def _repr_html_(self) -> str:
        """Show the point in a notebook."""
        rows = "".join(f"<tr><th>{html(name)}</th><td>{html(text)}</td></tr>" for name, text in self.facts())
        return f"<table>{rows}</table>"


class Environment(Frozen):
    """What the numbers depend on besides the machine. Holds no host name, user name or path.

    units, memory_nodes, caches : of a processor, in words: vector and matrix units, NUMA nodes and what may be used of
    them, reported sizes. computer_hash : tells installations apart, empty where that is not known.
    """

    python: str
    torch: str = ""
    triton: str = ""
    cuda: str = ""
    driver: str = ""
    os: str = ""
    cpu: str = ""
    threads: int | None = None
    units: str = ""
    memory_nodes: str = ""
    caches: str = ""
    computer_hash: str = ""
    device_hash: str = ""
    fp_fusion: str = ""
    tf32: str = "off except in tf32 rows"
    clocks: dict[str, float | None] = Field(default_factory=dict)
    power_limit_w: float | None = None
    power_default_w: float | None = None
    mig: str = ""
    ecc: str = ""
    compiler: str = ""


class Grid(Frozen):
    """Floors over axes, for maps: `floors_s[wall]` is a flat list in row-major order of the axes.

    design : whose floors these are: "streamed" (weights read again at every step, a launch for each, as the argument
        describes an LSTM) or "best" (the best possible one).
    """

    kernel: str
    dtype: str
    design: Literal["streamed", "best"] = "streamed"
    axes: dict[str, tuple[float, ...]]
    floors_s: dict[str, tuple[float | None, ...]]


class Evidence(Frozen):
    """A measured fact that is no timing."""

    id: str
    values: dict[str, float | int | str | None]
    how: str


class Observation(Frozen):
    """A finding across points, in words, with the numbers it rests on."""

    id: str
    text: str
    numbers: dict[str, float | str | None] = Field(default_factory=dict)


class DeviceRun(Frozen):
    """One device of several that were measured at once, by one rank each.

    reason : why it is not complete. host : the number of its host, counted from 0 in the order of the ranks.
    start_s, clock_error_s : when it began after the agreed moment, and how far its clock may be off; duration_s : how
        long it measured. crowded : it shared its cores with another rank.
    relative_time : its times over those of the median device of its model, a geometric mean over `common_points`.
    straggler : the interval of relative_time lies above 1 by more than the band of equivalence.
    """

    rank: int
    state: Literal["complete", "interrupted", "lost"]
    reason: str = ""
    host: int | None = None
    machine: Machine | None = None
    environment: Environment | None = None
    start_s: float | None = None
    clock_error_s: float | None = None
    duration_s: float | None = None
    crowded: bool = False
    relative_time: Fraction | None = None
    common_points: int = 0
    straggler: bool = False


class Run(Frozen):
    """One run of `seqroof profile` on one machine, or of a fleet: then `devices` holds one entry for each rank.

    machine, environment : those of the first device, in a fleet.
    noise : how much identical code differs from itself there, as `seqroof doctor --aa` measured it before this run.
    warnings : doubts about all of its numbers.
    """

    schema_version: int = Field(default=SCHEMA_VERSION, strict=True)
    tool: str
    created: str
    command: str
    commit: str = ""
    state: Literal["complete", "interrupted"] = "complete"
    seed: int = 0
    suite: str = ""
    duration_s: float | None = None
    machine: Machine
    environment: Environment
    points: tuple[Point, ...] = ()
    grids: tuple[Grid, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    observations: tuple[Observation, ...] = ()
    noise: Noise | None = None
    warnings: tuple[Warning_, ...] = ()
    devices: tuple[DeviceRun, ...] = ()
