"""The generated parts of the pages under docs/: as written, and rendered from recorded runs."""

import pytest

from seqroof.roofline import claims
from seqroof.scripts import documents

ANEW = "write it anew: python -m seqroof.scripts.documents"


@pytest.mark.parametrize(("path", "text"), documents.pages().items(), ids=lambda value: getattr(value, "name", ""))
def test_pages_read_as_they_are_rendered(path, text):
    assert path.read_text(encoding="utf-8") == text, ANEW


def test_the_page_of_the_claims_names_them_all():
    page = (documents.ROOT / "docs" / "claims.md").read_text()
    assert all(claim.hypothesis in page for claim in claims.all_claims())


def test_the_argument_names_every_claim_with_a_verdict_of_a_recorded_run():
    recorded = list((documents.ROOT / "results").glob("*/claims/run.json"))
    text = documents.argument()
    for path in recorded:
        assert str(path.parent.relative_to(documents.ROOT)) in text
    assert not recorded or all(f"| {claim.id} |" in text for claim in claims.all_claims())


def test_a_page_without_marks_is_told_where_they_belong():
    with pytest.raises(ValueError, match="<!-- runs: begin -->"):
        documents.written("nothing", "runs", "text")
