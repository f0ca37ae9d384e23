"""A worker without torch: it soon answers what a real one would, and notes every request in a file.

The parent's side of a run can be killed many times with it, at a tenth of what starting torch costs. Started as
`python -m stand_in_worker` with the arguments of the real worker; `STAND_IN_LOG` names the file.
"""

import json
import os
import sys
import time

from round_machine import ROUND, timing, work

from seqroof.profiler.lifeline import end_with_parent

GROUPS = 10
ENVIRONMENT = {"python": "3", "torch": "none", "device_hash": "", "threads": 1}


def group(batch):
    """A planned group of two implementations."""
    declared = {"weights": "reread", "chain": "launch", "launches": 1, "hoists": False, "depth": 1, "compiler": {}}
    return {
        "source": "k",
        "kernel": "k",
        "kind": "cpu",
        "shape": {"B": batch},
        "dtype": "fp32",
        "direction": "forward",
        "implementations": ["reference", "torch"],
        "refused": {},
        "work": work().model_dump(mode="json"),
        "memory_bytes": 1,
        "sequence": False,
        "padding_waste": None,
        "receptive_field": None,
        "classes": {"reference": declared, "torch": declared},
    }


def answers(request):
    """The events that answer a request, after about as many seconds as they are worth."""
    op = request["op"]
    if op == "open":
        device = {"name": "stand-in", "id": "stand-in", "kind": "cpu", "torch_device": "cpu", "dtypes": ["fp32"]}
        clocks = {"memory_bytes": 1 << 30, "last_cache_bytes": 1 << 20, "clocks": [["cold", "host"]]}
        yield {"event": "opened", **device, **clocks, "environment": ENVIRONMENT}
    elif op == "plan":
        yield {"event": "planned", "groups": [group(batch) for batch in range(1, GROUPS + 1)]}
    elif op in ("ceilings", "remeasure"):
        time.sleep(0.1)
        yield {"event": "ceilings", "ceilings": [ceiling.model_dump(mode="json") for ceiling in ROUND.ceilings]}
    elif op == "look":
        yield {"event": "looked", "facts": {}, "reasons": {}}
    elif op == "group":
        names = request["implementations"]
        for name in names:
            yield {"event": "begin", "implementation": name, "stage": "check"}
            time.sleep(0.02)
            yield {"event": "checked", "implementation": name, "correctness": {"passed": True}}
        for name in names:
            seconds = 200 + (time.time_ns() % 10**9) * 1e-9  # no two are the same
            timed = {"time_s": timing(seconds).model_dump(), "host_s": None, "peak_memory_bytes": 1, "doubts": []}
            timed |= {"second_clock": None, "telemetry": {}}
            yield {"event": "point", "implementation": name, "cache": "cold", "clock": "host", **timed}


def main():
    """Answer requests until standard input closes."""
    end_with_parent(int(sys.argv[sys.argv.index("--parent") + 1]))
    out = os.fdopen(int(sys.argv[sys.argv.index("--answers") + 1]), "w", buffering=1)
    for line in sys.stdin:
        request = json.loads(line)
        with open(os.environ["STAND_IN_LOG"], "a") as log:
            log.write(json.dumps({"pid": os.getpid(), "op": request["op"], "shape": request.get("shape")}) + "\n")
        for event in (*answers(request), {"event": "done"}):
            out.write(f"{request['secret']} {json.dumps(event)}\n")


if __name__ == "__main__":
    main()
