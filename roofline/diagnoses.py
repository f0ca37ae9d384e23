"""The closed list of what can be wrong with a number: each entry with its cause, its advice and its severity.

`invalid` entries take a measurement out of every percentage; everything else is a warning. A new kind of doubt is a new
entry here, a detector and two tests: one in which it fires and one in which it must not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .record import Warning_


@dataclass(frozen=True)
class Diagnosis:
    """An entry of the list. `cause` and `advice` are templates filled by `warn`."""

    severity: Literal["warning", "invalid"]
    cause: str
    advice: str


CLOSED_LIST: dict[str, Diagnosis] = {
    "above-a-physical-roof": Diagnosis(
        "invalid",
        "{time} is faster than the best possible {floor} ({wall}), by more than the roof's own uncertainty",
        "check that the implementation does all the work and that the roof belongs to this machine: `seqroof ceilings`",
    ),
    "faster-unit": Diagnosis(
        "warning",
        "{time} is below the {dtype} floor of {floor}, and the rate of {unit} products explains it",
        "switch {unit} off where the library is called, or ask for a row of --dtype {unit}",
    ),
    "roof-uncertain": Diagnosis(
        "warning",
        "{time} is below the best possible {floor}, though within {spread}, by which the roof itself is uncertain",
        "measure the roofs longer: `seqroof ceilings --full`, then --roofs with its file",
    ),
    "output-changed-after-timing": Diagnosis(
        "invalid",
        "the result of a timed call differs from the checked one: {detail}",
        "the implementation keeps state between calls or returns before it has finished; make it compute every call",
    ),
    "slower-on-new-data": Diagnosis(
        "invalid",
        "a call on data that it had not met before takes {fresh}, the {cache} calls that were timed {time}",
        "the implementation keeps results of earlier calls; make it compute every call",
    ),
    "unfinished-work": Diagnosis(
        "invalid",
        "of {whole} that its calls take, {rest} are left when their stream has finished: work on another stream",
        "let the stream of the caller wait for every stream that the implementation uses",
    ),
    "measuring-code-replaced": Diagnosis(
        "invalid",
        "the kernel file replaced parts of the measurement: {names}",
        "remove what sets these names; nothing was timed with them replaced that is shown as valid",
    ),
    "settings-changed": Diagnosis(
        "warning",
        "the kernel file changed settings of the whole process when it was loaded: {names}",
        "all rows are measured with the settings of the run, so these were put back; remove what sets them",
    ),
    "not-cold-enough": Diagnosis(
        "warning",
        "cold calls rotate through {rotated} only, which is less than twice the last cache of {cache}",
        "read it as a time between cold and warm; free memory, or use a larger shape, for a cold one",
    ),
    "clock-contradicted": Diagnosis(
        "invalid",
        "calls that took {claimed} by the clock of the worker took {seen} by that of its parent",
        "the implementation changes the clock, or the machine was suspended; repeat the run, then look at its file",
    ),
    "fits-in-cache": Diagnosis(
        "warning",
        "{rate} of compulsory bytes is above the DRAM roof of {roof}: the data stay in a cache between calls",
        "read the warm row against the cache roof, or compare the cold row with DRAM",
    ),
    "another-device": Diagnosis(
        "invalid",
        "measured on {found}, while the run belongs to {wanted}",
        "measure again where the device cannot change in the midst of a run, and keep one run to one device",
    ),
    "no-clock-left": Diagnosis(
        "invalid",
        "{time} is too short for events, and the profiler lost {lost} of {launches} kernels: no clock resolves it",
        "use a larger shape, or read the row of the graph's clock",
    ),
    "two-clocks-disagree": Diagnosis(
        "warning",
        "{time} by the clock {clock}, {other} by {by}; likely {likely}",
        "believe neither before the cause is known; where work runs on several streams, the longer one is right",
    ),
    "profiler-lost-events": Diagnosis(
        "warning",
        "the profiler lost {lost} of {launches} kernels that were started, so it is no second clock here",
        "the time stands, by its own clock alone; run the case by itself for a second one",
    ),
    "launch-bound": Diagnosis(
        "warning",
        "{launched}, {alone}",
        "start it from a CUDA graph, or put more work into one launch",
    ),
    "noisy": Diagnosis(
        "warning",
        "the interval of the median is {width} wide{taken}",
        "close other programs, or measure longer: {flag}",
    ),
    "drifting": Diagnosis(
        "warning",
        "the times have a trend over the rounds: the last third is {drift} away from the first{taken}",
        "wait until the machine is in a steady state, or measure longer: {flag}",
    ),
    "too-short-for-the-clock": Diagnosis(
        "warning",
        "{time} is below {least}, the least that this clock resolves well",
        "use a larger shape, or read the warm row, which times many calls at once",
    ),
    "parts-do-not-add-up": Diagnosis(
        "warning",
        "the parts take {sum} when run alone, the whole takes {time}",
        "read the parts as a ranking: the whole overlaps them, or does what no part contains",
    ),
    "parts-not-measured": Diagnosis(
        "warning",
        "the parts could not be run alone: {reason}",
        "the whole was timed before and stands; run the case again with one implementation to see the parts",
    ),
    "configuration-differs": Diagnosis(
        "warning",
        "configured otherwise than recorded: {changes}",
        "a ratio compares configurations, not code; measure both with the same versions and the same choice",
    ),
    "throttled": Diagnosis(
        "warning",
        "the driver held the clocks down at {share} of the looks, because of: {reason}{below}",
        "{fix}",
    ),
    "clocks-changed": Diagnosis(
        "warning",
        "{what}",
        "let the device reach a steady state, or compare the clock-normalised times",
    ),
    "other-tenant": Diagnosis(
        "warning",
        "others were at work: {what}",
        "measure again when they are gone; roofs and times were taken beside them",
    ),
    "roof-not-held": Diagnosis(
        "warning",
        "the calibration copy ran at {share} of its own roof ({rate} against {roof}) {when}",
        "shares of DRAM may be too low by as much; quieten the machine, and measure roofs and times again",
    ),
    "power-limit-below-default": Diagnosis(
        "warning",
        "the power limit is {limit}, and {default} is what this device is delivered with",
        "compare with runs under the same limit only; seqroof changes no setting of a device",
    ),
    "mig": Diagnosis(
        "warning",
        "this is a slice of a GPU{slice}",
        "compare with the roofs of this slice only; neighbours on the chip share its power",
    ),
    "counters-denied": Diagnosis(
        "warning",
        "hardware counters were asked for and could not be read: {cause}; bytes are modelled",
        "{fix}",
    ),
    "declared-bytes-differ": Diagnosis(
        "warning",
        "counters saw {counted}, {relation} ({declared})",
        "look for what the work() of the kernel's file leaves out or counts twice; its floors rest on it",
    ),
    "compared-across-machines": Diagnosis(
        "warning",
        "{base} and {new} are different machines",
        "read ratios as a comparison of machines, not of kernels",
    ),
}


def warn(name: str, **values: object) -> Warning_:
    """Fill an entry of the closed list; raises KeyError for a name that is not on it."""
    entry = CLOSED_LIST[name]
    return Warning_(
        id=name,
        severity=entry.severity,
        cause=entry.cause.format(**values),
        advice=entry.advice.format(**values),
    )
