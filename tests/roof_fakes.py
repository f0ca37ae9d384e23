"""A worker, a watcher and a calibration copy for tests of roofs that measure nothing."""

from round_machine import timing

from seqroof.roofline.calibration import Look


class FakeSupervisor:
    """Answers with prepared ceilings and with what it says, as text; an exception among them is raised."""

    opened = {"id": "round", "name": "round numbers", "kind": "cpu"}

    def __init__(self, parts=(), again=(), products=()):
        """products : what the float32 product, asked for alone, is now; as it was where nothing is left to say."""
        self.parts, self.again, self.products = list(parts), list(again), list(products)
        self.starts = 0

    def restart(self):
        self.starts += 1

    def ask(self, op, silence_s, **request):
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            if isinstance(part, str):
                yield {"event": "progress", "text": part}
                continue
            yield {"event": "ceilings", "ceilings": [made.model_dump() for made in part]}

    def one(self, op, silence_s, wanted, known):
        if [(entry["level"], entry["dtype"]) for entry in known] == [("simt", "fp32")]:
            value = self.products.pop(0) if self.products else known[0]["value"]
            return {"ceilings": [known[0] | {"value": value}]}
        return {"ceilings": [made.model_dump() for made in self.again.pop(0)]}


class Silent:
    def stage(self, text, detail=""):
        pass


def look(bandwidth, width=0.0, **more):
    """A calibration copy of 1000 bytes at so many bytes per second."""
    fields = {"moved_bytes": 1000, "cache_bytes": 100, "clock": "host", "when": "2026-11-21"}
    return Look(**(fields | {"time_s": timing(1000 / bandwidth, width)} | more))
