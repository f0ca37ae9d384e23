"""Static pictures of very many points name the kernels instead of numbering all points."""

import re

import pytest
import samples

from seqroof.roofline import _layout, _summary, _view, chart
from seqroof.roofline.record import Run


def suite(kernels: int = 9, letters: str = "") -> Run:
    """A run of many kernels, each with all timed points of the sample run."""
    base = samples.run("gpu")
    points = [
        point.model_copy(update={"kernel": f"kernel{letters}{index}"})
        for index in range(kernels)
        for point in base.points
    ]
    return base.model_copy(update={"points": tuple(points)})


MANY = suite()
ROWS = [row for row in _view.rows([MANY]) if row.number]


def test_few_points_speak_for_themselves() -> None:
    assert len(ROWS) > _summary.MANY
    assert not _summary.brief(ROWS[: _summary.MANY])
    assert not _layout.lay_out([MANY]).brief, "the page numbers every point"


def test_the_fastest_implementation_of_the_largest_case_speaks() -> None:
    speakers = _summary.brief(ROWS).names
    assert sorted(speakers.values()) == sorted({_name(row) for row in ROWS})
    for number, name in speakers.items():
        chosen = next(row.point for row in ROWS if row.number == number)
        others = [row.point for row in ROWS if _name(row) == name]
        most = max(point.work.flops for point in others)
        assert chosen.work.flops == most
        assert chosen.time_s.median == min(p.time_s.median for p in others if p.work.flops == most)


def _name(row) -> str:
    return row.point.kernel + ("" if row.point.direction == "forward" else f" {row.point.direction}")


def test_names_do_not_overlap_and_runs_keep_their_letters() -> None:
    layout = _layout.lay_out([MANY, suite(letters="x")], brief=True)
    assert {name[:3] for name in layout.brief.names.values()} == {"A: ", "B: "}
    boxes = [label.box(_layout.TEXT) for label, _ in layout.labels + layout.roof_labels]
    assert layout.labels and not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    assert layout.height == _layout.HEIGHT


def test_the_picture_names_kernels_and_explains_colours() -> None:
    pytest.importorskip("vl_convert", reason="pictures need the report extra")
    texts = re.findall(r"<(?:text|tspan)[^>]*>([^<]+)<", chart.to_svg([MANY]))
    for row in ROWS:
        assert any(text.startswith(f"{row.point.kernel} ") for text in texts)
        assert row.point.implementation in texts and row.point.dtype in texts
    faint = len(ROWS) - len(_summary.brief(ROWS).clear)
    assert sum(f"faint: {faint} other points" in text for text in texts) == 1


def test_the_batch_sweep_of_a_speaker_stays_clear() -> None:
    first = next(row.point for row in ROWS if "B" in row.point.shape)
    sweep = tuple(
        first.model_copy(update={"kernel": "walker", "shape": first.shape | {"B": size}}) for size in (1, 2, 4)
    )
    run = MANY.model_copy(update={"points": MANY.points + sweep})
    layout = _layout.lay_out([run], brief=True)
    walker = {row.number for row in layout.rows if row.point.kernel == "walker"}
    assert walker <= layout.brief.clear and len(walker & layout.brief.names.keys()) == 1
    assert any({row.number for row in walk.rows} == walker for walk in _layout.walks_of(layout.rows, layout.brief))
    assert len(layout.brief.clear) < len(layout.rows)
