"""Random valid ONNX networks out of the operators' own examples, compared with onnxruntime.

`build(choose)` puts a network together; `choose(sequence)` picks one of several, so that a seed or hypothesis can.
Every node is evaluated as it is added, which gives the shapes, keeps magnitudes small, and keeps operators within the
numbers that they take.

`python tests/random_onnx.py FIRST LAST` checks the seeds from FIRST to LAST - 1.
"""

from __future__ import annotations

import random
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Scripts"))

import sgs.ops  # noqa: F401  (fills the tables)
from onnx_compare import run_onnx
from sgs.engine import FloatEngine
from sgs.errors import UserError
from sgs.frontends.onnx_import import import_onnx
from sgs.frontends.onnx_layout import SourceLayouts
from sgs.passes.pipeline import optimise
from sgs.registry import ONNX_EXAMPLES, OnnxCase
from sgs.sim import read_sim, write_sim

Choose = Callable[[Sequence[Any]], Any]
OPSETS = (11, 13, 17, 18)
LARGEST = 8.0  # magnitudes above are scaled down: what follows would lose too many digits
# They jump: a difference in the last bit of an operand may be any difference of the result.
# fmt: off
JUMPING = frozenset((
    "ArgMax", "ArgMin", "BitShift", "Cast", "CastLike", "Ceil", "Compress", "Equal", "Floor", "Greater",
    "GreaterOrEqual", "Hardmax", "IsInf", "IsNaN", "Less", "LessOrEqual", "Mod", "NonZero",
    "Not", "OneHot", "QuantizeLinear", "Round", "Sign", "Shrink", "ThresholdedRelu", "TopK", "Unique",
    "DynamicQuantizeLinear", "GridSample", "RoiAlign", "Reciprocal", "Div", "Tan", "Xor", "And", "Or", "Where",
    "ScatterElements", "ScatterND",
))
# fmt: on
# fmt: off
# They divide by what may be next to nothing in numbers that are alike: they get inputs of their own.
NORMALISING = frozenset((
    "GroupNormalization", "InstanceNormalization", "LayerNormalization", "LpNormalization",
    "MeanVarianceNormalization", "RMSNormalization",
))
EXACT = frozenset((
    "Abs", "Clip", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Max", "MaxPool", "Min",
    "Neg", "Pad", "Relu", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose",
    "Unsqueeze",
))
# fmt: on
NAMES = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Value:
    """A value of the network; `exact`: every implementation gives the same bits."""

    name: str
    array: Any
    exact: bool


