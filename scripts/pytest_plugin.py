"""A pytest plug-in: the fixture `seqroof` asserts how near a callable is to its roof, or that it is no slower.

It is loaded by every pytest where seqroof is installed, so nothing but pytest is imported before the fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from seqroof.roofline.ratio import Ratio
    from seqroof.roofline.record import Point, Run

# What a test does whose measurement decides nothing. A failure says that the code is worse, which was not shown; a skip
# is counted and listed with its reason. Where a gate must not pass unproven, "fail" is the choice.
Ambiguous = Literal["skip", "fail"]
DEFAULT_AMBIGUOUS: Ambiguous = "skip"
# As in `seqroof compare`.
DEFAULT_BAND = 0.01


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the fixture."""
    group = parser.getgroup("seqroof")
    group.addoption("--seqroof-against", metavar="RUN", help="the run that no_slower() compares with")
    group.addoption("--seqroof-save", metavar="FOLDER", help="write what no_slower() timed as a run, for a later one")


class Measured:
    """The fixture of one test; `kept` collects the points of the whole session."""

    def __init__(self, name: str, against: str | None, kept: list[tuple[Any, Any, Any]]) -> None:
        self.name = name
        self.against = against
        self.kept = kept

    def at_least(
        self,
        share: float,
        fn: Callable[..., Any],
        inputs: Any,
        work: Any,
        *,
        name: str = "",
        of: Literal["machine", "design"] = "machine",
        ambiguous: Ambiguous = DEFAULT_AMBIGUOUS,
        **options: Any,
    ) -> Point:
        """Assert that `fn(*inputs)` reaches a share of what the machine, or its own design, allows.

        The whole interval counts, the roof's uncertainty included: above `share` the test passes, below it fails.
        name : tells several measurements of one test apart. options : those of `seqroof.profiler.measure`. Returns the
        point.
        """
        from seqroof.profiler import measure
        from seqroof.roofline.units import percent

        name = self._named(name)
        point = measure(fn, inputs, work, name=name, **options)
        found = point.best_fraction if of == "machine" else point.attainable_fraction
        if found is None:
            pytest.fail(f"{name} has no share of the {of}: {point.reason or 'its floor is not known'}", pytrace=False)
        told = f"{name} reaches {percent(found.value)} [{percent(found.low)}, {percent(found.high)}] of the {of}"
        if found.high < share:
            pytest.fail(f"{told}; {percent(share)} was expected. {point.gap}", pytrace=False)
        if found.low < share:
            _undecided(f"{told}, which does not decide whether it is {percent(share)}: measure longer", ambiguous)
        return point

    def no_slower(
        self,
        fn: Callable[..., Any],
        inputs: Any,
        than: Callable[..., Any] | Path | str | None = None,
        *,
        name: str = "",
        band: float = DEFAULT_BAND,
        ambiguous: Ambiguous = DEFAULT_AMBIGUOUS,
        **options: Any,
    ) -> Ratio:
        """Assert that `fn(*inputs)` is not slower than another callable, or than a run holds under this test's name.

        than : a callable, which is timed in turn with `fn`; or a run; by default that of --seqroof-against.
        name : tells several measurements of one test apart. options : those of `seqroof.profiler.compare`.
        Returns the ratio of the times.
        """
        from seqroof.roofline.ratio import advice, verdict

        options["name"] = name = self._named(name)
        ratio = _beside(fn, inputs, than, options) if callable(than) else self._since(fn, inputs, than, options)
        interval = f" [{ratio.low:.3f}, {ratio.high:.3f}]" if ratio.low is not None else ""
        told = f"{name} takes {ratio.value:.3f}{interval} times as long as {_called(than)}"
        if verdict(ratio, band) == "SLOWER":
            pytest.fail(f"{told}; up to {1 + band:g} was allowed", pytrace=False)
        if ratio.high is None or ratio.high > 1 + band:
            _undecided(f"{told}, which does not decide whether it is slower: {advice(ratio, band)}", ambiguous)
        return ratio

    def _named(self, name: str) -> str:
        return f"{self.name} {name}".strip()

    def _since(self, fn: Callable[..., Any], inputs: Any, than: Path | str | None, options: dict) -> Ratio:
        from seqroof.profiler.versus import here, time_alone
        from seqroof.roofline.compare import noise_between
        from seqroof.roofline.ratio import unpaired

        point = time_alone(fn, inputs, **options)
        machine, environment = here(inputs)
        self.kept.append((point, machine, environment))
        if than is None and self.against is None:
            pytest.skip("nothing to compare with: name a run with --seqroof-against, or a callable")
        base = _load(Path(than or self.against or ""))
        run = _run([point], machine, environment)
        old = _counterpart(base, run, point)
        assert old.time_s and point.time_s
        noise = noise_between(base, run, _stored(machine.id))
        return unpaired(old.time_s, point.time_s, noise.value, noise.freedom)


def _beside(fn: Callable[..., Any], inputs: Any, than: Callable[..., Any], options: dict) -> Ratio:
    from seqroof.profiler import compare

    return compare(fn, than, inputs, **options).ratio


def _load(path: Path) -> Run:
    from seqroof.roofline.store import RunFileError, load

    try:
        return load(path)
    except RunFileError as error:
        pytest.fail(str(error), pytrace=False)


def _stored(machine: str) -> Any:
    from .stored_noise import stored_noise

    return stored_noise(machine)


def _counterpart(base: Run, new: Run, point: Point) -> Point:
    """The point of a baseline that is this one; another machine, or a baseline without it, fails the test."""
    from seqroof.roofline.compare import differences, set_up

    differing = differences(*(set_up(run.machine.id, run.environment) for run in (base, new)))
    if differing:
        pytest.fail(
            f"The baseline comes from another machine or set-up ({'; '.join(differing)}), so a ratio would compare "
            "machines; save a baseline here with --seqroof-save.",
            pytrace=False,
        )
    found = next((old for old in base.points if old.key == point.key and old.status == "ok" and old.time_s), None)
    if found is None:
        pytest.fail(f"The baseline does not hold {point.kernel}; save a new one with --seqroof-save.", pytrace=False)
    return found


def _called(than: Any) -> str:
    return getattr(than, "__name__", "the other callable") if callable(than) else "the baseline"


def _undecided(text: str, ambiguous: Ambiguous) -> None:
    text = f"AMBIGUOUS: {text}"
    if ambiguous == "fail":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def _run(points: list[Any], machine: Any, environment: Any) -> Run:
    from seqroof.roofline.record import Run

    from .stored_noise import with_noise
    from .version import VERSION

    made = Run(
        tool=f"seqroof {VERSION}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command="pytest --seqroof-save",
        machine=machine,
        environment=environment,
        points=tuple(points),
    )
    return with_noise(made)


_KEPT = pytest.StashKey[list]()


@pytest.fixture
def seqroof(request: pytest.FixtureRequest) -> Measured:
    """Assertions about time: `at_least(share, fn, inputs, work)` and `no_slower(fn, inputs, than)`."""
    kept = request.config.stash.setdefault(_KEPT, [])
    return Measured(request.node.name, request.config.getoption("--seqroof-against"), kept)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what was timed, where that was asked for."""
    folder, kept = session.config.getoption("--seqroof-save"), session.config.stash.get(_KEPT, [])
    if folder and kept:
        from seqroof.roofline.store import save

        Path(folder).mkdir(parents=True, exist_ok=True)
        save(_run([point for point, _, _ in kept], *kept[-1][1:]), Path(folder))
