"""What an import row sees of one ONNX node: `sgs.registry.ImportContext`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal

import numpy as np
from onnx import AttributeProto, NodeProto, helper, numpy_helper

from sgs.builder import GraphBuilder
from sgs.errors import OPERATOR_LIST, NeedsConstant, UnsupportedOperator, UserError
from sgs.frontends.onnx_message import label_of
from sgs.ir.graph import Node, Tensor
from sgs.ir.permute import NCHW_TO_NHWC, NHWC_TO_NCHW
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.registry import IMPORT_ONNX

_TURNING = "TRANSPOSE"
# operators to which a bound beyond all values is as good as any other
_BOUNDED = frozenset({"Clip", "Max", "Min", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"})
_NARROW = {"int2": np.int8, "int4": np.int8, "uint2": np.uint8, "uint4": np.uint8}


def is_small(kind: str) -> bool:
    """Whether numpy's name of a type is that of one that graphs hold as a larger one, and that rounds or wraps
    otherwise."""
    return kind in _NARROW or kind.startswith(("float8", "float4"))


def as_graph_data(value: Array) -> Array:
    """A source value in an element type that graphs hold.

    Floats of every width become float32; integers wider than 32 bits int32, saturated (the huge ends of slices mean "to
    the end"), those narrower than 8 bits have 8.

    Raises ValueError for types that have no place in a graph, such as strings.
    """
    kind = value.dtype
    if kind.kind == "f" or kind.name.startswith(("bfloat", "float")):
        return value.astype(np.float32, copy=False)
    if kind in (np.int64, np.uint32, np.uint64):
        return np.clip(value, -(2**31), 2**31 - 1).astype(np.int32)
    if kind.name in _NARROW:
        return value.astype(_NARROW[kind.name])
    DType.of(kind)  # raises ValueError
    return value


class NodeContext:
    """One ONNX node at import. Operands arrive in the source's layout; see `sgs.registry.ImportContext`."""

    def __init__(
        self,
        builder: GraphBuilder,
        node: NodeProto,
        inputs: Sequence[Tensor | None],
        values: Mapping[str, Array],
        *,
        opset: int,
        path: Path,
        readers: Mapping[str, bool] | None = None,
        input_types: Mapping[str, str] | None = None,
    ) -> None:
        """`readers`: the source's values that something reads; True for those that a node does. `input_types`: numpy's
        names of the element types of the source's inputs."""
        self.builder = builder
        self.op = self._source_op = node.op_type
        self.inputs = inputs
        self.opset = opset
        self.output_count = len(node.output)
        self.attrs: dict[str, Any] = {a.name: _attribute(a) for a in node.attribute}
        self._node = node
        self._values = values
        self._readers = readers or {}
        self._input_types = input_types or {}
        self._path = path
        self._stems = [name or f"{self.op.lower()}_unused" for name in node.output]
        self.name = node.name or self._stems[0]
        self._label = label_of(node)

    def source_type(self, index: int) -> str:
        name = self._node.input[index]
        return self._values[name].dtype.name if name in self._values else self._input_types.get(name, "")

    def reader_of(self, index: int) -> Literal["", "output", "node"]:
        name = self._node.output[index] if index < len(self._node.output) else ""
        if not name or name not in self._readers:
            return ""
        return "node" if self._readers[name] else "output"

    def shape_before(self, tensor: Tensor) -> tuple[int, ...] | None:
        graph = self.builder.graph
        maker = next((node for node in reversed(graph.nodes) if tensor.name in node.outputs), None)
        return graph[maker.inputs[0] or ""].shape if maker is not None and maker.op == "RESHAPE" else None

    @property
    def label(self) -> str:
        """How messages name this node."""
        return self._label

    def constant(self, index: int, what: str) -> Array | None:
        """Value of a constant operand, None when absent; refuses a node whose operand is computed."""
        name = self._node.input[index] if index < len(self._node.input) else ""
        if not name:
            return None
        if name not in self._values:
            raise self.needs_constant(index, what)
        value = self._values[name]
        return as_graph_data(value) if value.dtype.kind not in "iub" else value

    def needs_constant(self, index: int, what: str) -> UserError:
        name = self._node.input[index]
        reason, remedy = f"its {what} '{name}' is computed by the network", f"a constant {what} is supported"
        error = NeedsConstant(reason, stage="convert", file=self._path, node=self.label, remedy=remedy)
        error.operand = name
        return error

    def refuse(self, reason: str, remedy: str = "") -> UserError:
        return UnsupportedOperator(reason, stage="convert", file=self._path, node=self.label, remedy=remedy or None)

    def emit(self, op: str, *operands: Any, **attrs: Any) -> Tensor:
        return self.emit_many(op, operands, **attrs)[0]

    def emit_many(self, op: str, operands: Sequence[Any], **attrs: Any) -> list[Tensor]:
        for operand in operands:
            if isinstance(operand, Tensor):
                self._settle(operand)
        return self.builder.node(op, operands, name=self.name, outputs=self._stems, **attrs)

    def call(self, op: str, *operands: Tensor | None, **attrs: Any) -> list[Tensor]:
        if op not in IMPORT_ONNX:
            raise self.refuse(f"operator {op} is not supported", OPERATOR_LIST)
        inner = copy(self)
        inner.op, inner.inputs, inner.attrs = op, list(operands), dict(attrs)
        inner._node = helper.make_node(op, ["" if t is None else t.name for t in operands], self._stems)
        inner._values = {t.name: t.data for t in operands if t is not None and t.data is not None}
        return list(IMPORT_ONNX[op](inner))

    def nhwc(self, tensor: Tensor) -> Tensor:
        return self._turned(tensor, NCHW_TO_NHWC, "nhwc")

    def nchw(self, tensor: Tensor) -> Tensor:
        return self._turned(tensor, NHWC_TO_NCHW, "nchw")

    def _turned(self, tensor: Tensor, perm: tuple[int, ...], layout: str) -> Tensor:
        if tensor.data is not None:
            data = np.ascontiguousarray(tensor.data.transpose(perm))
            return Tensor(f"{tensor.name}/{layout}", data.shape, tensor.dtype, data)
        return self.builder(_TURNING, tensor, name=self.name, output=f"{tensor.name}/{layout}", perm=perm)

    def _settle(self, tensor: Tensor) -> None:
        """File a constant operand in the graph, where it belongs once a row uses it."""
        graph = self.builder.graph
        if tensor.data is not None and graph.tensors.get(tensor.name) is not tensor:
            self._check_width(tensor)
            tensor.name = graph.fresh(tensor.name)
            graph.tensors[tensor.name] = tensor

    def _check_width(self, tensor: Tensor) -> None:
        """Refuse integers that were saturated to 32 bits, but as bounds, where that makes no difference."""
        source = self._values.get(tensor.name)
        if source is None or source.dtype.kind not in "iu" or self._source_op in _BOUNDED or tensor.data is None:
            return
        if source.shape == tensor.shape and not np.array_equal(source, tensor.data):
            raise self.refuse(f"its constant '{tensor.name}' does not fit 32 bits", "integers are held in 32 bits")

    def name_results(self, first_node: int, results: Sequence[Tensor]) -> None:
        """Give the tensors behind `results` the source's names.

        What had the name before, and holds other numbers, is `<name>/before` from then on.

        Where a row ends in a Transpose back to the source's layout, the tensor in front of it gets the name: it is the
        one that stays. `first_node`: where in the graph's node list the row began; only nodes from there know the new
        tensors.
        """
        graph = self.builder.graph
        fresh = graph.nodes[first_node:]
        made = {name: node for node in fresh for name in node.outputs}
        for wanted, result in zip(self._stems, results, strict=False):
            producer = made.get(result.name)
            if producer is not None and producer.op == _TURNING and producer.inputs[0] in made:
                result = graph[producer.inputs[0]]
            if result.name not in made or result.name == wanted:
                continue
            if wanted in made:
                _rename(graph.tensors, fresh, graph[wanted], graph.fresh(f"{wanted}/before"))
            if wanted not in graph.tensors:
                _rename(graph.tensors, fresh, result, wanted)


def _rename(tensors: dict[str, Tensor], nodes: Sequence[Node], tensor: Tensor, new: str) -> None:
    """Rename a tensor that only `nodes` refer to."""
    old = tensor.name
    tensor.name = new
    tensors[new] = tensors.pop(old)
    for node in nodes:
        node.inputs = [new if name == old else name for name in node.inputs]
        node.outputs = [new if name == old else name for name in node.outputs]


def _attribute(attribute: AttributeProto) -> Any:
    """An attribute as plain Python value; text decoded, tensors as arrays."""
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if attribute.type == AttributeProto.TENSOR:
        return numpy_helper.to_array(value)
    if attribute.type == AttributeProto.STRINGS:
        return [text.decode("utf-8", "replace") for text in value]
    return list(value) if attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS) else value
