"""The fields of a work that have a default of their own, and what an implementation declares."""

import pytest

from seqroof.roofline import Implementation, Work
from seqroof.roofline.work import terms


def test_recurrent_weights_are_all_weights_unless_said_otherwise():
    lines = terms("read_bytes", ("w", 100, "read once"))
    assert Work(terms=lines, weight_bytes=100).recurrent_bytes == 100
    part = Work(terms=lines, weight_bytes=100, recurrent_bytes=40)
    assert Work.model_validate(part.model_dump(mode="json")) == part
    assert Work(terms=lines, weight_bytes=100, recurrent_bytes=0).recurrent_bytes == 0


@pytest.mark.parametrize(("hoists", "expected"), [(True, True), (False, False), (lambda shape, *_: shape > 1, True)])
def test_an_implementation_may_hoist_the_input_product_by_case(hoists, expected):
    implementation = Implementation(lambda shape: (), hoists=hoists)
    assert implementation.hoists_for(2, "bf16", "cuda") is expected


def test_depth_algorithm_and_parts_are_unknown_unless_declared():
    implementation = Implementation(lambda shape: ())
    case = (None, "bf16", "cuda", "forward")
    assert implementation.depth(*case) is None and implementation.algorithm(*case) is None
    assert implementation.parts(None, {}) == []
