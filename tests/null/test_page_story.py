"""The sections around the points: their order, what they say, when they are left out, and the same in Markdown."""

from __future__ import annotations

import re

import pytest
import samples
import story_samples
from sequence_samples import sequence_run

pytest.importorskip("jinja2", reason="the page needs the report extra")
pytest.importorskip("vl_convert", reason="the page needs the report extra")

from seqroof.roofline import _seen, _view, export, page, page_answer, page_claims, page_story, store
from seqroof.roofline.claims import all_claims
from seqroof.roofline.diagnoses import warn
from seqroof.roofline.record import Evidence, Run
from seqroof.roofline.second_clock import SecondClock
from seqroof.roofline.wording import ENGLISH


@pytest.fixture(scope="module")
def story() -> str:
    return page.render([story_samples.story_run()])


def test_the_sections_stand_in_the_order_of_the_story(story: str) -> None:
    assert re.findall(r'<h2 id="(\w+)"', story) == story_samples.SECTIONS
    links = re.findall(r'<a href="#(\w+)"', story)
    assert links == story_samples.SECTIONS


def test_markdown_has_the_same_sections_in_the_same_order() -> None:
    text = export.markdown(story_samples.story_run())
    headings = re.findall(r"^## (.*)$", text, flags=re.M)
    assert headings == [heading for _name, heading in page_story.headings(ENGLISH).values()]
    letters = re.search(r"T=128; C compute.*?```\n(.*?)```", text, flags=re.S)
    assert letters and "S" in letters.group(1) and "*" in letters.group(1)
    assert len(re.findall(r"^\| C\d+ \| \w+ \|", text, flags=re.M)) == len(all_claims())
    assert "| claim | source | needed | found | compared | where | beside | missing |" in text
    assert "UTC, suite claims" in text and "### Environment" in text and "| command |" in text
    assert "Each field is a batch B" in text and "Complete layers of one run" in text


def test_every_claim_stands_on_the_page_with_a_word_and_a_shape(story: str) -> None:
    items = re.findall(r'<li><p class="verdict"><b>(C\d+)</b> <svg.*?<path d="(.*?)".*?</svg> (\w+)</p>', story)
    assert [name for name, _, _ in items] == [claim.id for claim in all_claims()]
    shapes = {word: {shape for _, shape, other in items if other == word} for _, _, word in items}
    assert all(len(of) == 1 for of in shapes.values()) and len(set(map(str, shapes.values()))) == len(shapes)
    assert {"SUPPORTED", "CONDITIONAL"} <= set(shapes)
    assert f"{sum(word == 'SUPPORTED' for _, _, word in items)} SUPPORTED" in story


def test_a_contradicted_claim_reads_otherwise() -> None:
    found = page_claims.board([story_samples.story_run("C12")], ENGLISH)
    assert {claim["id"]: claim["verdict"] for claim in found["claims"]}["C12"] == "REFUTED"


def test_claims_without_a_verdict_are_folded_when_they_are_most() -> None:
    run = story_samples.story_run(points=(*samples.run("cpu").points, story_samples.claim_samples.points()[0]))
    found = page_claims.board([run], ENGLISH)
    assert len(found["folded"]) > len(found["claims"]) > 0
    assert all(claim["verdict"] == "INCONCLUSIVE" for claim in found["folded"])
    assert "claims are inconclusive" in page.render([run])


def test_a_run_of_other_kernels_has_no_map_contrast_or_claims() -> None:
    points = tuple(point.model_copy(update={"kernel": "mine"}) for point in samples.run("cpu").points)
    run = samples.run("cpu", points=points).model_copy(update={"grids": story_samples.grids()})
    for text in (page.render([run]), export.markdown(run)):
        assert "claims" not in re.sub(r"(?s)<style.*?</style>|<script.*?</script>", "", text)
        assert "a bandwidth binds" not in text and "equal size" not in text


