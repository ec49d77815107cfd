"""The decisions of a calibration, frozen: what every tensor's range is and how many bits every sum of products has.

A plan holds no graph; it can be written as JSON, edited, read back and applied to the float graph again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace

import numpy as np

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
    `bias_shift` [O] real numbers added to the bias.
    """

    bits: int
    weight_bound: Array
    bias_shift: Array | None = None


@dataclass(frozen=True)
class QuantPlan:
    """Everything that distinguishes one fixed graph from another of the same float graph."""

    ranges: dict[str, TensorRange] = field(default_factory=dict)
    macs: dict[str, MacChoice] = field(default_factory=dict)
    level: str = ""

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
            {"level": self.level, "ranges": {k: asdict(r) for k, r in self.ranges.items()}, "macs": macs}, indent=1
        )

    @classmethod
    def from_json(cls, text: str) -> QuantPlan:
        """Inverse of `to_json`. Raises ValueError, KeyError or TypeError for text that is not a plan."""
        data = json.loads(text)
        macs = {
            name: MacChoice(
                int(mac["bits"]),
                np.asarray(mac["weight_bound"], np.float64),
                None if mac["bias_shift"] is None else np.asarray(mac["bias_shift"], np.float64),
            )
            for name, mac in data["macs"].items()
        }
        return cls({k: TensorRange(**r) for k, r in data["ranges"].items()}, macs, data["level"])
