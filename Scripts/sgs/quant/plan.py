"""The decisions of a calibration, frozen: what every tensor's range is and how many bits every sum of products has.

A plan holds no graph; it can be applied to the float graph again, and written down as JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace

from sgs.numeric.quantise import Array


@dataclass(frozen=True)
class TensorRange:
    """Real range of an activation and how it was chosen."""

    low: float
    high: float
    method: str = "minmax"


@dataclass(frozen=True, eq=False)
class MacChoice:
    """Precision of one sum of products, named by its (first) result tensor.

    `bits` 8 or 16; `weight_bound` [O] the magnitude per output channel that the largest weight code stands for;
    `bias_shift` [O] real numbers added to the bias; `weight`, where given, replaces the float network's weights.
    """

    bits: int
    weight_bound: Array
    bias_shift: Array | None = None
    weight: Array | None = None


@dataclass(frozen=True)
class QuantPlan:
    """Everything that distinguishes one fixed graph from another of the same float graph.

    `ranges` hold all that was seen and serve INT16 storage; `narrow` hold clipped ranges for tensors stored as UINT8,
    where they are better than `ranges`.
    """

    ranges: dict[str, TensorRange] = field(default_factory=dict)
    narrow: dict[str, TensorRange] = field(default_factory=dict)
    macs: dict[str, MacChoice] = field(default_factory=dict)
    level: str = ""

    def range_of(self, name: str, *, narrow: bool) -> TensorRange:
        """The range of a tensor for UINT8 (`narrow`) or INT16 storage. Raises KeyError for a tensor without one."""
        return self.narrow.get(name, self.ranges[name]) if narrow else self.ranges[name]

    def with_mac(self, name: str, **changes: object) -> QuantPlan:
        """A plan with one sum of products decided otherwise."""
        return replace(self, macs={**self.macs, name: replace(self.macs[name], **changes)})  # type: ignore[arg-type]

    def to_json(self) -> str:
        """The plan as JSON text, indent 1, keys in graph order."""
        macs = {
            name: {
                "bits": mac.bits,
                "weight_bound": [float(v) for v in mac.weight_bound],
                "bias_shift": None if mac.bias_shift is None else [float(v) for v in mac.bias_shift],
            }
            for name, mac in self.macs.items()
        }
        return json.dumps(
            {
                "level": self.level,
                "ranges": {k: asdict(r) for k, r in self.ranges.items()},
                "narrow": {k: asdict(r) for k, r in self.narrow.items()},
                "macs": macs,
            },
            indent=1,
        )
