"""The part of a frozen graph that is meant: from its inputs to its outputs, at static shapes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgs.config.nearest import listing, nearest
from sgs.errors import UnsupportedOperator, UserError, raise_all
from sgs.frontends.model_file import refused
from sgs.frontends.onnx_model import Shape
from sgs.frontends.tensorflow.child import Request
from sgs.frontends.tensorflow.read import Network, refusing
from sgs.frontends.tensorflow.shapes import Declared, asked_shapes, check_ranks, single, static, told

_VARIABLES = ("AutoReloadVariable", "ReadVariableOp", "VarHandleOp", "Variable", "VariableV2")
_FED = ("Placeholder", "PlaceholderV2")
_DEFAULT = "PlaceholderWithDefault"
# attributes that say how TensorFlow runs a graph; they would keep functions from being inlined
_OF_RUNNING = ("_class", "_output_shapes", "_XlaMustCompile", "_noinline")
_FREEZE = (
    "freeze it: tf.compat.v1.graph_util.convert_variables_to_constants(session, graph_def, outputs); or save it as a "
    "SavedModel and use the platform tensorflow_savemodel"
)
_MOST_RESULTS = 1 << 16  # of a node; a damaged file may say any number
_FLOAT = 1  # TensorFlow's number of float32


@dataclass(frozen=True)
class Part:
    """A frozen graph (a GraphDef) whose inputs are Placeholders of static shape. `inputs` and `outputs`: the caller's
    names → tensors."""

    graph: Any
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def part_of(network: Network, request: Request) -> Part:
    """The part of a network that a request asks for. Raises UserError."""
    graph = _Graph(network.graph, request.path)
    graph.settle_defaults(request.values.get("ignore_default") or (), request.values.get("use_default") or ())
    names = _Names(network, graph, request)
    inputs, outputs = names.found()
    if request.asked.inputs is None and not request.asked.surgery.inputs:
        needed = graph.needed(outputs.values(), ())
        inputs = {name: tensor for name, tensor in inputs.items() if _node_of(tensor) in needed}
    needed = graph.needed(outputs.values(), inputs.values())
    graph.check(needed, inputs, {_node_of(tensor): name for name, tensor in network.inputs.items()})
    shapes = _shapes(graph, inputs, request)
    cut = graph.cut(needed, inputs, shapes, outputs)
    with refusing(request.path, "TensorFlow finds the graph invalid at these shapes", "check the shapes and the cut"):
        whole = _imported(cut.graph)
    _check_output_shapes(whole, cut, request)
    return cut


def _check_output_shapes(whole: Any, part: Part, request: Request) -> None:
    """Raise UserError for outputs of other shapes than --outputs says."""
    problems = []
    for name, wanted in request.asked.surgery.output_shapes.items():
        shape = whole.get_tensor_by_name(part.outputs[name]).shape
        if not shape.is_compatible_with(wanted):
            reason = f"output '{name}' has the shape {told(shape.as_list())}, --outputs says {told(wanted)}"
            problems.append(refused(request.path, reason, "correct --outputs"))
    raise_all(problems, stage="convert", file=request.path)


def _imported(graph: Any) -> Any:
    import tensorflow as tf

    with tf.Graph().as_default() as imported:
        tf.import_graph_def(graph, name="")
    return imported


def label_of(node: Any) -> str:
    """How messages name a node."""
    return f"{node.op} '{node.name}'"


def _node_of(tensor: str) -> str:
    return tensor.split(":")[0]


def _split(name: str) -> tuple[str, int]:
    """The node and the number of its result that an input of a node names."""
    node, colon, index = name.partition(":")
    return (node, int(index)) if index.isascii() and index.isdigit() else (name if colon else node, 0)


# -- names -------------------------------------------------------------------------------------------------------------
class _Names:
    """What the names of a caller stand for: inputs and outputs of the model (renamed, if that is asked for), layers,
    tensors like "x:0", operators like "x"."""

    def __init__(self, network: Network, graph: _Graph, request: Request) -> None:
        self._graph, self._request = graph, request
        ignored = {name: f"{name}:0" for name in request.values.get("ignore_default") or ()}
        sides = {"inputs": {**network.inputs, **ignored}, "outputs": network.outputs}
        self._own = {
            side: self._renamed(side, own, request.values.get(f"rename_{side}")) for side, own in sides.items()
        }
        theirs = {**network.others, **network.outputs, **network.inputs}
        self._known = {**theirs, **self._own["outputs"], **self._own["inputs"]}

    def found(self) -> tuple[dict[str, str], dict[str, str]]:
        """(inputs, outputs): the caller's names → tensors. Raises UserError for all that are not there."""
        asked = {side: self._asked(side) for side in self._own}
        sides = {side: {name: self._tensor(name) for name in names} for side, names in asked.items()}
        missing = [(side, name) for side, names in sides.items() for name, tensor in names.items() if tensor is None]
        raise_all([self._missing(*pair) for pair in missing], stage="convert", file=self._request.path)
        inputs, outputs = ({name: tensor for name, tensor in side.items() if tensor} for side in sides.values())
        return inputs, outputs

    def _renamed(self, side: str, own: Mapping[str, str], names: Sequence[str] | None) -> Mapping[str, str]:
        if names is None:
            return own
        if len(names) != len(own) or len(set(names)) != len(names):
            reason = f"--rename_{side} gives {len(names)} names ({','.join(names)}) to {len(own)} {side}"
            raise refused(self._request.path, reason, f"{side} of the model: {', '.join(own)}")
        return dict(zip(names, own.values(), strict=True))

    def _asked(self, side: str) -> tuple[str, ...]:
        asked = self._request.asked
        return getattr(asked, side) or tuple(end.name for end in getattr(asked.surgery, side)) or tuple(self._own[side])

    def _tensor(self, name: str) -> str | None:
        if name in self._known:
            return self._known[name]
        match = re.fullmatch(r"(.+?)(?::(\d+))?", name)
        node, index = (match[1], int(match[2] or 0)) if match else (name, 0)
        return f"{node}:{index}" if self._graph.has_result(node, index) else None

    def _missing(self, side: str, name: str) -> UserError:
        close = nearest(name, [*self._known, *self._graph.nodes])
        guess = f"did you mean '{close}'? " if close is not None and close != name else ""
        told_own = f"{side} of the model: {listing(self._own[side]) or 'none'}"
        return refused(self._request.path, f"the model has no tensor '{name}'", f"{guess}{told_own}")


