"""Stages of a group of cases, as the worker tells them and its parent reads them: "stage" or "stage, number"."""

from __future__ import annotations

# The checker's own reference; whoever is called `reference` among the implementations is checked like any other.
REFERENCE = "the float64 reference"
# Stages, and events, that follow when every time of a group is known, in this order.
AFTERTHOUGHTS = ("parts", "attribution", "second_clock", "energy")


def stage_of(text: str) -> str:
    """The stage of what the worker tells it is at."""
    return text.split(",", 1)[0]
