"""From the options of `seqroof profile` to a request: what a suite decides where nothing was typed, and what not."""

from __future__ import annotations

import pytest

from seqroof.profiler.request import FULL_GROUP_S, MOST_GROUP_S
from seqroof.scripts import measuring
from seqroof.scripts.options import Typed
from seqroof.scripts.profile_verb import CLAIMS_GROUP_S, QUICK_GROUP_S, request_of

SWEPT = {"shape": ["B=1|2"]}


@pytest.mark.parametrize(
    ("options", "effort", "compiled", "attribution", "parts", "budget_s", "group_s"),
    [
        ({}, "quick", False, False, True, measuring.QUICK_BUDGET_S, QUICK_GROUP_S),
        (SWEPT, "full", True, False, True, None, FULL_GROUP_S),
        ({"suite": "standard"}, "full", True, True, True, None, FULL_GROUP_S),
        ({"suite": "standard"} | SWEPT, "full", True, False, True, None, FULL_GROUP_S),
        ({"suite": "full"}, "full", True, True, True, None, FULL_GROUP_S),
        ({"suite": "claims"}, "quick", False, True, False, measuring.CLAIMS_BUDGET_S, CLAIMS_GROUP_S),
        ({"kernels": ["gru"]}, "quick", False, False, True, None, QUICK_GROUP_S),
        ({"rounds": 3}, "quick", False, False, True, None, QUICK_GROUP_S),
        ({"budget": "2m"}, "quick", False, False, True, 120.0, MOST_GROUP_S),
        ({"kernels": ["gru"], "budget": "2m"}, "quick", False, False, True, 120.0, MOST_GROUP_S),
        ({"implementation": ["torch, compile"]}, "quick", True, False, True, measuring.QUICK_BUDGET_S, QUICK_GROUP_S),
        ({"attribution": True}, "quick", False, True, True, measuring.QUICK_BUDGET_S, QUICK_GROUP_S),
        ({"suite": "full", "attribution": False}, "full", True, False, True, None, FULL_GROUP_S),
    ],
)
def test_what_is_not_typed_follows_from_the_suite(options, effort, compiled, attribution, parts, budget_s, group_s):
    made = request_of(Typed(**options))
    assert (made.effort, made.compile, made.attribution, made.parts) == (effort, compiled, attribution, parts)
    assert (made.budget_s, made.group_s) == (budget_s, group_s)


def test_every_option_reaches_the_request():
    options = Typed(
        kernels=["gru", "rnn"],
        suite="full",
        shape=["T=1:4:x2", "B=3"],
        dtype=["half,fp32"],
        direction=["both"],
        device="cuda:1",
        implementation=["torch, triton"],
        budget="5m",
        rounds=7,
        seed=11,
        counters=True,
        deadline="90s",
        attribution=True,
    )
    made = request_of(options)
    assert (made.kernels, made.suite, made.axes) == (["gru", "rnn"], "full", {"T": [1, 2, 4], "B": [3]})
    assert (made.dtypes, made.directions, made.device) == (["fp16", "fp32"], ["both"], "cuda:1")
    assert (made.implementations, made.budget_s, made.rounds) == (["torch", "triton"], 300.0, 7)
    assert (made.seed, made.counters, made.deadline_s, made.attribution) == (11, True, 90.0, True)


def test_only_what_was_typed_is_given():
    assert Typed().given() == set()
    assert Typed(suite="quick", seed=0, dtype=["fp32"]).given() == {"suite", "seed", "dtype"}
