"""The language of a page: every fixed text goes through one function, and a file can translate all of them."""

from __future__ import annotations

import base64
import gzip
import html
import re
import tomllib
from pathlib import Path

import pytest
import samples
import story_samples
from commands import seqroof
from sequence_samples import depth_run

pytest.importorskip("jinja2", reason="the page needs the report extra")
pytest.importorskip("vl_convert", reason="the page needs the report extra")

import page_keys

from seqroof.roofline import page, wording
from seqroof.roofline.store import save
from seqroof.roofline.wording import Wording
from seqroof.scripts import reading
from seqroof.scripts.exits import Exit, Stop

WORD = re.compile(r"[A-Za-z]{2,}")
# What stands for something in a text: places for values, the per cent sign of a format, elements.
MARKED = re.compile(r"%\(\w+\)s|\{\w+\}|%%|<[^>]*>")
# English sentences that are longer than any name; a translated page has none of them.
SENTENCE = 30
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
    assert looked_up <= page_keys.known()
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


@pytest.mark.parametrize("language", wording.languages()[1:])
def test_a_translation_holds_every_text_and_no_other(language: str) -> None:
    texts = tomllib.loads((page_keys.FOLDER / f"page.{language}.toml").read_text(encoding="utf-8"))["texts"]
    assert page_keys.known() - set(texts) == set(), "without a translation"
    assert set(texts) - page_keys.known() == set(), "translated, but on no page"
    for english, other in texts.items():
        assert other.strip(), english
        assert sorted(MARKED.findall(other)) == sorted(MARKED.findall(english)), english


def test_a_chinese_page_is_chinese_in_its_fixed_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = asked(monkeypatch)
    text = page.render([story_samples.story_run(), samples.run("gpu")], language="zh")
    assert '<html lang="zh-Hans">' in text
    for phrase in ("机器与它的四堵墙", "SUPPORTED（成立）", "实测", "每步重新读取权重", "B 不超过 8，H 不小于 1024"):
        assert phrase in text, phrase
    assert "判定中的数字说明、适用范围和所缺证据目前仍为英文。" in text
    bare = {sentence for sentence in looked_up if len(sentence) > SENTENCE and not MARKED.search(sentence)}
    assert [sentence for sentence in bare if html.escape(sentence) in text or sentence in text] == []
    drawing = gzip.decompress(base64.b64decode(text.split('id="chart-data">')[1].split("</script>")[0])).decode()
    for phrase in ("每字节运算次数（必需访存量，模型推算）", "FLOP/s（实测）", "占机器极限"):
        assert phrase.encode("ascii", "backslashreplace").decode() in drawing, phrase
    assert "sentences in English" not in page.render([story_samples.story_run()])


def test_the_language_of_a_page_is_an_option(tmp_path) -> None:
    file = tmp_path / "page.html"
    save(samples.run("cpu"), tmp_path)

    def report(language: str, **files: Path | None) -> None:
        reading.report([tmp_path], {"html": None, **files}, "table", False, False, language=language)

    report("zh", html=file)
    assert '<html lang="zh-Hans">' in file.read_text(encoding="utf-8")
    with pytest.raises(Stop, match="languages are en, zh") as stopped:
        report("xx", html=tmp_path / "other.html")
    assert stopped.value.code == Exit.USAGE and not (tmp_path / "other.html").exists()
    with pytest.raises(Stop, match="add --html FILE"):
        report("zh")


def test_a_run_writes_its_page_in_a_language_and_knows_before_it_measures(tmp_path) -> None:
    reading.write_pages(samples.run("cpu"), tmp_path, "zh")
    assert '<html lang="zh-Hans">' in (tmp_path / "report.html").read_text(encoding="utf-8")
    done = seqroof("profile", "--dry-run", "--lang", "xx", cwd=tmp_path)
    assert done.returncode == Exit.USAGE and "languages are en, zh" in done.stderr and not done.stdout