class Network:
    """A network that grows."""

    def __init__(self, choose: Choose, opset: int) -> None:
        self.choose = choose
        self.opset = opset
        self.values: list[Value] = []
        self.inputs: list[Any] = []
        self.feeds: dict[str, Any] = {}
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.read: set[str] = set()

    def input(self, shape: tuple[int, ...], low: float, high: float) -> Value:
        name = f"in{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, 1, shape))
        array = np.random.default_rng(len(self.inputs)).uniform(low, high, shape).astype(np.float32)
        self.feeds[name] = array
        return Value(name, array, True)

    def constant(self, array: Any) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, operands: Sequence[Value], names: Sequence[str], outputs: int, **attrs: Any) -> list[Value]:
        """Append a node; `names` are its operands in order, constants among them."""
        results = [f"n{len(self.nodes)}_{index}" for index in range(outputs)]
        made = helper.make_node(op, list(names), results, **attrs)
        arrays = self._evaluate(made, operands)
        self.nodes.append(made)
        self.read.update(names)
        exact = op in EXACT and all(value.exact for value in operands)
        return [Value(name, array, exact) for name, array in zip(results, arrays, strict=True)]

    def _evaluate(self, node: Any, operands: Sequence[Value]) -> list[Any]:
        fed = {value.name: value.array for value in operands}
        kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in fed.items()}
        inputs = [helper.make_tensor_value_info(name, kind, fed[name].shape) for name, kind in kinds.items()]
        outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
        constants = [tensor for tensor in self.initializers if tensor.name in node.input]
        graph = helper.make_graph([node], "one", inputs, outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        return list(run_onnx(model, fed).values())

    def fitting(self, shape: tuple[int, ...], case: OnnxCase) -> Value:
        """A value of the shape, within the numbers that the case takes: one there is, one made of it, or an input."""
        jumping = case.op in JUMPING
        there = [v for v in self.values if v.array.shape == shape and (v.exact or not jumping)]
        others = [v for v in self.values if 0 < v.array.size < 4000 and (v.exact or not jumping)]
        if case.op in NORMALISING:
            there = others = []
        source = self.choose(["input", *(["there"] * 4 if there else []), *(["other"] if others else [])])
        if source == "input":
            return self.input(shape, case.low, case.high)
        value = self.choose(there) if source == "there" else self.reshaped(self.choose(others), shape)
        if value.array.size and not case.low <= value.array.min() <= value.array.max() <= case.high and domain(case):
            limits = [self.constant(np.float32(bound)) for bound in (case.low, case.high)]
            (value,) = self.node("Clip", [value], [value.name, *limits], 1)
        return value

    def reshaped(self, value: Value, shape: tuple[int, ...]) -> Value:
        """As many of the value's numbers as the shape takes, repeated if there are too few."""
        wanted = int(np.prod(shape))
        flat = self.constant(np.array([-1], np.int64))
        (value,) = self.node("Reshape", [value], [value.name, flat], 1)
        times = -(-wanted // value.array.size)
        if times > 1:
            (value,) = self.node("Concat", [value], [value.name] * times, 1, axis=0)
        if value.array.size > wanted:
            bounds = [self.constant(np.array([bound], np.int64)) for bound in (0, wanted, 0)]
            (value,) = self.node("Slice", [value], [value.name, *bounds], 1)
        return self.node("Reshape", [value], [value.name, self.constant(np.array(shape, np.int64))], 1)[0]

    def add(self, case: OnnxCase) -> None:
        """Append the operator of a case, its results in numbers of a reasonable size."""
        operands = {name: self.fitting(shape, case) for name, shape in case.inputs.items()}
        order = case.order or (*case.inputs, *case.constants)
        names = []
        for key in order:
            constant = case.constants.get(key)
            names.append("" if not key else operands[key].name if constant is None else self.constant(constant))
        for value in self.node(case.op, list(operands.values()), names, case.outputs, **case.attrs):
            if value.array.dtype != np.float32 or not value.array.size:
                continue
            largest = float(np.abs(value.array).max())
            if not np.isfinite(largest):
                continue
            if largest > LARGEST:
                factor = self.constant(np.float32(LARGEST / largest))
                (value,) = self.node("Mul", [value], [value.name, factor], 1)
            self.values.append(value)

    def model(self) -> ModelProto:
        """The network; its outputs are all that no node reads."""
        outputs = [name for node in self.nodes for name in node.output if name not in self.read]
        infos = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(self.nodes, "random", self.inputs, infos, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


def domain(case: OnnxCase) -> bool:
    """Whether a case says which numbers its operator takes."""
    return (case.low, case.high) not in ((-1.0, 1.0), (-8, 8))


def cases(opset: int) -> dict[str, list[OnnxCase]]:
    """The examples of every operator that are of an operator set, all of whose operands are real numbers; not those of
    the one whose result has as many rows as the numbers say."""
    found = {op: [c for c in ONNX_EXAMPLES[op] if c.opset == opset and not c.types] for op in ONNX_EXAMPLES}
    return {op: of_it for op, of_it in found.items() if of_it and "." not in op and op != "NonMaxSuppression"}


def build(choose: Choose, largest: int = 9) -> tuple[ModelProto, dict[str, Any]]:
    """A network of up to `largest` operators, and numbers for its inputs that its operators take."""
    opset = choose([*OPSETS, 17, 17])
    table = cases(opset)
    network = Network(choose, opset)
    for _ in range(choose(range(2, largest + 1))):
        network.add(choose(table[choose(sorted(table))]))
    return network.model(), network.feeds


def check(model: ModelProto, feeds: dict[str, Any], folder: Path) -> str:
    """ "" where the imported, optimised, written and read network computes what onnxruntime does; the reason of a
    refusal. Raises AssertionError for a wrong result."""
    path = folder / "random.onnx"
    path.write_bytes(model.SerializeToString())
    try:
        graph = import_onnx(path, skip_simplify=True)
    except UserError as error:
        return str(error)
    optimise(graph)
    write_sim(graph, folder / "random.sim", stage="float")
    graph = read_sim(folder / "random.sim").graph
    layouts = SourceLayouts(model)
    turned = [name for name, value in feeds.items() if value.ndim == 4 and layouts.of_input(name) == "NCHW"]
    ours = {name: value.transpose(0, 2, 3, 1) if name in turned else value for name, value in feeds.items()}
    expected, found = run_onnx(model, feeds), FloatEngine(graph, threads=1).run(ours)
    for name in graph.outputs:
        value = expected[name]
        if value.ndim == 4 and layouts.of_output(name) == "NCHW":
            value = value.transpose(0, 2, 3, 1)
        assert found[name].shape == value.shape, f"{name}: shape {found[name].shape}, expected {value.shape}"
        wide = value.astype(np.float64)
        finite = np.abs(wide[np.isfinite(wide)]).max(initial=0.1)  # sums of what is up to LARGEST may cancel
        close = np.isclose(found[name].astype(np.float64), wide, rtol=1e-4, atol=1e-4 * finite, equal_nan=True)
        assert close.all(), f"{name}: {int(np.sum(~close))} of {close.size} differ"
    return ""


def main(first: int, last: int) -> None:
    refused = wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, last):
            model, feeds = build(random.Random(seed).choice)
            try:
                reason = check(model, feeds, Path(folder))
            except Exception:
                wrong += 1
                ops = " ".join(node.op_type for node in model.graph.node)
                print(f"seed {seed}: {traceback.format_exc().strip().splitlines()[-1]}\n    {ops}", flush=True)
                continue
            if reason:
                refused += 1
                print(f"seed {seed}: refused: {reason}", flush=True)
    print(f"{last - first} networks: {wrong} wrong, {refused} refused")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    onnxruntime.set_default_logger_severity(4)
    main(int(sys.argv[1]), int(sys.argv[2]))
