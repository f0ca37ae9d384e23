"""The page as a real browser shows it: no error, no request, no overlap, nothing hostile runs, light and dark."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import browser as browsers
import pytest
import samples
from sequence_samples import depth_run, sequence_run

pytest.importorskip("jinja2", reason="the page needs the report extra")
pytest.importorskip("vl_convert", reason="the page needs the report extra")

from seqroof.roofline import page

RUNS = {
    "gpu": lambda: [samples.run("gpu")],
    "cpu": lambda: [samples.run("cpu")],
    "both": lambda: [samples.run("gpu"), samples.run("cpu")],
    "hostile": lambda: [samples.hostile_run()],
    "crowd": lambda: [samples.crowd(150)],
    "sequences": lambda: [sequence_run()],
    "depths": lambda: [depth_run()],
    "empty": lambda: [samples.run("gpu", points=())],
}
LIMIT_BYTES = 1_500_000
REACH = 40  # pixels between a point and its name

# Everything the chart and the page say in text, with its box and size; what is hidden has no box. The edges of the
# background below texts are no texts.
TEXTS = """
const edge = (node) => getComputedStyle(node).stroke !== "none";
return [...document.querySelectorAll("#chart svg text")].filter((node) => !edge(node)).map((node) => {
  const box = node.getBoundingClientRect();
  return {text: node.textContent, left: box.left, top: box.top, right: box.right, bottom: box.bottom,
          size: parseFloat(getComputedStyle(node).fontSize),
          label: node.closest("g[class*=' labels_']") !== null};
}).filter((text) => text.text && text.right > text.left);
"""
POINTS = """
return [...document.querySelectorAll("#chart svg .points_marks path")].map((node) => {
  const box = node.getBoundingClientRect();
  return {x: (box.left + box.right) / 2, y: (box.top + box.bottom) / 2, number: node.__data__.datum.number};
});
"""
SMALLEST = """
const sizes = [...document.querySelectorAll("body *")].filter((node) => node.getClientRects().length &&
  [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()));
