"""The walk over the nodes of a model, once, in order.

Every node is one of three things. Its operands are all constants: it is evaluated. It asks for the shape of an
activation: the answer is a constant, since all shapes are static. Else its `IMPORT_ONNX` row emits our operators, in
the source's layout; where an operator of ours is NHWC the row puts explicit Transposes around it, which a later pass
removes. Nodes of a TFLite file have rows of `IMPORT_TFLITE`; where their operands are all constants, what the row emits
is evaluated.

Problems are collected: results of a node that was refused are lost, nodes that read lost values are passed over, and
all refusals of the file are reported together.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, Literal, TypeVar

import numpy as np
from onnx import NodeProto, TensorProto, TypeProto, checker, defs, helper
from onnx.shape_inference import InferenceError

import sgs.ops  # noqa: F401  (fills the tables)
from sgs.builder import GraphBuilder
from sgs.errors import NeedsConstant, UnsupportedOperator, UserError
from sgs.frontends.model_file import first_line
from sgs.frontends.onnx_bodies import Body, called, function_body, is_expandable
from sgs.frontends.onnx_context import NodeContext, as_graph_data, is_small
from sgs.frontends.onnx_control import HANDLERS, IDENTITY, Item, Walk
from sgs.frontends.onnx_fold import evaluate, foldable, result_sizes
from sgs.frontends.onnx_layout import SourceLayout, SourceLayouts
from sgs.frontends.onnx_message import label_of, reads_of
from sgs.frontends.onnx_model import Port, SourceModel, invalid_because
from sgs.frontends.onnx_reasons import reason_of
from sgs.frontends.tflite.rows import DOMAIN as TFLITE
from sgs.frontends.tflite.rows import Row, quantised, tflite_row
from sgs.ir.graph import Graph, Tensor
from sgs.ir.permute import NCHW_TO_NHWC, NHWC_TO_NCHW
from sgs.ir.verify import verify
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.passes.fold_constants import evaluate as make_constant
from sgs.registry import IMPORT_ONNX

MOST_WRITTEN = 50_000  # nodes of bodies, steps of loops among them
MOST_FOLDED = 4 << 30  # bytes
_AUTO_PADS = ("", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
_CHECKED_IR = 10  # of nodes, whatever the model's
_OF_NODE = "(op_type:"  # what errors of ONNX's shape inference are about
LARGEST_TENSOR = 2**31 - 1  # elements; .sim counts them in int32
_log = logging.getLogger(__name__)
_SHAPE_OF = {
    "Shape": lambda shape, attrs: np.array(shape[attrs.get("start", 0) : attrs.get("end")], np.int64),
    "Size": lambda shape, attrs: np.array(int(np.prod(shape)), np.int64),
}

# operands that may be of a type below a byte, or of 8-bit floating point: only the value counts
_READS_SMALL = {"QuantizeLinear": (1, 2), "DequantizeLinear": (0, 1, 2), "Cast": (0,), "CastLike": (0,)}
# operators that a body may be made of: others are evaluated, by the walk itself
_KNOWN = frozenset({"Constant", "ConstantOfShape", "Range", *_SHAPE_OF, *HANDLERS, *IMPORT_ONNX})

Layouts = Mapping[str, SourceLayout]
Made = TypeVar("Made")


class ImportWalk:
    """One import: what is known of each source value, and the graph that grows."""

    def __init__(
        self,
        source: SourceModel,
        ports: Sequence[Port],
        outputs: Sequence[str],
        wanted: Layouts,
        overrides: Layouts,
        output_shapes: Mapping[str, Sequence[int]],
    ) -> None:
        self.source = source
        self.opset = source.opset  # of the node at hand: bodies may be written in another one
        self.ports = ports
        self.output_names = outputs
        self.wanted = wanted
        self.output_shapes = output_shapes
        self.layouts = SourceLayouts(source.proto, {**source.layouts, **overrides})
        self.graph = Graph(source.path.stem)
        self.builder = GraphBuilder(self.graph)
        self.values: dict[str, Array] = {}  # constants of the source
        self.tensors: dict[str, Tensor] = {}  # activations, in the source's layout
        self.unknown: set[str] = set()  # constants that depend on the shape of a lost activation
        self.small: dict[str, str] = {}  # inputs of types that are held as larger ones → the type
        self.sequences: dict[str, list[str]] = {}  # lists of values, by the names of their elements
        self.lost: set[str] = set()  # results of nodes that were refused
        self.defined = {name for node in source.proto.graph.node for name in node.output}
        self.written = 0  # nodes that stand in for others
        self.folded = 0  # bytes of constants that were computed
        self.problems: list[UserError] = []
        # those in another operator set than the model's: the others are inlined by now
        self.functions = {(f.domain, f.name, f.overload): f for f in source.proto.functions}
        read = (name for node in source.proto.graph.node for name in reads_of(node))
        self.readers = {**dict.fromkeys(outputs, False), **dict.fromkeys(read, True)}
        self.inner: dict[str, list[str]] = {}  # values inside bodies → what their nodes read

    def run(self) -> list[UserError]:
        """Import everything; returns the problems, of which the graph is free only when there are none."""
        if (told := quantised(self.source.proto.graph.node)) is not None:
            self._report(told[0], remedy=told[1])
        self._add_inputs()
        self._bind_constants({tensor.name: tensor for tensor in self.source.proto.graph.initializer})
        self._walk()
        for name in self.output_names:
            self._check_output(name)
            self._check_output_shape(name)
        if not self.problems:
            self._add_outputs()
            self.graph.prune()
            self.graph.metadata["source"] = self._record()
            verify(self.graph, "ONNX import")
        return self.problems

    def _check_output(self, name: str) -> None:
        """Report an output that nothing computes, or that no graph holds."""
        if any(name == port.name for port in self.ports):
            self._report(f"output '{name}' is an input: nothing computes it", remedy="leave it out of the outputs")
        elif name in self.sequences:
            self._report(f"output '{name}' is a sequence, which no graph holds", remedy="return its elements")
        elif not any(name in known for known in (self.tensors, self.values, self.unknown, self.lost)):
            self._report(f"output '{name}' is computed by no node", remedy="export the model again")
        elif name in self.values and name not in self.tensors:
            try:
                held = as_graph_data(self.values[name])
            except ValueError as error:
                kind = self.values[name].dtype
                self._report(f"output '{name}' has element type {kind}, which no graph holds").__cause__ = error
            else:
                if held.dtype.kind in "iu" and not np.array_equal(held, self.values[name]):
                    self._report(f"output '{name}' is a constant beyond 32 bits, which no graph holds")

    def _check_output_shape(self, name: str) -> None:
        """Compare what the caller says of an output, if anything, with what it is."""
        known: Tensor | Array | None = self.tensors.get(name, self.values.get(name))
        wanted = self.output_shapes.get(name)
        if wanted is not None and known is not None and tuple(wanted) != tuple(known.shape):
            told, is_ = (",".join(map(str, shape)) for shape in (wanted, known.shape))
            self._report(
                f"output '{name}' has the shape [{is_}], not [{told}]", remedy="--outputs takes names alone too"
            )

    def _record(self) -> dict[str, Any]:
        proto = self.source.proto
        producer = " ".join(filter(None, [proto.producer_name, proto.producer_version]))
        names = {"file": self.source.path.name, "sha256": self.source.digest, "opset": self.source.opset}
        return {"format": self.source.format, **names, "producer": producer}

    # -- inputs and outputs ----------------------------------------------------------------------------------------
    def _add_inputs(self) -> None:
        for port in self.ports:
            try:
                dtype = DType.of(as_graph_data(np.zeros(0, np.dtype(port.dtype))).dtype)
            except (TypeError, ValueError):
                self._report(f"input '{port.name}' has element type {port.dtype}, which no graph holds")
                self.lost.add(port.name)
                continue
            if is_small(port.dtype):
                self.small[port.name] = port.dtype
            assert port.shape is not None
            if prod(port.shape) > LARGEST_TENSOR:
                self._report(f"input '{port.name}' of shape {port.shape} is too large", remedy="give it other extents")
                self.lost.add(port.name)
                continue
            if len(port.shape) != 4:
                self.tensors[port.name] = self.builder.input(port.name, port.shape, dtype)
                continue
            here, there = self.wanted.get(port.name, "NHWC"), self.layouts.of_input(port.name)
            shape = _turn_shape(port.shape, there, here)
            self.tensors[port.name] = self._turn(self.builder.input(port.name, shape, dtype), here, there)

    def _add_outputs(self) -> None:
        """Declare outputs under the source's names; one that is an input, a constant or another output gets a copy."""
        for name in self.output_names:
            tensor = self.tensors.get(name)
            if tensor is None:
                tensor = self.graph.add_constant(f"{name}/value", as_graph_data(self.values[name]))
            if len(tensor.shape) == 4:
                here, there = self.wanted.get(name, "NHWC"), self.layouts.of_output(name)
                tensor = self._turn(tensor, there, here)
            if tensor.is_constant or tensor.name in self.graph.inputs or tensor.name in self.graph.outputs:
                tensor = self.builder("RESHAPE", tensor, name=name, output=name, shape=tensor.shape)
            self.graph.outputs.append(tensor.name)
        for index, name in enumerate(self.output_names):
            present = self.graph.outputs[index]  # an earlier output may have taken its name
            if name != present:
                if name in self.graph.tensors:
                    self.graph.rename_tensor(name, self.graph.fresh(f"{name}/inner"))
                self.graph.rename_tensor(present, name)

    def _turn(self, tensor: Tensor, present: SourceLayout, wanted: SourceLayout) -> Tensor:
        if present == wanted:
            return tensor
        perm = NHWC_TO_NCHW if wanted == "NCHW" else NCHW_TO_NHWC
        return self.builder("TRANSPOSE", tensor, name=tensor.name, output=f"{tensor.name}/{wanted.lower()}", perm=perm)

    # -- nodes -----------------------------------------------------------------------------------------------------
    def _bind_constants(self, constants: Mapping[str, TensorProto]) -> None:
        for name, tensor in constants.items():
            try:
                self.values[name] = self.source.value_of(tensor)
            except (LookupError, TypeError, ValueError) as error:
                remedy = "export or download the model again"
                self._report(f"initializer '{name}' is damaged: {error}", remedy=remedy).__cause__ = error
                self.lost.add(name)

    def _walk(self) -> None:
        queue: deque[tuple[Item, int]] = deque((node, self.source.opset) for node in self.source.proto.graph.node)
        while queue:
            item, self.opset = queue.popleft()
            more = self._take(item) if isinstance(item, NodeProto) else self._expanded(item.node, item.make)
            if self._adopt(item if isinstance(item, NodeProto) else item.node, more):
                queue.extendleft((made, self.opset) for made in reversed(more))

    def _adopt(self, source: NodeProto, more: Sequence[Item]) -> bool:
        """Take note of what stands in a node's place; False, with a report, where it is too much or defines what the
        model itself defines."""
        made = [item for item in more if isinstance(item, NodeProto)]
        for node in made:
            self.readers.update(dict.fromkeys(filter(None, node.input), True))
            self.inner.update((name, list(node.input)) for name in node.output if name not in self.inner)
        self.written += len(made)
        clash = {name for node in made for name in node.output if name in self.defined} - set(source.output)
        if clash:
            self._report(f"what it comes to defines '{min(clash)}', as the model does", source, "rename that tensor")
        elif self.written > MOST_WRITTEN:
            reason = f"with it, loops and functions come to more than {MOST_WRITTEN} nodes"
            self._report(reason, source, "export the network with the loop outside of it")
        else:
            return True
        self._lose(source)
        return False

    def _take(self, node: NodeProto) -> Sequence[Item]:
        """Deal with one node; returns what takes its place."""
        state, first = self._state(node), next(iter(node.input), "")
        if not any(node.output):  # nobody can read it
            pass
        elif state == "undefined":
            self._lose(node)
        elif state == "lost":
            self._pass_over(node)
        elif (handler := self._handler(node)) is not None:
            return self._expanded(node, lambda: handler(self, node))
        elif state == "constant" and foldable(node) and self._fold(node):
            pass
        elif node.op_type in _SHAPE_OF and first in self.tensors:
            attrs = {a.name: a.i for a in node.attribute}
            self.values[node.output[0]] = _SHAPE_OF[node.op_type](self.tensors[first].shape, attrs)
        elif _row(node) is not None:
            self._import(node)
        else:
            return self._expanded(node, lambda: self._body(node))
        return []

    def _handler(self, node: NodeProto) -> Callable[[Walk, NodeProto], list[Item]] | None:
        """What solves a node of control flow, or on sequences."""
        if _key(node) == "Identity" and next(iter(node.input), "") in self.sequences:
            return IDENTITY
        return HANDLERS.get(_key(node))

    def _expanded(self, node: NodeProto, make: Callable[[], Sequence[Item]]) -> Sequence[Item]:
        """What `make` gives in place of a node; nothing where it refuses it."""
        return self._attempt(node, make) or []

    def _attempt(self, node: NodeProto, make: Callable[[], Made]) -> Made | None:
        """What `make` makes of a node; None where it cannot, which is reported."""
        try:
            return make()
        except UserError as error:
            if not (error.node and error.file):
                cause, error = error, self._about(error.reason, node, error.remedy, type(error))
                error.__cause__ = cause
            if isinstance(error, NeedsConstant):
                error.operand = self._outer(error.operand)
            self.problems.append(error)
        except (MemoryError, ValueError) as error:  # shape rules: the operands do not fit the operator
            self._report(str(error), node, "check the model and the input shapes").__cause__ = error
        except (ArithmeticError, AssertionError, AttributeError, LookupError, StopIteration, TypeError) as error:
            if node.domain == TFLITE:
                reason = "its operands and options do not fit together"
            elif (invalid := invalid_because(self.source, self.ports)) is not None:
                reason = f"the model is not valid ONNX: {invalid}"
            else:
                raise
            self._report(reason, node).__cause__ = error
        self._lose(node)
        return None

    def _body(self, node: NodeProto) -> Sequence[Item]:
        """What the model, or the ONNX standard, defines an operator by. Raises UserError for one without a definition
        by operators that there are."""
        stem = f"{node.output[0] or node.name}/{node.op_type.lower()}"
        function = self.functions.get((node.domain, node.op_type, node.overload))
        body = self._standard_body(node, stem) if function is None else called(node, function, stem)
        opset = self.opset if body is None or body.opset is None else body.opset
        if body is None or (function is None and not all(self._has_meaning(n, opset) for n in body.nodes)):
            raise self.unsupported(node, *reason_of(node, _key(node)))
        self.opset = opset
        return body.nodes

    def _standard_body(self, node: NodeProto, stem: str) -> Body | None:
        if not is_expandable(node, self.opset, _KNOWN):
            return None
        try:
            return function_body(node, self.opset, [self._type(name) for name in node.input], stem)
        except RuntimeError as error:  # not for these types
            _log.debug("%s '%s' has no body: %s", node.op_type, node.name, error)
            return None

    def _has_meaning(self, node: NodeProto, opset: int) -> bool:
        """Whether an operator is one that there is, or is defined by such."""
        known = (
            _row(node) is not None
            or _key(node) in _KNOWN
            or (node.domain, node.op_type, node.overload) in self.functions
        )
        return known or is_expandable(node, opset, _KNOWN)

    # -- what handlers of control flow see: `onnx_control.Walk` -----------------------------------------------------
    def shape_of(self, name: str) -> tuple[int, ...] | None:
        found = self.tensors.get(name, self.values.get(name))
        return None if found is None else tuple(found.shape)

    def bind_body(self, body: Body) -> None:
        self._bind_constants(body.constants)

    def known(self, node: NodeProto, index: int, what: str) -> Array | None:
        name = node.input[index] if index < len(node.input) else ""
        if not name or name in self.values:
            return self.values.get(name)
        reason, remedy = f"its {what} '{name}' is computed by the network", f"a constant {what} is supported"
        error = self._about(reason, node, remedy, NeedsConstant)
        assert isinstance(error, NeedsConstant)
        error.operand = self._outer(name)
        raise error

    def unsupported(self, node: NodeProto, reason: str, remedy: str = "") -> UserError:
        return self._about(reason, node, remedy or None, UnsupportedOperator)

    def _outer(self, name: str) -> str:
        """A computed value of the model itself that a value inside a body comes from."""
        pending, seen = [name], {name}
        while pending:
            name = pending.pop()
            if name not in self.inner:
                return name
            more = [n for n in self.inner[name] if n and n not in self.values and n not in seen]
            pending += more
            seen.update(more)
        return name

    def _type(self, name: str) -> TypeProto | None:
        """ONNX's type of a value, as far as a graph tells: real numbers are float, integers int64."""
        if name in self.values:
            value = self.values[name]
            return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        if name not in self.tensors:
            return None
        tensor = self.tensors[name]
        wide = np.dtype(np.int64) if tensor.dtype is DType.INT32 else tensor.dtype.numpy
        return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(wide), tensor.shape)

    def _state(self, node: NodeProto) -> Literal["constant", "lost", "undefined", "active"]:
        """What the operands allow; reports those that nothing defines."""
        names = [name for name in node.input if name]
        if all(name in self.values for name in names):
            return "constant"
        known = (self.values, self.tensors, self.sequences, self.unknown, self.lost)
        missing = [name for name in names if not any(name in group for group in known)]
        for name in missing:
            later = name in self.defined
            reason = "only a later node defines: the graph has a cycle or is out of order"
            reason = reason if later else "nothing before it defines"
            self._report(f"reads '{name}', which {reason}", node, "export the model again")
        if missing:
            return "undefined"
        return "lost" if any(name in self.lost or name in self.unknown for name in names) else "active"

    def _fold(self, node: NodeProto) -> bool:
        """Evaluate a node of constants; False where that cannot be done, so that its row may try."""
        try:
            results = evaluate(node, self.values, self.opset)
        except Exception as error:
            _log.debug("%s '%s' is not folded: %s", node.op_type, node.name or next(iter(node.output)), error)
            return False
        if results is None:
            return False
        self.folded += sum(value.nbytes for value in results if value.flags.owndata)
        if self.folded > MOST_FOLDED:
            self._report(f"constants that are computed take more than {MOST_FOLDED >> 30} GiB", node)
            self._lose(node)
            return True
        self.values.update((name, value) for name, value in zip(node.output, results, strict=True) if name)
        return True

    def _pass_over(self, node: NodeProto) -> None:
        """A node that reads lost values: its own are lost too. An operator nobody knows is still reported."""
        names = [name for name in node.input if name]
        if node.op_type in _SHAPE_OF or all(name in self.values or name in self.unknown for name in names):
            self.unknown.update(filter(None, node.output))
            return
        if not self._has_meaning(node, self.opset):
            self._refuse(node)
        self._lose(node)

    def _import(self, node: NodeProto) -> None:
        """Let the operator's row emit the node."""
        results = self._attempt(node, lambda: self._emitted(node))
        if results is not None:
            self._bind(node, results)

    def _emitted(self, node: NodeProto) -> Sequence[Tensor]:
        self._check_operands(node)
        operands = _aligned(self.builder, node, [self._operand(name) for name in node.input])
        self._check_form(node)
        self._foresee_sizes(node)
        context = NodeContext(
            self.builder,
            node,
            operands,
            self.values,
            opset=self.opset,
            path=self.source.path,
            readers=self.readers,
            input_types={port.name: port.dtype for port in self.ports},
        )
        row, mark = _row(node), len(self.graph.nodes)
        assert row is not None
        results = row(context)
        context.name_results(mark, results)
        self._check_sizes(mark)
        if node.domain == TFLITE and all(name in self.values for name in node.input if name):
            self._evaluate(mark)
        return results

    def _evaluate(self, first_node: int) -> None:
        """Make constants of the results of the nodes from `first_node` on, which compute from nothing else."""
        fresh = self.graph.nodes[first_node:]
        del self.graph.nodes[first_node:]
        self.graph.nodes += [made for made in fresh if not make_constant(self.graph, made)]

    def _check_form(self, node: NodeProto) -> None:
        """Raise UserError for attributes that the operator does not have, or values that they cannot have."""
        pads = next((a.s.decode("utf-8", "replace") for a in node.attribute if a.name == "auto_pad"), "")
        if pads not in _AUTO_PADS:
            raise self.unsupported(node, f"auto_pad {pads} is not defined", f"use one of {', '.join(_AUTO_PADS[1:])}")
        if not foldable(node) or not _is_current(node, self.opset):
            return
        context = checker.C.CheckerContext()
        context.ir_version, context.opset_imports = _CHECKED_IR, {"": self.opset}
        try:
            checker.check_node(node, context)
        except checker.ValidationError as error:
            told = first_line(error)
            raise self.unsupported(node, f"it is not valid ONNX: {told}", "export the model again") from error

    def _foresee_sizes(self, node: NodeProto) -> None:
        """As `_check_sizes`, before the row makes anything, as far as ONNX's shape inference knows.

        Raises UserError for a node whose attributes or operands it finds wrong.
        """
        if not foldable(node):
            return
        known = {name: self.tensors.get(name, self.values.get(name)) for name in node.input if name}
        try:
            sizes = result_sizes(node, known, self.opset, strict=True)
        except InferenceError as error:
            if str(error).count(_OF_NODE) == 1:  # of the node itself; bodies in the standard have errors of their own
                told = str(error).rpartition("ShapeInferenceError]")[2].strip()
                raise self.unsupported(node, f"it is not valid ONNX: {told}", "export the model again") from error
            sizes = []
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            _log.debug("%s '%s': shapes are not inferred: %s", node.op_type, node.name, error)
            return
        if any(elements > LARGEST_TENSOR for elements, _ in sizes):
            raise ValueError("its result is too large")

    def _check_operands(self, node: NodeProto) -> None:
        """Raise UserError for operands that are no tensors of a type whose arithmetic graphs have."""
        for index, name in enumerate(node.input):
            if name in self.sequences:
                raise self.unsupported(node, f"it reads '{name}', a sequence")
            kind = self.values[name].dtype.name if name in self.values else self.small.get(name, "")
            if is_small(kind) and index not in _READS_SMALL.get(node.op_type, ()):
                raise self.unsupported(node, f"its operand '{name}' has element type {kind}", "cast it first")

    def _check_sizes(self, first_node: int) -> None:
        """Raise ValueError for a result of the nodes from `first_node` on that no machine holds."""
        for made in self.graph.nodes[first_node:]:
            for tensor in self.graph.results(made):
                if prod(tensor.shape) > LARGEST_TENSOR:
                    raise ValueError(f"its result of shape {tensor.shape} is too large")

    def _bind(self, node: NodeProto, results: Sequence[Tensor]) -> None:
        for index, name in enumerate(node.output):
            if not name:
                continue
            if index >= len(results) and name not in self.readers:
                self.lost.add(name)
            elif index >= len(results):
                self._report(f"its result {index} ('{name}') is not supported", node)
                self.lost.add(name)
            elif results[index].data is not None:
                self.values[name] = results[index].data  # type: ignore[assignment]
            else:
                self.tensors[name] = results[index]

    def _operand(self, name: str) -> Tensor | None:
        """An operand as rows see it; constants are filed in the graph only when a row emits them."""
        if not name:
            return None
        if name in self.tensors:
            return self.tensors[name]
        data = as_graph_data(self.values[name])
        return Tensor(name, data.shape, DType.of(data.dtype), data)

    # -- problems --------------------------------------------------------------------------------------------------
    def _lose(self, node: NodeProto) -> None:
        self.lost.update(filter(None, node.output))

    def _refuse(self, node: NodeProto) -> None:
        self.problems.append(self.unsupported(node, *reason_of(node, _key(node))))
        self._lose(node)

    def _report(self, reason: str, node: NodeProto | None = None, remedy: str | None = None) -> UserError:
        self.problems.append(self._about(reason, node, remedy, UserError))
        return self.problems[-1]

    def _about(self, reason: str, node: NodeProto | None, remedy: str | None, kind: type[UserError]) -> UserError:
        label = None if node is None else label_of(node)
        return kind(reason, stage="convert", file=self.source.path, node=label, remedy=remedy)


