"""The decisions of a calibration, frozen: what every tensor's range is and how many bits every sum of products has.

A plan holds no graph; it can be applied to the float graph again, and written down as JSON (read back by
`quant.plan_file`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import numpy as np

from sgs.data.packed_array import packed
from sgs.numeric.quantise import Array

PRECISIONS = (4, 8, 16)  # bits of a sum of products


@dataclass(frozen=True)
class TensorRange:
    """Real range of an activation and how it was chosen."""

    low: float
    high: float
    method: str = "minmax"


@dataclass(frozen=True, eq=False)
class MacChoice:
    """Precision of one sum of products, named by its (first) result tensor.

    `bits` 4 (INT4 weights on UINT8 activations), 8 or 16; `weight_bound` [O] the magnitude per output channel that the
    largest weight code stands for; `bias_shift` [O] real numbers added to the bias; `weight` (held in binary32) and
    `bias` [O], where given, replace those of the float network.
    """

    bits: int
    weight_bound: Array
    bias_shift: Array | None = None
    weight: Array | None = None
    bias: Array | None = None

    def __post_init__(self) -> None:
        if self.weight is not None:  # so that a plan is what its file says
            object.__setattr__(self, "weight", np.asarray(self.weight, np.float32))


@dataclass(frozen=True)
class QuantPlan:
    """Everything that distinguishes one fixed graph from another of the same float graph.

    `ranges` serve INT16 storage and hold more than all that was seen; `narrow`, where they are given, serve UINT8
    storage: what was seen, or less where clipping is better. `scales` [C]: the plan is for the float graph equalised by
    them (`quant.equalise`).
    """

    ranges: dict[str, TensorRange] = field(default_factory=dict)
    narrow: dict[str, TensorRange] = field(default_factory=dict)
    macs: dict[str, MacChoice] = field(default_factory=dict)
    level: str = ""
    scales: dict[str, Array] = field(default_factory=dict)

    def range_of(self, name: str, *, narrow: bool) -> TensorRange:
        """The range of a tensor for UINT8 (`narrow`) or INT16 storage. Raises KeyError for a tensor without one."""
        return self.narrow.get(name, self.ranges[name]) if narrow else self.ranges[name]

    def with_mac(self, name: str, **changes: object) -> QuantPlan:
        """A plan with one sum of products decided otherwise."""
        return replace(self, macs={**self.macs, name: replace(self.macs[name], **changes)})  # type: ignore[arg-type]

    def to_json(self) -> str:
        """The plan as JSON text, indent 1, keys in graph order. Every number comes back from it as it is."""
        macs = {
            name: {
                "bits": mac.bits,
                "weight_bound": _listed(mac.weight_bound),
                "bias_shift": _listed(mac.bias_shift),
                "bias": _listed(mac.bias),
                "weight": None if mac.weight is None else packed(mac.weight),
            }
            for name, mac in self.macs.items()
        }
        return json.dumps(
            {
                "level": self.level,
                "ranges": {name: _range(span) for name, span in self.ranges.items()},
                "narrow": {name: _range(span) for name, span in self.narrow.items()},
                "macs": macs,
                "scales": {name: _listed(scale) for name, scale in self.scales.items()},
            },
            indent=1,
        )


def _range(span: TensorRange) -> dict[str, object]:
    return {"low": float(span.low), "high": float(span.high), "method": span.method}


def _listed(values: Array | None) -> list[float] | None:
    return None if values is None else [float(v) for v in values]