# -- the graph ---------------------------------------------------------------------------------------------------------
class _Graph:
    """A GraphDef with its nodes by name."""

    def __init__(self, proto: Any, path: Path) -> None:
        self.proto, self.path = proto, path
        self.nodes = {node.name: node for node in proto.node}

    def has_result(self, name: str, index: int) -> bool:
        if name not in self.nodes:
            return False
        types = self.types_of(name)
        return index == 0 if types is None else index < len(types)

    def types_of(self, name: str) -> list[int] | None:
        """The element types of a node's results, by their numbers; None for an operator that TensorFlow does not
        know."""
        from tensorflow.python.framework import op_def_registry

        node = self.nodes[name]
        definition = op_def_registry.get(node.op)
        if definition is None:
            return None
        defaults = {attr.name: attr.default_value for attr in definition.attr}
        found: list[int] = []
        for result in definition.output_arg:
            if result.type_list_attr:
                found += node.attr[result.type_list_attr].list.type
                continue
            kind, number = result.type_attr, result.number_attr
            value = result.type or (node.attr[kind] if kind in node.attr else defaults[kind]).type
            count = (node.attr[number] if number in node.attr else defaults[number]).i if number else 1
            found += [value] * min(count, _MOST_RESULTS)
        return found

    def type_of(self, tensor: str) -> int:
        """The element type of a tensor; of an operator that TensorFlow does not know, float32."""
        name, index = _split(tensor)
        types = self.types_of(name)
        return _FLOAT if types is None else types[index]

    def settle_defaults(self, ignored: Sequence[str], used: Sequence[str]) -> None:
        """Make the named PlaceholderWithDefault nodes Placeholders, or their defaults. What is left is fed where the
        caller names it as an input, else it is its default."""
        problems = []
        for option, names, used_up in (("ignore_default", ignored, False), ("use_default", used, True)):
            for name in names:
                node = self.nodes.get(name)
                if node is None or node.op != _DEFAULT:
                    have = [other.name for other in self.nodes.values() if other.op == _DEFAULT]
                    reason = f"--{option}: '{name}' is no input with a default"
                    problems.append(refused(self.path, reason, f"there are: {listing(have) or 'none'}"))
                    continue
                if used_up:
                    _use_default(node)
                else:
                    node.op = _FED[0]
                    del node.input[:]
        raise_all(problems, stage="convert", file=self.path)

    def needed(self, outputs: Collection[str], inputs: Collection[str]) -> set[str]:
        """The nodes that tensors are computed from, as far back as others."""
        known = {_split(tensor) for tensor in inputs}
        found: set[str] = set()
        pending = [_split(tensor) for tensor in outputs]
        while pending:
            name, index = pending.pop()
            if (name, index) in known or name in found:
                continue
            if name not in self.nodes:
                reason = f"reads '{name}', which is not in it"
                raise refused(self.path, reason, "save or download the model again")
            found.add(name)
            pending += [_split(operand) for operand in self.nodes[name].input if not operand.startswith("^")]
        return found

    def check(self, needed: Collection[str], inputs: Mapping[str, str], own: Mapping[str, str]) -> None:
        """Raise UserError for what keeps a part from being one: variables, inputs that are not named, operators that
        are not TensorFlow's own, inputs that are no numbers. `own`: nodes that the model's inputs are → their names."""
        raise_all(list(self._problems(needed, inputs, own)), stage="convert", file=self.path)

    def _problems(
        self, needed: Collection[str], inputs: Mapping[str, str], own: Mapping[str, str]
    ) -> Iterator[UserError]:
        import tensorflow as tf

        functions = {function.signature.name for function in self.proto.library.function}
        nodes = [node for node in self.proto.node if node.name in needed]
        variables = [node.name for node in nodes if node.op in _VARIABLES]
        if variables:
            yield refused(self.path, f"is not frozen: its variables are {listing(variables, 4)}", _FREEZE)
        for node in nodes:
            if node.op in _FED:
                reason = f"the outputs need input '{own.get(node.name, node.name)}', which is not named"
                yield refused(self.path, reason, "name it among the inputs of the ini, or begin the network behind it")
            elif self.types_of(node.name) is None and node.op not in functions:
                yield UnsupportedOperator(
                    "is an operator that this TensorFlow does not have",
                    stage="convert",
                    file=self.path,
                    node=label_of(node),
                    remedy="--load_op_libraries loads the library that has it; or end the network before it (outputs)",
                )
        for name, tensor in inputs.items():
            with refusing(self.path, f"says no element type of '{tensor}'", "save or download the model again"):
                kind = tf.as_dtype(self.type_of(tensor))
            if not (kind.is_numpy_compatible and (kind.is_floating or kind.is_integer or kind.is_bool)):
                remedy = "begin the network behind what reads it: name the first tensor of numbers as the input"
                yield refused(self.path, f"input '{name}' holds {kind.name}, no numbers", remedy)

    def cut(
        self,
        needed: Collection[str],
        inputs: Mapping[str, str],
        shapes: Mapping[str, Shape],
        outputs: Mapping[str, str],
    ) -> Part:
        """The part as a graph of its own."""
        import tensorflow as tf

        graph = type(self.proto)()
        graph.versions.CopyFrom(self.proto.versions)
        graph.library.CopyFrom(self.proto.library)
        for function in graph.library.function:
            _drop(function)
            for node in function.node_def:
                _drop(node)
        taken = set(self.nodes)
        fed: dict[tuple[str, int], str] = {}
        ports: dict[str, str] = {}
        for name, tensor in inputs.items():
            node = graph.node.add(name=_fresh("input", taken), op=_FED[0])
            node.attr["dtype"].type = self.type_of(tensor)
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(shapes[name]).as_proto())
            fed[_split(tensor)] = node.name
            ports[name] = f"{node.name}:0"
        # a node of which one result is an input goes on under another name: the input may have the name of the result
        renamed = {name: _fresh(f"{name}_others", taken) for name, _ in fed if name in needed}
        for old in self.proto.node:
            if old.name in needed:
                node = graph.node.add()
                node.CopyFrom(old)
                node.name = renamed.get(old.name, old.name)
                node.device = ""
                _drop(node)
                if node.op == _DEFAULT:
                    _use_default(node)
                operands = [_reads(operand, needed, fed, renamed) for operand in old.input]
                node.input[:] = [operand for operand in operands if operand]
        return Part(graph, ports, self._results(graph, outputs, fed, renamed, taken))

    def _results(
        self,
        graph: Any,
        outputs: Mapping[str, str],
        fed: Mapping[tuple[str, int], str],
        renamed: Mapping[str, str],
        taken: set[str],
    ) -> dict[str, str]:
        """The outputs of a part. One that is an input too, or a second name of the same tensor, gets an Identity."""
        found: dict[str, str] = {}
        for name, tensor in outputs.items():
            place, index = _split(tensor)
            result = f"{renamed.get(place, place)}:{index}"
            if (place, index) in fed or result in found.values():
                source = fed.get((place, index), result)
                node = graph.node.add(name=_fresh("output", taken), op="Identity", input=[source])
                node.attr["T"].type = self.type_of(tensor)
                result = f"{node.name}:0"
            found[name] = result
        return found


