"""Progress: one live line where a terminal can rewrite it, else plain lines."""

import io

import pytest

from seqroof.scripts.progress import Reporter


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "term", "plain"), [(Terminal, "xterm", 0), (Terminal, "dumb", 2), (io.StringIO, "xterm", 2)]
)
def test_a_terminal_that_cannot_rewrite_a_line_gets_plain_ones(monkeypatch, stream, term, plain):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):  # they overrule what a stream says of itself
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("sys.stderr", stream())
    with Reporter() as reporter:
        reporter.stage("starting the worker")
        reporter.planned([{}])
        reporter.finished(0, [])
        shown = reporter.console.file.getvalue()
    lines = [line for line in shown.splitlines() if line.startswith("seqroof: ")]
    assert len(lines) == plain
    assert not plain or lines[0] == "seqroof: starting the worker"