def test_a_run_without_what_sections_need_says_what_makes_it() -> None:
    text = page.render([sequence_run()])
    assert (
        "This run holds no map (older version" in text
        and "Each field" not in text
        and "seqroof map lstm --on RUN" in text
    )
    assert "no two complete layers of equal size" in text and "seqroof contrast --measure" in text
    assert "No claim is decided by this run" in text


def test_layers_of_equal_size_are_compared_within_one_class(story: str) -> None:
    (table,) = re.findall(r'<table class="equal">.*?</table>', story, flags=re.S)
    titles = re.findall(r'rowgroup"[^>]*>(.*?)</th>', table)
    assert any(
        title.startswith("forward pass, B=1, T=512, fp32: 524 k parameters each, within 0.0 %") for title in titles
    )
    assert any(title.startswith("training step") for title in titles)
    assert set(re.findall(r'<td class="name">(\w+)</td>', table)) == {"reference"}


def test_terms_are_explained_where_they_are_first_met() -> None:
    """Also on a page whose table of points is folded, which a reader may never open."""
    floor, numbers = "A floor is the least time", "“machine” is the share"
    text = page.render([samples.crowd(60)])
    assert text.index('id="machine"') < text.index(floor) < text.index('id="roofline"')
    assert text.index('id="roofline"') < text.index(numbers) < text.index('<details id="points">')
    told = export.markdown(story_samples.story_run())
    assert told.index("## The machine") < told.index(floor) < told.index("## Where each kernel stands")
    for shown in (page.render([story_samples.story_run()]), told):
        assert "“roof” is the share of the classic roofline" in shown


def test_disagreements_of_points_on_the_map_are_listed_with_their_reason(story: str) -> None:
    assert "experiments without floors name a wall for 2 of them" in story
    assert "on 1 (50 %)" in story
    assert "B=4, H=128, T=128 torch: cache modelled, serial seen" in story


def test_the_short_answer_names_walls_claims_and_the_lstm_beside_others(story: str) -> None:
    answer = re.search(r'<ul class="answer">(.*?)</ul>', story, flags=re.S)
    assert answer
    assert "The highest of the four floors (modelled) of the" in answer.group(1) and "Of 17 claims: " in answer.group(1)
    assert "; where times are compared, those of plain code" in answer.group(1)
    told = "1.50 (B=1, T=512, fp32) and 0.80 (B=16, T=256, fp32) times as long as the attention block"
    assert f"plain code, measured), an LSTM takes {told}" in answer.group(1)


def answer_of(*times: float) -> str:
    """The first sentences on a run of one case, timed at these multiples of its highest floor."""
    point = next(row.point for row in _view.rows([samples.run("cpu")]) if row.number)
    floor = max(filter(None, point.floors_s.model_dump().values()))
    timed = [point.model_copy(update={"time_s": samples.timing(factor * floor)}) for factor in times]
    run = samples.run("cpu", points=tuple(timed))
    return page_answer.answer([run], _view.rows([run]), [], {"counts": []}, ENGLISH)[0]


def test_the_short_answer_counts_the_points_that_come_near_their_highest_floor() -> None:
    told = answer_of(1.5, 1.9, 2.5, 60)
    assert "of the 4 points of the chart" in told and " 2 of them run at half of that floor's speed or better" in told
    assert "; for the others that floor is less than half of the measured time. " in told
    assert "others" not in answer_of(1.5, 1.9)


def test_the_short_answer_names_the_nearest_point_by_number_dtype_and_direction() -> None:
    rows = [row for row in _view.rows([samples.run("gpu")]) if row.number]
    first = max(rows, key=lambda row: row.point.best_fraction.value)
    told = page_answer.answer([samples.run("gpu")], rows, [], {"counts": []}, ENGLISH)[0]
    case = f"{first.point.kernel} {first.point.implementation} {first.point.shape_text} {first.point.dtype} forward."
    assert told.endswith(f"is point {first.number}: {case}")


