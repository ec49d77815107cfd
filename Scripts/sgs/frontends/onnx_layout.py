"""In which layout the rank-4 inputs and outputs of an ONNX model are, read off its structure.

The rule, for a rank-4 input or output (sizes are never looked at):
1. what the caller says (`source_layouts`), or the frontend that made the model (`SourceModel.layouts`);
2. else its anchors: walk from it over elementwise operators with one activation. An input whose anchors are all
   Transposes [0,3,1,2] is NHWC; an output that comes from a Transpose [0,2,3,1] is NHWC; where a walk ends at a spatial
   operator, which ONNX defines on NCHW, it is NCHW;
3. else the layout of the exporter's framework: NHWC for TFLite files and models that tf2onnx and its kin wrote, NCHW
   for all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from onnx import GraphProto, ModelProto, NodeProto

from sgs.ir.permute import NCHW_TO_NHWC, NHWC_TO_NCHW

SourceLayout = Literal["NHWC", "NCHW"]

_NHWC_EXPORTERS = ("tf2onnx", "tflite2onnx", "keras2onnx", "tflite")
# fmt: off
_SPATIAL = frozenset((
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace", "GlobalAveragePool", "GlobalLpPool",
    "GlobalMaxPool", "GroupNormalization", "InstanceNormalization", "LRN", "LpPool", "MaxPool", "MaxRoiPool",
    "MaxUnpool", "Resize", "RoiAlign", "SpaceToDepth", "Upsample",
))
_ELEMENTWISE = frozenset((
    "Abs", "Add", "Cast", "Clip", "DequantizeLinear", "Div", "Elu", "Exp", "Floor", "HardSigmoid", "HardSwish",
    "Identity", "LeakyRelu", "Log", "Mul", "Neg", "Pow", "PRelu", "QuantizeLinear", "Relu", "Round", "Sigmoid",
    "Softplus", "Sqrt", "Sub", "Tanh",
))
# fmt: on


class SourceLayouts:
    """Answers `of_input` and `of_output` for one model."""

    def __init__(self, proto: ModelProto, overrides: Mapping[str, SourceLayout] | None = None) -> None:
        graph = proto.graph
        self._default: SourceLayout = "NHWC" if proto.producer_name in _NHWC_EXPORTERS else "NCHW"
        self._overrides = dict(overrides or {})
        self._producers: dict[str, NodeProto] = {name: node for node in graph.node for name in node.output if name}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._still = _constant_names(graph)

    def of_input(self, name: str) -> SourceLayout:
        """The layout of a rank-4 graph input."""
        return self._decide(name, self._anchors_below(name), NHWC_TO_NCHW)

    def of_output(self, name: str) -> SourceLayout:
        """The layout of a rank-4 graph output."""
        return self._decide(name, self._anchors_above(name), NCHW_TO_NHWC)

    def _decide(self, name: str, anchors: list[NodeProto], turning: tuple[int, ...]) -> SourceLayout:
        if name in self._overrides:
            return self._overrides[name]
        turned = [_perm(node) == turning for node in anchors if node.op_type == "Transpose"]
        if any(node.op_type in _SPATIAL for node in anchors):
            return "NCHW"
        if turned and all(turned) and len(turned) == len(anchors):
            return "NHWC"
        return self._default

    def _anchors_below(self, name: str) -> list[NodeProto]:
        """The first operators below that are not elementwise. `Shape` reads no values and is passed over."""
        found, pending, seen = [], [name], {name}
        while pending:
            for node in self._readers.get(pending.pop(), []):
                if node.op_type in _ELEMENTWISE and self._activations(node) == 1:
                    pending.extend(result for result in node.output if result not in seen)
                    seen.update(node.output)
                elif node.op_type not in ("Shape", "Size"):
                    found.append(node)
        return found

    def _anchors_above(self, name: str) -> list[NodeProto]:
        """The operator that makes the values of `name`, behind elementwise ones."""
        node = self._producers.get(name)
        while node is not None and node.op_type in _ELEMENTWISE and self._activations(node) == 1:
            node = self._producers.get(next(n for n in node.input if n and n not in self._still))
        return [] if node is None else [node]

    def _activations(self, node: NodeProto) -> int:
        return len({name for name in node.input if name and name not in self._still})


def _perm(node: NodeProto) -> tuple[int, ...]:
    return next((tuple(a.ints) for a in node.attribute if a.name == "perm"), ())


def _constant_names(graph: GraphProto) -> set[str]:
    """Initializers and everything computed from nothing else."""
    still = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if _all_in(node.input, still):
            still.update(node.output)
    return still


def _all_in(names: Iterable[str], known: set[str]) -> bool:
    return all(not name or name in known for name in names)
