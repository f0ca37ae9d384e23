"""The pages name commands, files and verbs that exist, and every verb is documented."""

from __future__ import annotations

import html
import io
import os
import re
from pathlib import Path

import pytest
from rich.console import Console

from seqroof.roofline import chart, table
from seqroof.roofline.diagnoses import CLOSED_LIST
from seqroof.roofline.store import load
from seqroof.scripts.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [path for name in ("README.md", "CONTRIBUTING.md", "docs/*.md") for path in sorted(ROOT.glob(name))]


def verbs() -> set[str]:
    """The verbs of the command line, as they are typed."""
    return {command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands}


def code(page: str) -> list[str]:
    """The lines of fenced blocks and the contents of code spans."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```[^\n]*\n.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", rest)


def commands(page: str) -> list[str]:
    """The second words of lines that run `seqroof`; a prompt or the path of the environment may stand before it."""
    matches = [re.match(r"(?:\$ )?(?:\.venv/bin/)?seqroof ([a-z][a-z-]*)\b", line.strip()) for line in code(page)]
    return [match[1] for match in matches if match]


def test_the_reader_of_pages_finds_commands():
    page = "`seqroof report RUN`\n```\n$ .venv/bin/seqroof profile lstm_step\nscripts/test\n```\nseqroof is a tool"
    assert commands(page) == ["profile", "report"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_on_a_page_exist(path):
    page = path.read_text()
    assert set(commands(page)) <= verbs(), f"{path.name} names a verb that `seqroof --help` does not list"
    for script in {name for line in code(page) for name in re.findall(r"(?<![\w/.])scripts/(\w+)(?![\w.])", line)}:
        assert os.access(ROOT / "scripts" / script, os.X_OK), f"{path.name} names scripts/{script}, which cannot be run"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_on_a_page_lead_somewhere(path):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)|src(?:set)?=\"([^\"]+)\"", path.read_text())
    local = [name for pair in targets for name in pair if name and not re.match(r"[a-z]+:", name)]
    assert [name for name in local if not (path.parent / name).exists()] == []


@pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="there is no README.md")
def test_every_verb_is_documented():
    named = {verb for path in PAGES for verb in commands(path.read_text())}
    assert verbs() - named == set(), "README.md or docs/ should show a command line with these verbs"


def test_every_verb_says_what_it_does():
    assert [command.callback.__name__ for command in app.registered_commands if not command.callback.__doc__] == []


def test_nobody_is_sent_to_a_package_index_for_seqroof():
    """There is no published package: what is optional is installed from a checkout."""
    rooms = ("kernels", "profiler", "roofline", "scripts")
    files = [*PAGES, *(path for room in rooms for path in (ROOT / room).glob("*.py"))]
    asking = re.compile(r"pip install (?:-\S+ )?['\"]?seqroof\b")
    assert [path.name for path in files if asking.search(path.read_text())] == []


def test_a_stored_baseline_can_be_renewed():
    """A cache is never replaced: every commit needs a key of its own, of which a later job knows the beginning only."""
    example = (ROOT / "docs" / "ci.md").read_text().partition("## A stored baseline")[2].partition("\n## ")[0]
    (restored,) = re.findall(r"uses: actions/cache/restore@.*?\bkey: (.*?)\n", example, re.DOTALL)
    (saved,) = re.findall(r"uses: actions/cache/save@.*?\bkey: (.*?)\n", example, re.DOTALL)
    (beginning,) = re.findall(r"restore-keys: (.*)", example)
    assert restored == saved and saved == beginning + "${{ github.sha }}" and "runner.name" in beginning
    assert "cache-hit" not in example, "it is true for an exact key only"


def test_the_page_of_the_method_lists_every_diagnosis_with_its_severity():
    page = (ROOT / "docs" / "method.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (invalid|warning) \| \S", page, re.MULTILINE)
    assert dict(rows) == {name: entry.severity for name, entry in CLOSED_LIST.items()} and len(rows) == len(CLOSED_LIST)


def test_the_readme_shows_a_recorded_run():
    """Every line of the README's output stands in the rendering of the recorded quick run."""
    recorded = sorted((ROOT / "results").glob("*/quick/run.json"))[-1]
    console = Console(width=80, file=io.StringIO(), highlight=False)
    table.render(load(recorded), console)
    rendered = {line.rstrip() for line in console.file.getvalue().splitlines()}  # type: ignore[attr-defined]
    block = re.findall(r"^```\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)[1]
    shown = [line for line in block.splitlines() if line != "..."]
    assert len(shown) >= 10 and [line for line in shown if line not in rendered] == []


@pytest.mark.parametrize("run", sorted((ROOT / "results").glob("*/*/run.json")), ids=lambda path: path.parent.name)
def test_recorded_runs_can_be_read_and_name_the_commit_they_measured(run):
    found = load(run)
    assert re.fullmatch(r"[0-9a-f]{40}", found.commit) and found.state == "complete" and found.points


@pytest.mark.parametrize(
    "picture", sorted((ROOT / "results").glob("*/*/roofline.svg")), ids=lambda path: path.parent.name
)
def test_the_picture_of_a_recorded_run_says_what_the_run_says(picture):
    """What the run says of its walls is derived anew when the model changes, and the picture has to follow."""
    drawn = re.findall(r"<(?:text|tspan)[^>]*>([^<]+)<", picture.read_text(encoding="utf-8"))
    found = chart.spec([load(picture.parent)], static=True)
    key = [value["text"] for value in found["vconcat"][-1]["data"]["values"]]
    missing = {*key, *found["title"]["subtitle"]} - set(map(html.unescape, drawn))
    folder = picture.parent.relative_to(ROOT)
    assert not missing, f"draw it anew: seqroof report {folder} --svg {folder}/roofline.svg --force"