def _drop(item: Any, names: Sequence[str] = _OF_RUNNING) -> None:
    """Take attributes from a node or function, those that say how TensorFlow is to run it."""
    for name in names:
        if name in item.attr:
            del item.attr[name]


def _use_default(node: Any) -> None:
    """Make a PlaceholderWithDefault its default."""
    node.op = "Identity"
    node.attr["T"].type = node.attr["dtype"].type
    _drop(node, ("dtype", "shape"))


def _fresh(stem: str, taken: set[str]) -> str:
    name = next(name for number in range(len(taken) + 1) if (name := f"{stem}_{number}") not in taken)
    taken.add(name)
    return name


def _reads(
    operand: str, needed: Collection[str], fed: Mapping[tuple[str, int], str], renamed: Mapping[str, str]
) -> str | None:
    """What an operand of a node is in a part; None for an order of execution that asks for nothing in it."""
    if operand.startswith("^"):
        name = operand[1:]
        return f"^{renamed.get(name, name)}" if name in needed else None
    name, index = _split(operand)
    name = fed.get((name, index)) or f"{renamed.get(name, name)}:{index}"
    return name.removesuffix(":0")  # as TensorFlow writes it: its optimiser takes "x:0" for another thing than "x"


# -- shapes ------------------------------------------------------------------------------------------------------------
def _shapes(graph: _Graph, inputs: Mapping[str, str], request: Request) -> dict[str, Shape]:
    """The static shapes of the inputs: as asked for, else as the graph says, one frame where it leaves the number of
    frames open."""
    path = request.path
    given = asked_shapes(request.asked, list(inputs), path)
    declared = _declared(graph, inputs)
    check_ranks(given, declared, path)
    settled = {name: given.get(name) or _of_one(declared[name]) for name in inputs}
    return static(settled, path)


def _of_one(shape: Declared | None) -> Declared | None:
    return None if shape is None else single(shape)


def _declared(graph: _Graph, inputs: Mapping[str, str]) -> dict[str, Declared | None]:
    """What the whole graph says of tensors' shapes, as far as TensorFlow can tell."""
    needed = graph.needed(list(inputs.values()), ())
    if any(graph.types_of(name) is None for name in needed):
        return dict.fromkeys(inputs)
    part = graph.cut(needed, {}, {}, {})
    with refusing(graph.path, "TensorFlow finds the graph invalid", "save or download the model again"):
        whole = _imported(part.graph)
    found: dict[str, Declared | None] = {}
    for name, tensor in inputs.items():
        shape = whole.get_tensor_by_name(tensor).shape
        found[name] = None if shape.rank is None else tuple(shape.as_list())
    return found