def test_the_short_answer_says_what_the_library_decides_otherwise_and_shows_its_layers_first() -> None:
    run = story_samples.story_run("C12")
    slower = {"time_s": samples.timing(2.0)}
    vendor = tuple(
        point.model_copy(update={"implementation": "torch"} | (slower if point.kernel == "transformer_block" else {}))
        for point in story_samples.claim_samples.points()
    )
    run = run.model_copy(update={"points": run.points + vendor})
    board = page_claims.board([run], ENGLISH)
    assert "C12" in board["otherwise"] and "C1" not in board["otherwise"]
    text = page.render([run])
    answer = re.search(r'<ul class="answer">(.*?)</ul>', text, flags=re.S)
    assert answer and "the library&#39;s rows decide " in answer.group(1)
    assert answer.group(1).index("the library, measured), an LSTM") < answer.group(1).index("plain code, measured), an")
    assert text.index("(rows of torch)") < text.index("(reference), ")


def test_who_held_the_processors_is_said_once_and_in_the_short_answer() -> None:
    base = samples.run("cpu")
    looks = Evidence(id="surroundings-during", values={"other_share": 0.0, "busy_share": 1.0}, how="sample")
    run = base.model_copy(update={"evidence": (looks,)})
    assert "other programs 0.0 %" in _seen.run_text(run)
    held = {"second_clock": SecondClock(source="raw", time_s=1.0, waiting_share=0.022)}
    run = run.model_copy(update={"points": tuple(point.model_copy(update=held) for point in base.points)})
    assert "other programs" not in _seen.run_text(run) and "Seen beside the clock" in _seen.run_text(run)
    timed = [point for point in run.points if point.time_s]
    warned = sum(bool(point.warnings) for point in timed)
    told = page_answer.answer([run], _view.rows([run]), [], {"counts": []}, ENGLISH)[-1]
    assert told.startswith(
        f"Doubts: {warned} of {len(timed)} times carry a diagnosis; others held the processors 2.2 %"
    )
    twice = page_answer.answer([run, run], _view.rows([run, run]), [], {"counts": []}, ENGLISH)
    assert twice[-2].startswith("A: Doubts") and twice[-1].startswith("B: Doubts")


def test_what_would_help_speaks_of_the_estimate_and_says_how_far_times_are_above_it() -> None:
    base = story_samples.story_run()
    slow = tuple(
        p.model_copy(update={"estimate_s": p.time_s.median / 5} if p.time_s and p.estimate_s else {})
        for p in base.points
    )
    run = base.model_copy(update={"points": slow})
    rows = _view.rows([run])
    found = page_story.helps([run], rows)
    assert found and {row["ratio"] for row in found} == {"5"}
    text = page.render([run])
    assert "Measured times are 5 times the estimate in the median." in text
    assert f"Of {len(found)} of these {len(found)} rows the model explains less than half" in text
    assert "not of the measured time" in text and "not of the measured time" in export.markdown(run)
    assert page_story.unexplained(page_story.helps([base], _view.rows([base])), ENGLISH) == ""


def test_two_runs_are_told_apart_in_every_section() -> None:
    text = page.render([story_samples.story_run(), samples.run("gpu")])
    assert "A: lstm fp32 on Sample Processor" in text
    assert "B: This run holds no map" in text
    assert 'data-number="B1"' in text
    for letter in ("A", "B"):
        assert f"<caption>{letter}: lstm_step" in text and f"<summary>{letter}: skipped, " in text
        assert f'{letter}: <code class="next">seqroof ' in text
    one_machine = page.render([samples.run("gpu"), samples.run("gpu").model_copy(update={"suite": "claims"})])
    assert "(A: quick 10:00; B: claims 10:00)</title>" in one_machine
    doubted = samples.run("gpu").model_copy(update={"warnings": (warn("mig", slice=""),)})
    for runs, names in (([doubted], ["the whole run"]), ([doubted, doubted], ["the whole run A", "the whole run B"])):
        assert [name for advice in _seen.of_run(runs) for _cause, (name,) in advice.causes] == names


