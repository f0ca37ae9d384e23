"""A session whose worker follows a script: what it would answer, and when it would die."""

import stand_in_worker
from round_machine import ROUND

from seqroof.profiler.journal import Journal
from seqroof.profiler.request import Request
from seqroof.profiler.roofs import Roofs
from seqroof.profiler.session import Session
from seqroof.profiler.supervisor import WorkerDied
from seqroof.scripts import run_folder
from seqroof.scripts.progress import Reporter


class Scripted:
    """Answers each request for a group with the next entry: events, or an exception to raise."""

    interpret = False

    def __init__(self, *script):
        self.script = list(script)
        self.asked = []
        self.opened = next(iter(stand_in_worker.answers({"op": "open"})))
        self.restarts = 0

    def ask(self, op, deadline_s, most_s=None, **request):
        self.asked.append(tuple(request["implementations"]))
        for event in self.script.pop(0):
            if isinstance(event, BaseException):
                raise event
            yield event

    def one(self, op, deadline_s, wanted, **request):
        answers = stand_in_worker.answers({"op": op, **request})
        return next((event for event in answers if event["event"] == wanted), {})

    def restart(self):
        self.restarts += 1
        if self.script and self.script[0] == "no worker":
            raise WorkerDied("crashed", "the device is gone")


def begun(name, stage="check"):
    return {"event": "begin", "implementation": name, "stage": stage}


def whole(*names):
    request = {"op": "group", "implementations": list(names)}
    return list(stand_in_worker.answers(request))


def session(folder, supervisor, resume=False):
    reporter = Reporter(quiet=True)
    made = Session(Request(), supervisor, reporter, Roofs(supervisor, reporter, ROUND))
    made.groups = [stand_in_worker.group(1)]
    journal = Journal(folder)
    made.open_journal(journal, run_folder.earlier_events(journal, made) if resume else [])
    return made


def statuses(made):
    return {point.implementation: point.status for point in made.points}