def _key(node: NodeProto) -> str:
    """The operator's name in the import table: operators of other domains are `domain.Operator`."""
    return str(node.op_type) if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def _row(node: NodeProto) -> Row | None:
    """What emits a node; None where nothing does."""
    return tflite_row(node) if node.domain == TFLITE else IMPORT_ONNX.get(_key(node))


def _is_current(node: NodeProto, opset: int) -> bool:
    """Whether an operator is one of the standard's, and not one that it has withdrawn."""
    try:
        schema = defs.get_schema(node.op_type, opset, "") if node.domain in ("", "ai.onnx") else None
    except defs.SchemaError:
        return False
    return schema is not None and not schema.deprecated


def _aligned(builder: GraphBuilder, node: NodeProto, operands: list[Tensor | None]) -> list[Tensor | None]:
    """Before operator set 7, attribute `axis` said where the second operand's axes stand among the first one's."""
    attrs = {a.name: a.i for a in node.attribute if a.name in ("axis", "broadcast")}
    if not attrs.get("broadcast") or "axis" not in attrs or len(operands) != 2:
        return operands
    first, second = operands
    if first is None or second is None:
        return operands
    axis = attrs["axis"] % len(first.shape)
    behind = (1,) * (len(first.shape) - axis - len(second.shape))
    if second.data is None:
        shape = second.shape + behind
        return [first, builder("RESHAPE", second, name=node.name, output=f"{second.name}/aligned", shape=shape)]
    data = second.data.reshape(second.shape + behind)
    return [first, Tensor(second.name, data.shape, second.dtype, data)]


def _turn_shape(shape: Sequence[int], present: SourceLayout, wanted: SourceLayout) -> tuple[int, ...]:
    if present == wanted:
        return tuple(shape)
    perm = NHWC_TO_NCHW if wanted == "NCHW" else NCHW_TO_NHWC
    return tuple(shape[axis] for axis in perm)