def lstm_told(runs: list[Run]) -> list[str]:
    """What the short answer of these runs says of the LSTM beside others."""
    found = page_answer.answer(runs, _view.rows(runs), page_claims.layers(runs), {"counts": []}, ENGLISH)
    return [text for text in found if "Per token" in text]


def test_layers_of_two_runs_are_never_compared_with_one_another() -> None:
    """B, on another machine, has a slower attention block and the same LSTM."""
    one = story_samples.story_run()
    runs = [one, story_samples.story_run("C6", machine=samples.machine("gpu"))]
    groups = {letter: [g for g in page_claims.layers(runs) if g.run == letter] for letter in ("A", "B")}
    (alone,) = page_claims.equal(page_claims.layers([one]), {}, ENGLISH)
    (found,) = page_claims.equal(page_claims.layers(runs), {}, ENGLISH)
    titles = [group["title"] for group in found["groups"]]
    assert titles == [f"{letter}: {group['title']}" for letter in ("A", "B") for group in alone["groups"]]
    for letter, run in zip(("A", "B"), runs):
        mine = {id(point) for point in run.points}
        assert groups[letter] and all(id(point) in mine for group in groups[letter] for point in group.points)
    first, second = lstm_told(runs)
    assert first.startswith("A: Per token (forward, as many parameters, plain code, measured), an LSTM takes 1.50 (B=1")
    assert second.startswith("B: Per token (forward, as many parameters, plain code, measured), an LSTM takes 0.80 (B=")
    assert lstm_told([one])[0] == first.removeprefix("A: ")


def test_layers_of_a_fleet_name_their_device_and_its_first_speaks() -> None:
    one, other = (story_samples.claim_samples.points(turned) for turned in ("", "C6"))
    library = [point.model_copy(update={"implementation": "torch"}) for point in one]
    on_first, on_second = ([*points, *library] for points in (one, other))
    points = [
        point.model_copy(update={"device": rank}) for rank, of in enumerate((on_first, on_second)) for point in of
    ]
    run = samples.run("cpu", points=tuple(points))
    titles = [
        group["title"] for rows in page_claims.equal(page_claims.layers([run]), {}, ENGLISH) for group in rows["groups"]
    ]
    assert {title.split(": ")[0] for title in titles} == {"device 0", "device 1"}
    assert [text.split(": ")[0] for text in lstm_told([run])] == ["device 0", "device 0"]
    (first, _second), (letters, *_rest) = lstm_told([run]), lstm_told([run, run])
    assert "the library" in first and letters.startswith("A, device 0: Per token")


def test_a_run_with_maps_survives_its_file(tmp_path) -> None:
    run = story_samples.story_run()
    store.save(run, tmp_path)
    assert store.load(tmp_path) == run
    grown = len(store.dumps(run)) - len(store.dumps(run.model_copy(update={"grids": ()})))
    assert grown <= 2 / 3 * 150_000  # two kernels of three


def test_hostile_names_reach_no_section_as_markup() -> None:
    bad = samples.HOSTILE
    points = tuple(
        point.model_copy(update={"implementation": bad}) if point.kernel == "lstm" else point
        for point in story_samples.story_run().points
    )
    grids = tuple(grid.model_copy(update={"kernel": bad}) for grid in story_samples.grids())
    on = samples.machine("cpu").model_copy(update={"name": bad})
    run = story_samples.story_run(points=points, machine=on, grids=(*story_samples.grids(), *grids))
    text = page.render([run, run])
    assert "<img" not in text and bad.replace("<", "&lt;").replace(">", "&gt;") in text
    assert "<img" not in export.markdown(run)
