"""Numbers that are no values but mark a place: what stands in for infinity in masks and in front of largest values."""

from __future__ import annotations

import numpy as np

from sgs.numeric.quantise import Array

ENDLESS = 1e30  # no value of a network is as large; what is, stands for infinity


def is_marker(values: Array, least: float = ENDLESS) -> Array:
    """Whether numbers only mark a place, and have to lose (or win) against every value: from magnitude `least` on."""
    return np.asarray(np.abs(values) >= least)
