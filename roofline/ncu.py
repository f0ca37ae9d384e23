"""Reads what `ncu --csv` prints, and sums kernels up to the bytes of a call.

Both layouts are understood: long, one metric per line, and wide, one kernel per line with a line of units below the
titles. Numbers may be grouped and split as any locale does. Only counts are taken: ncu measures durations with clocks
and caches of its own making.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .telemetry import Counted

DRAM_READ, DRAM_WRITE = "dram__bytes_read.sum", "dram__bytes_write.sum"
CACHE = "lts__t_bytes.sum"
TENSOR = "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active"
CYCLES = "sm__cycles_active.avg"
# Without these a file tells no bytes; the others are extra.
BYTES = (DRAM_READ, DRAM_WRITE)
# Few enough that one run of a kernel counts them all: a second run would find what the first left in the caches.
MEMORY = (*BYTES, CACHE)
PIPE = (TENSOR, CYCLES)
METRICS = (*MEMORY, *PIPE)
# ncu scales by powers of ten; a sector of DRAM and of the L2 cache is 32 bytes on every NVIDIA GPU since Kepler.
_UNITS = {"byte": 1.0, "kbyte": 1e3, "mbyte": 1e6, "gbyte": 1e9, "tbyte": 1e12, "sector": 32.0, "ksector": 32e3}
_UNITS |= {"msector": 32e6, "gsector": 32e9, "%": 0.01, "cycle": 1.0, "kcycle": 1e3, "mcycle": 1e6, "gcycle": 1e9}
# Other names under which a quantity appears; the sectors are turned into bytes by their unit.
_ALIASES = {
    "dram__sectors_read.sum": DRAM_READ,
    "dram__sectors_write.sum": DRAM_WRITE,
    "lts__t_sectors.sum": CACHE,
    "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active": TENSOR,
}


class NcuError(ValueError):
    """A file that ncu did not write, or not as CSV. The text is for people."""


@dataclass
class Launch:
    """One launch of a kernel and what was counted of it, in bytes, cycles and shares."""

    name: str
    values: dict[str, float] = field(default_factory=dict)


def parse(text: str, needed: Sequence[str] = BYTES) -> list[Launch]:
    """All launches in the order of the file; raises `NcuError` with a sentence, also where none has a needed metric."""
    rows = _rows(text)
    if not rows:
        raise NcuError("no table of ncu in it: a line with the title 'Kernel Name' was expected (ncu --csv)")
    titles, body = rows[0], rows[1:]
    long = "Metric Name" in titles
    columns = ("Metric Name", "Metric Value") if long else ()
    missing = [title for title in columns if title not in titles]
    if missing:
        raise NcuError(f"its table has no column {missing[0]!r}")
    launches = _long(titles, body) if long else _wide(titles, body)
    if not any(name in launch.values for launch in launches for name in needed):
        raise NcuError(f"no kernel in it has {' or '.join(needed)}: count them with --metrics")
    return launches


def _rows(text: str) -> list[list[str]]:
    """The table with its titles first; what ncu and the program print around it is left out."""
    lines = text.removeprefix("\ufeff").splitlines()
    start = next((i for i, line in enumerate(lines) if re.search(r'(^|[",;\t])Kernel Name[",;\t]', line)), None)
    if start is None:
        return []
    separator = max(",;\t", key=lines[start].count)
    table = [line for line in lines[start:] if line and not line.startswith("==")]
    found = list(csv.reader(io.StringIO("\n".join(table)), delimiter=separator))
    return [row for row in found if len(row) == len(found[0])]


def _long(titles: Sequence[str], body: Sequence[Sequence[str]]) -> list[Launch]:
    place = {title: index for index, title in enumerate(titles)}
    comma = _decimal_comma(row[place["Metric Value"]] for row in body)
    found: dict[tuple[str, str], Launch] = {}
    for row in body:
        name = row[place["Kernel Name"]]
        key = (row[place["ID"]] if "ID" in place else "", name)
        launch = found.setdefault(key, Launch(name))
        unit = row[place["Metric Unit"]] if "Metric Unit" in place else ""
        _keep(launch, row[place["Metric Name"]], unit, row[place["Metric Value"]], comma)
    return list(found.values())


def _wide(titles: Sequence[str], body: Sequence[Sequence[str]]) -> list[Launch]:
    place = titles.index("Kernel Name")
    # The line of units has no kernel; files without one are in base units.
    units = next((row for row in body if not row[place]), [""] * len(titles))
    launches = [row for row in body if row[place]]
    metrics = [index for index, title in enumerate(titles) if "__" in title]
    comma = _decimal_comma(row[index] for row in launches for index in metrics)
    found = []
    for row in launches:
        launch = Launch(row[place])
        for index in metrics:
            _keep(launch, titles[index], units[index], row[index], comma)
        found.append(launch)
    return found


def _keep(launch: Launch, metric: str, unit: str, text: str, comma: bool) -> None:
    """Note a metric that is wanted and known; what is "n/a" stays unknown."""
    value, name = number(text, comma), _ALIASES.get(metric, metric)
    if value is None or name not in METRICS:
        return
    unit = unit.strip().lower() or ("%" if "pct" in metric else "sector" if "sectors" in metric else "")
    if unit and unit not in _UNITS:
        return
    launch.values[name] = value * _UNITS.get(unit, 1.0)


def _decimal_comma(texts: Iterable[str]) -> bool:
    """Whether a comma splits off the fraction, as the clear cases say: "9,5", "1.234,5", "1.234.567"."""
    for text in (text.strip() for text in texts):
        if re.fullmatch(r"\d+,(\d{1,2}|\d{4,})|\d{1,3}(\.\d{3})+,\d+|\d{1,3}(\.\d{3}){2,}", text):
            return True
        if re.fullmatch(r"\d+\.(\d{1,2}|\d{4,})|\d{1,3}(,\d{3})+\.\d+|\d{1,3}(,\d{3}){2,}", text):
            return False
    return False


def number(text: str, comma: bool = False) -> float | None:
    """A number as a locale writes it, `comma` splitting off its fraction; None for "n/a", "nan" and the like."""
    text = re.sub(r"[\s'\u00a0\u202f]", "", text)
    text = text.replace(".", "").replace(",", ".") if comma else text.replace(",", "")
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value == value and abs(value) != float("inf") else None


def summed(launches: Sequence[Launch], calls: float, how: str) -> Counted:
    """Counts per call of launches that belong to `calls` calls."""
    if not launches:
        return Counted(reason="no kernel was seen", how=how)

    def total(name: str) -> float | None:
        values = [launch.values[name] for launch in launches if name in launch.values]
        return sum(values) / calls if len(values) == len(launches) else None

    unknown = [name for name in BYTES if total(name) is None]
    names = Counter(launch.name for launch in launches)
    return Counted(
        dram_read_bytes=total(DRAM_READ),
        dram_write_bytes=total(DRAM_WRITE),
        cache_bytes=total(CACHE),
        tensor_share=_tensor_share(launches),
        launches=round(len(launches) / calls),
        kernels=tuple(names),
        provenance="measured",
        how=how,
        reason=f"not counted for every kernel: {', '.join(unknown)}" if unknown else "",
    )


def _tensor_share(launches: Sequence[Launch]) -> float | None:
    """Activity of the tensor pipe over all launches, weighted by their cycles where these are known."""
    known = [launch.values for launch in launches if TENSOR in launch.values]
    weights = [values.get(CYCLES, 1.0) for values in known]
    if not known or not sum(weights):
        return None
    return sum(values[TENSOR] * weight for values, weight in zip(known, weights)) / sum(weights)
