"""Verdicts on what probes found: gradients and reach, and which rows of a probe count."""

from __future__ import annotations

import claim_samples as samples
from claim_verdicts import one

from seqroof.roofline.record import Evidence, Run


def depth_run(**values: float) -> Run:
    """A run whose probes of depth found these values, the rest as in the sample."""
    changed = {key: value for name, found in values.items() for key, value in samples.spread(name, found).items()}
    return samples.run(
        evidence=tuple(
            row.model_copy(update={"values": row.values | changed}) if row.id.startswith("gradient-depth") else row
            for row in samples.evidence()
        )
    )


def test_gates_are_held_against_both_units_without_a_linear_factor():
    found = one("C14", depth_run(gated_over_gated_tanh=2.0))
    assert found.verdict == "CONDITIONAL" and (found.decided, found.undecided) == (4, 0)
    assert found.region.startswith("holds at weights 1/fan-in over tanh") and "fails at" in found.region
    assert one("C14", depth_run(gated_over_gated_tanh=2.0, gated_over_tanh=2.0)).verdict == "REFUTED"


def test_a_stack_that_keeps_its_gradient_is_told_and_changes_no_verdict():
    found = one("C14", depth_run(tanh=0.9))
    assert found.verdict == "SUPPORTED" and "tanh stack keeps 0.90 of the gradient, more than 0.1" in found.summary
    assert "little to ease" not in one("C14", samples.run()).summary


def test_what_seeds_leave_open_is_no_noise_of_times():
    found = one("C14", depth_run(gated_over_gated_tanh=10.0))
    assert (found.decided, found.undecided) == (2, 2)
    assert "more seeds at weights 1/fan-in over gated tanh" in found.missing[0] and "noise" not in found.missing[0]


def test_a_growth_that_gates_make_larger_eases_no_vanishing():
    """The second draw as one that was measured: 13.8-fold growth through tanh, 535-fold through gates."""
    exploding = {"tanh": 13.8, "gated": 535.0, "gated_over_tanh": 38.5, "gated_over_gated_tanh": 4.0}
    changed = {key: value for name, found in exploding.items() for key, value in samples.spread(name, found).items()}
    lost, kept = (row for row in samples.evidence("C14") if row.id.startswith("gradient-depth"))
    kept = kept.model_copy(update={"values": kept.values | changed})
    found = one("C14", samples.run(evidence=(lost, kept)))
    assert (found.verdict, found.decided) == ("REFUTED", 3)
    assert "grows 13.8-fold, so there is no vanishing to ease" in found.summary
    only = depth_run(tanh=13.8, gated_tanh=2.0)
    assert one("C14", only).verdict == "INCONCLUSIVE"


def test_a_probe_needs_all_of_its_settings_and_keeps_reasons():
    rows = samples.evidence()
    found = one("C9", samples.run(evidence=tuple(row for row in rows if not row.id.endswith("forget_bias=4"))))
    assert found.verdict == "INCONCLUSIVE" and "forget_bias=4" in found.missing[0]
    dead = Evidence(id="gradient-reach", values={}, how="not measured: the worker was lost (SIGSEGV)")
    found = one("C9", samples.run(evidence=(dead,)))
    assert found.verdict == "INCONCLUSIVE" and "SIGSEGV" in found.missing[0]


def test_too_few_seeds_and_torn_rows_of_a_probe_do_not_decide():
    for change in ({"seeds": 3}, {"norm_100": None}, {"norm_100": "much"}, {"norm_100_low": 1e9}):
        kept = [row for row in samples.evidence() if not row.id.startswith("gradient-reach")]
        torn = next(row for row in samples.evidence() if row.id.startswith("gradient-reach"))
        row = torn.model_copy(update={"values": torn.values | change})
        found = one("C9", samples.run(evidence=(*kept, row)))
        assert found.verdict == "INCONCLUSIVE" and found.missing, change
