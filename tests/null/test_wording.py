"""The language of a page: every fixed text goes through one function, and a file can translate all of them."""

from __future__ import annotations

import re

import pytest
import samples
import story_samples
from sequence_samples import depth_run

pytest.importorskip("jinja2", reason="the page needs the report extra")
pytest.importorskip("vl_convert", reason="the page needs the report extra")

import page_keys

from seqroof.roofline import page, wording
from seqroof.roofline.wording import Wording

WORD = re.compile(r"[A-Za-z]{2,}")
# Names that are the same in every language.
NAMES = {"seqroof", "utf"}


def asked(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Every text that pages of all kinds of runs look up."""
    made: list[Wording] = []

    def recording(language: str) -> Wording:
        made.append(Wording(language))
        return made[-1]

    monkeypatch.setattr(page, "Wording", recording)
    story = story_samples.story_run()
    old, empty = story.model_copy(update={"grids": ()}), samples.run("cpu", points=())
    for runs in ([story, samples.run("gpu")], [depth_run()], [empty], [old]):
        page.render(runs)
    return {text for one in made for text in one.asked}


def test_no_word_of_a_template_goes_past_the_translation() -> None:
    for path in page_keys.TEMPLATES:
        text = re.sub(r"\{[{%].*?[%}]\}", " ", path.read_text(encoding="utf-8"), flags=re.S)
        bare = re.sub(r"<[^>]*>", " ", text)
        assert set(WORD.findall(bare)) <= NAMES, path.name


def test_what_pages_look_up_is_what_a_translation_has_to_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Literal texts are found by reading; the others are names in tables, which a page looks up when it shows them."""
    read = page_keys.of_templates() | page_keys.of_code()
    looked_up = asked(monkeypatch)
    assert "The machine and its walls" in read and "%(count)s more sweeps of the batch" in read
    assert {"SUPPORTED", "the chain", "DRAM", "plain code"} <= looked_up
    assert len(looked_up & read) > 0.7 * len(read)
    assert not [text for text in looked_up if "%(" in text and text not in read], "placeholders stand in literal texts"


def test_a_translated_page_says_so_and_falls_back_to_english(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"The machine and its walls": "WALLS <b>", "%(wall)s at every batch": "immer %(wall)s"}
    lines = "\n".join(f'"{english}" = "{other}"' for english, other in texts.items())
    (tmp_path / "page.zz.toml").write_text(f"[texts]\n{lines}\n", encoding="utf-8")
    monkeypatch.setattr(wording, "_FOLDER", tmp_path)
    text = page.render([story_samples.story_run()], language="zz")
    assert '<html lang="zz">' in text and "WALLS &lt;b&gt;" in text and "What would help" in text
    assert Wording("zz")("%(wall)s at every batch", wall="DRAM") == "immer DRAM"
    assert '<html lang="en">' in page.render([samples.run("cpu")])


def test_an_unknown_language_ends_in_a_sentence_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"There is no page in 'xx'; languages are en"):
        page.render([samples.run("cpu")], language="xx")
