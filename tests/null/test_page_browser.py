"""The story in a real browser: slider and filters by keyboard, no overlap, and what remains without scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import browser as browsers
import pytest
import samples
import story_samples

pytest.importorskip("jinja2", reason="the page needs the report extra")
pytest.importorskip("vl_convert", reason="the page needs the report extra")

from seqroof.roofline import page

# Every text of every drawing that is seen, with its box, where details are open; not the edges of the background.
TEXTS = """
for (const node of document.querySelectorAll("details")) node.open = true;
const edge = (node) => getComputedStyle(node).stroke !== "none";
return [...document.querySelectorAll("svg")].map((drawing, index) =>
  [...drawing.querySelectorAll("text")].filter((node) => !edge(node)).map((node) => {
    const box = node.getBoundingClientRect();
    return {text: node.textContent, left: box.left, top: box.top, right: box.right, bottom: box.bottom,
            size: parseFloat(getComputedStyle(node).fontSize) * (drawing.viewBox.baseVal?.width
              ? drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width : 1)};
  }).filter((text) => text.text && text.right > text.left)).filter((texts) => texts.length);
"""
SHOWN = """
const map = document.querySelector(".map");
const length = [...map.querySelectorAll(".length")].filter((part) => part.getClientRects().length);
return {lengths: length.map((part) => part.dataset.steps), said: map.querySelector("output").textContent,
        spoken: map.querySelector("input").getAttribute("aria-valuetext"),
        letters: [...length[0].querySelectorAll("svg text")].map((node) => node.textContent).join(" "),
        circles: [...length[0].querySelectorAll("svg")].map((one) => one.querySelectorAll("circle").length),
        maps: length[0].querySelectorAll("svg").length};
"""
KEYS = {"ArrowLeft": 37, "ArrowRight": 39, " ": 32}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("story") / "story.html"
    path.write_text(page.render([story_samples.story_run(), samples.run("gpu")]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("story") / "chinese.html"
    path.write_text(page.render([story_samples.story_run(), samples.run("gpu")], "zh"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browsers.Browser]:
    if browsers.missing():
        pytest.skip(browsers.missing())
    with browsers.browser(tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


def press(window: browsers.Browser, selector: str, key: str) -> None:
    """Focus an element and press a key as a user does."""
    window.run("document.querySelector(arguments[0]).focus()", selector)
    code = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
    text = {"text": " "} if key == " " else {}
    window.command("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **code, **text)
    window.command("Input.dispatchKeyEvent", type="keyUp", **code)


def overlaps(texts: list[dict]) -> list[tuple[str, str]]:
    return [
        (a["text"], b["text"])
        for index, a in enumerate(texts)
        for b in texts[index + 1 :]
        if min(a["right"], b["right"]) - max(a["left"], b["left"]) > 0.5
        and min(a["bottom"], b["bottom"]) - max(a["top"], b["top"]) > 0.5
    ]


def test_the_slider_moves_the_map_by_keyboard(window: browsers.Browser, story: Path) -> None:
    window.log("browser")
    window.log("performance")
    window.open(story)
    first = window.run(SHOWN)
    assert first["lengths"] == ["128"] and first["said"] == first["spoken"] == "128"
    assert first["maps"] == 2 and first["circles"][0] >= 1 and not first["circles"][1]
    press(window, ".map input[type=range]", "ArrowRight")
    longer = window.run(SHOWN)
    assert longer["lengths"] == ["1024"] and longer["said"] == longer["spoken"] == "1024"
    for _ in range(3):
        press(window, ".map input[type=range]", "ArrowLeft")
    shortest = window.run(SHOWN)
    assert shortest["lengths"] == ["1"] and shortest["letters"] != first["letters"] and shortest["circles"] == [0, 0]
    assert [entry for entry in window.log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert [url for url in window.requests() if not url.startswith("file://")] == []


def test_a_filter_works_by_keyboard(window: browsers.Browser, story: Path) -> None:
    window.open(story)
    rows = "return document.querySelectorAll('tr.point:not([hidden])').length"
    before = window.run(rows)
    press(window, ".filters input", " ")
    assert 0 < window.run(rows) < before


CUT = """
for (const node of document.querySelectorAll("details")) node.open = true;
return [...document.querySelectorAll(".scroll > table")].filter((one) => one.scrollWidth > one.parentNode.clientWidth)
  .map((one) => one.className);
"""


@pytest.mark.parametrize("told", ["story", "chinese"])
def test_no_table_is_cut_off_in_a_window_of_1280_pixels(window, request: pytest.FixtureRequest, told: str) -> None:
    window.command("Emulation.setDeviceMetricsOverride", width=1280, height=800, deviceScaleFactor=1, mobile=False)
    window.open(request.getfixturevalue(told))
    cut = window.run(CUT)
    window.command("Emulation.clearDeviceMetricsOverride")
    assert cut == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(("told", "scheme"), [("story", "light"), ("story", "dark"), ("chinese", "light")])
def test_no_text_of_a_drawing_overlaps_another(
    window: browsers.Browser, request: pytest.FixtureRequest, told: str, width: int, scheme: str
) -> None:
    window.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    window.command("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    window.open(request.getfixturevalue(told))
    drawings = window.run(TEXTS)
    wide = window.run("return document.documentElement.scrollWidth")
    window.command("Emulation.clearDeviceMetricsOverride")
    assert len(drawings) >= 5  # the chart, and both maps of two kernels
    assert [pair for texts in drawings for pair in overlaps(texts)] == []
    assert min(text["size"] for texts in drawings for text in texts) >= 11
    assert wide <= width, "the page itself does not scroll sideways"


def test_maps_are_readable_in_the_dark(window: browsers.Browser, story: Path) -> None:
    window.open(story)
    seen = []
    for scheme in ("light", "dark"):
        window.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        seen.append(window.run("return getComputedStyle(document.querySelector('.map svg text')).fill"))
    assert seen[0] != seen[1]


def test_an_old_browser_says_why_it_draws_no_chart_and_moves_the_map(window: browsers.Browser, story: Path) -> None:
    old = window.command("Page.addScriptToEvaluateOnNewDocument", source="delete window.DecompressionStream")
    window.open(story)
    window.command("Page.removeScriptToEvaluateOnNewDocument", identifier=old["identifier"])
    assert window.run("return document.querySelectorAll('#chart svg').length") == 0
    assert window.run("return document.getElementById('undrawn').getClientRects().length") == 1
    press(window, ".map input[type=range]", "ArrowRight")
    assert window.run(SHOWN)["lengths"] == ["1024"]


def test_without_javascript_one_length_is_shown(window: browsers.Browser, story: Path) -> None:
    window.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        window.command("Page.navigate", url=story.resolve().as_uri())
        tree = window.command("DOM.getDocument", depth=0)["root"]["nodeId"]
        shown = window.command("DOM.querySelectorAll", nodeId=tree, selector=".map .length:not([hidden])")["nodeIds"]
        maps = window.command("DOM.querySelectorAll", nodeId=tree, selector=".map")["nodeIds"]
    finally:
        window.command("Emulation.setScriptExecutionDisabled", value=False)
    assert len(shown) == len(maps) == 2
