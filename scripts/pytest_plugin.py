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
    """The fixture of one test. name : its node id. kept : points of the whole session with their machine, by key."""

    def __init__(self, name: str, against: str | None, kept: dict[str, tuple[Any, Any, Any]]) -> None:
        self.name = name
        self.against = against
        self.kept = kept
        self.own: set[str] = set()

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
            pytest.fail(f"{name} has no share of the {of}: {_why_no_share(point, of)}", pytrace=False)
        told = f"{name} reaches {percent(found.value)} [{percent(found.low)}, {percent(found.high)}] of the {of}"
        if found.high < share:
            pytest.fail(f"{told}; {percent(share)} was expected. {point.gap}", pytrace=False)
        if found.low < share:
            open_ = f"which does not decide whether it is {percent(share)}: measure longer, with a larger budget_s="
            _undecided(f"{told}, {open_}", ambiguous)
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
        """Assert that `fn(*inputs)` is not slower than another callable, or than a run holds of this test.

        than : a callable, which is timed in turn with `fn`; or a run; by default that of --seqroof-against.
        name : tells several measurements of one test apart; a run knows each by the test's id, this name and the sizes
        of the inputs. options : those of `seqroof.profiler.compare`. Returns the ratio of the times.
        """
        from seqroof.roofline.ratio import advice, verdict

        options["name"] = name = self._named(name)
        ratio = _beside(fn, inputs, than, options) if callable(than) else self._since(fn, inputs, than, options)
        interval = f" [{ratio.low:.3f}, {ratio.high:.3f}]" if ratio.low is not None else ""
        told = f"{name} takes {ratio.value:.3f}{interval} times as long as {_called(than)}"
        if verdict(ratio, band) == "SLOWER":
            pytest.fail(f"{told}; up to {1 + band:g} was allowed", pytrace=False)
        if ratio.high is None or ratio.high > 1 + band:
            _undecided(
                f"{told}, which does not decide whether it is slower: {advice(ratio, band, call=True)}", ambiguous
            )
        return ratio

    def _named(self, name: str) -> str:
        return f"{self.name} {name}".strip()

    def _since(self, fn: Callable[..., Any], inputs: Any, than: Path | str | None, options: dict) -> Ratio:
        from seqroof.profiler.versus import here, time_alone
        from seqroof.roofline.compare import noise_between
        from seqroof.roofline.ratio import unpaired

        point = time_alone(fn, inputs, **options)
        machine, environment = here(inputs)
        self._keep(point, machine, environment)
        if than is None and self.against is None:
            pytest.skip("nothing to compare with: name a run with --seqroof-against, or a callable")
        base = _load(_folder_of(Path(than or self.against or ""), machine, environment))
        run = _run([point], machine, environment)
        old = _counterpart(base, run, point)
        assert old.time_s and point.time_s
        noise = noise_between(base, run, _stored(run))
        return unpaired(old.time_s, point.time_s, noise.value, noise.freedom)

    def _keep(self, point: Point, machine: Any, environment: Any) -> None:
        """Hold a point for the run to save; a test that is run again replaces its own."""
        if point.key in self.own:
            pytest.fail(
                f"{point.kernel} was measured twice with inputs of the same sizes, so a baseline could not tell them "
                'apart; give each call of no_slower() a name: name="...".',
                pytrace=False,
            )
        before = next((known for _, other, known in self.kept.values() if other.id == machine.id), environment)
        if before.threads != environment.threads:
            pytest.fail(
                f"torch has {environment.threads} threads in this test and had {before.threads} in an earlier one; a "
                "baseline holds one number for all: call torch.set_num_threads() once, in conftest.py.",
                pytrace=False,
            )
        self.own.add(point.key)
        self.kept[point.key] = (point, machine, environment)


def _why_no_share(point: Point, of: str) -> str:
    """Why a point has no share of the machine, or of its design."""
    floors = point.best_floors_s if of == "machine" else point.floors_s
    if point.status != "ok" or floors is None or floors.largest() is None:
        return point.reason or "its floor is not known"
    return "it takes less time than its floor, so the work, or weights= and chain=, are not what it does"


def _beside(fn: Callable[..., Any], inputs: Any, than: Callable[..., Any], options: dict) -> Ratio:
    from seqroof.profiler import compare

    return compare(fn, than, inputs, **options).ratio


def _own_folder(path: Path, machine: Any, environment: Any) -> Path:
    """Where the run of one of several machines is kept."""
    return path / "-".join(part for part in (machine.id, environment.device_hash) if part)


def _folder_of(path: Path, machine: Any, environment: Any) -> Path:
    """Where the baseline of a machine lies: in a folder of its own where --seqroof-save met several machines."""
    own = _own_folder(path, machine, environment)
    return own if (own / "run.json").exists() else path


def _load(path: Path) -> Run:
    from seqroof.roofline.store import RunFileError, load

    try:
        return load(path)
    except RunFileError as error:
        pytest.fail(str(error), pytrace=False)


def _stored(run: Run) -> Any:
    from .stored_noise import stored_noise

    return stored_noise(run)


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
        sizes = f" with inputs of {point.shape_text}" if point.shape else ""
        pytest.fail(
            f"The baseline does not hold {point.kernel}{sizes}; save a new one with --seqroof-save.", pytrace=False
        )
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


_KEPT = pytest.StashKey[dict[str, tuple[Any, Any, Any]]]()


@pytest.fixture
def seqroof(request: pytest.FixtureRequest) -> Measured:
    """Assertions about time: `at_least(share, fn, inputs, work)` and `no_slower(fn, inputs, than)`."""
    kept = request.config.stash.setdefault(_KEPT, {})
    return Measured(request.node.nodeid, request.config.getoption("--seqroof-against"), kept)


def pytest_configure(config: pytest.Config) -> None:
    """Refuse what could not be kept, or would disturb what is measured, before a test is run."""
    folder = config.getoption("--seqroof-save")
    if not (folder or config.getoption("--seqroof-against")):
        return
    if config.getoption("numprocesses", None) or config.getoption("dist", "no") != "no":
        raise pytest.UsageError(
            "--seqroof-save and --seqroof-against compare times, which tests side by side disturb, and one run is kept "
            "for all of them; run these tests without pytest-xdist: -n 0."
        )
    if folder:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            probe = Path(folder) / ".writable"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            text = f"--seqroof-save: {folder} cannot be written ({error.strerror}); name another folder."
            raise pytest.UsageError(text) from error


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what was timed, where that was asked for: a run for every machine."""
    folder, kept = session.config.getoption("--seqroof-save"), session.config.stash.get(_KEPT, {})
    if not folder or not kept:
        return
    from seqroof.roofline.store import save

    by_machine: dict[tuple[str, str], list[tuple[Any, Any, Any]]] = {}
    for entry in kept.values():
        by_machine.setdefault((entry[1].id, entry[2].device_hash), []).append(entry)
    for entries in by_machine.values():
        _, machine, environment = entries[-1]
        into = _own_folder(Path(folder), machine, environment)
        if len(by_machine) == 1 and not into.exists():
            into = Path(folder)
        try:
            into.mkdir(parents=True, exist_ok=True)
            save(_run([point for point, _, _ in entries], machine, environment), into)
        except OSError as error:
            print(f"\n--seqroof-save: {into} could not be written ({error.strerror}); nothing was kept.")
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