return Math.min(...sizes.map((node) => parseFloat(getComputedStyle(node).fontSize)));
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name, runs in RUNS.items():
        (folder / f"{name}.html").write_text(page.render(runs()), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in RUNS}


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browsers.Browser]:
    if browsers.missing():
        pytest.skip(browsers.missing())
    with browsers.browser(tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


def overlaps(texts: list[dict]) -> list[tuple[str, str]]:
    return [
        (a["text"], b["text"])
        for index, a in enumerate(texts)
        for b in texts[index + 1 :]
        if min(a["right"], b["right"]) - max(a["left"], b["left"]) > 0.5
        and min(a["bottom"], b["bottom"]) - max(a["top"], b["top"]) > 0.5
    ]


def numbers_in(text: str) -> set[str]:
    """The point numbers that a label stands for: "B4-6" is B4, B5 and B6."""
    found = set()
    for part in text.split(","):
        match = re.fullmatch(r"([A-Z]*)(\d+)(?:-(\d+))?", part)
        if match:
            prefix, first, last = match.groups()
            found |= {f"{prefix}{number}" for number in range(int(first), int(last or first) + 1)}
    return found


def away(text: dict, point: dict) -> float:
    dx = max(text["left"] - point["x"], 0, point["x"] - text["right"])
    dy = max(text["top"] - point["y"], 0, point["y"] - text["bottom"])
    return (dx * dx + dy * dy) ** 0.5


@pytest.mark.parametrize("name", RUNS)
def test_page_opens_without_error_or_request(window: browsers.Browser, pages: dict[str, Path], name: str) -> None:
    window.log("browser"), window.log("performance")
    window.open(pages[name])
    assert [entry for entry in window.log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert [url for url in window.requests() if not url.startswith("file://")] == []


@pytest.mark.parametrize("name", ["gpu", "cpu", "both", "hostile", "crowd"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_chart_is_legible(window: browsers.Browser, pages: dict[str, Path], name: str, scheme: str) -> None:
    window.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    window.open(pages[name])
    texts = window.run(TEXTS)
    points = window.run(POINTS)
    rows = set(window.run("return [...document.querySelectorAll('tr.point')].map((row) => row.dataset.number)"))
    assert overlaps(texts) == []
    assert window.run(SMALLEST) >= 11
    assert min(text["size"] for text in texts) >= 11
    assert len(points) == sum(bool(row) for row in rows)
    for point in points:
        near = [text for text in texts if text["label"] and point["number"] in numbers_in(text["text"])]
        assert len(near) == 1 and away(near[0], point) <= REACH, (
            f"point {point['number']} has no label within {REACH} px"
        )
        assert point["number"] in rows


def test_dark_and_light_differ(window: browsers.Browser, pages: dict[str, Path]) -> None:
    window.open(pages["gpu"])
    seen = []
    for scheme in ("light", "dark"):
        window.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        style = "getComputedStyle"
        seen.append(
            window.run(
                f"return [{style}(document.body).backgroundColor, "
                f"{style}(document.querySelector('#chart svg .labels_layer_0_marks text') ?? "
                "document.querySelector('#chart svg text')).fill]"
            )
        )
    light, dark = seen
    assert light[0] != dark[0] and light[1] != dark[1]


def test_filters_hide_points_in_chart_and_table(window: browsers.Browser, pages: dict[str, Path]) -> None:
    window.open(pages["gpu"])
    before = len(window.run(POINTS))
    window.run("document.querySelector('.filters input[value=k0]').click()")
    for _ in range(50):
        if len(window.run(POINTS)) < before:
            break
    after = {point["number"] for point in window.run(POINTS)}
    assert len(after) < before
    visible = "return [...document.querySelectorAll('tr.point:not([hidden])')].map((row) => row.dataset.number)"
    assert after == {number for number in window.run(visible) if number}
    assert after


def test_the_chart_of_depths_is_legible_and_follows_the_filters(
    window: browsers.Browser, pages: dict[str, Path]
) -> None:
    """Points and texts of the small chart, before and after a kernel is switched off."""
    window.open(pages["depths"])
    texts = window.run(TEXTS.replace("#chart", "#depth"))
    assert overlaps(texts) == [] and min(text["size"] for text in texts) >= 11
    points = POINTS.replace("#chart svg .points_marks", "#depth svg .depths_marks")
    before = {point["number"] for point in window.run(points)}
    assert before == {point["number"] for point in window.run(POINTS)}
    window.run("document.querySelector('.filters input[value=k0]').click()")
    for _ in range(50):
        if len(window.run(points)) < len(before):
            break
    after = {point["number"] for point in window.run(points)}
    assert after and after < before


def test_pointing_at_a_row_marks_its_point(window: browsers.Browser, pages: dict[str, Path]) -> None:
    window.open(pages["gpu"])
    width = (
        "return [...document.querySelectorAll('#chart svg .points_marks path')]"
        ".find((node) => node.__data__.datum.number === '5').getBoundingClientRect().width"
    )
    before = window.run(width)
    window.run("document.querySelector('tr.point[data-number=\"5\"]').dispatchEvent(new Event('mouseenter'))")
    for _ in range(50):
        if window.run(width) > 1.5 * before:
            break
    assert window.run(width) > 1.5 * before


def test_hostile_names_are_inert(window: browsers.Browser, pages: dict[str, Path]) -> None:
    window.open(pages["hostile"])
    assert window.run("return document.querySelectorAll('img').length") == 0
    assert window.run("return document.querySelectorAll('script').length") == 4  # chart, library twice, our own
    assert samples.HOSTILE in window.run("return document.body.innerText")


def test_page_is_small_and_names_no_address(pages: dict[str, Path]) -> None:
    for path in pages.values():
        text = path.read_text(encoding="utf-8")
        assert len(text.encode()) <= LIMIT_BYTES
        own = re.sub(r"<script>.*?</script>", "", text, flags=re.S)
        allowed = "https://vega.github.io/schema/"  # the name of the chart format; nothing asks for it
        assert [url for url in re.findall(r"https?://[^\"'\s]+", own) if not url.startswith(allowed)] == []
        assert "unsafe" not in re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1)


def test_every_point_is_on_the_page(pages: dict[str, Path]) -> None:
    text = pages["gpu"].read_text(encoding="utf-8")
    run = samples.run("gpu")
    measured = [point for point in run.points if point.status in ("ok", "invalid")]
    assert text.count('<tr class="point"') == len(measured)
    for point in run.points:
        if point.status not in ("ok", "invalid"):
            assert f"{point.shape_text} {point.dtype}" in text
            assert point.reason in text
    for ceiling in run.machine.ceilings:
        assert ceiling.pattern in text


def test_page_of_no_run_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        page.render([])


def test_importing_the_renderers_loads_nothing_heavy() -> None:
    code = (
        "import sys; from seqroof.roofline import table, terminal_chart, chart, page, export; "
        "print([name for name in ('rich', 'jinja2', 'vl_convert', 'torch', 'numpy') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_sequences_show_time_per_step_and_parts(pages: dict[str, Path]) -> None:
    text = pages["sequences"].read_text(encoding="utf-8")
    assert ">per step</th>" in text and '<td class="number">2.79 µs</td>' in text
    assert "of which input product 4.03 µs serial, recurrence 39.6 µs (serial), each measured alone" in text
    rows = re.findall(r"<tr class=.point.*?</tr>", text, re.DOTALL)
    assert {row.count("<td") for row in rows} == {16}, "every row has a cell for every column"
    assert ">per step</th>" not in pages["gpu"].read_text(encoding="utf-8")
